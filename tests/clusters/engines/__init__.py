"""Dask, Flink and Spark as clusters of processes on this machine's loopback."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from engines.cluster import Cluster
from engines.dask import dask_cluster
from engines.flink import flink_cluster
from engines.processes import ClusterError
from engines.spark import spark_cluster

ENGINES: dict[str, Callable[[Path], AbstractContextManager[Cluster]]] = {
    "dask": dask_cluster,
    "flink": flink_cluster,
    "spark": spark_cluster,
}
"""Name → starts the cluster, with all its files in the given folder."""

__all__ = ["ENGINES", "Cluster", "ClusterError"]
