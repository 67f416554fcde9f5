"""A Dask cluster of separate processes: a scheduler and two workers."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from engines.cluster import Cluster
from engines.processes import HOST, Part, Parts, free_port

_NO_PAGES = ("--dashboard-address", f"{HOST}:0")
"""Any port: nobody looks at them."""


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster, and stop it whatever happens.

    Args:
        folder: for logs and temporary files.

    Raises:
        ClusterError: a part did not come up.
    """
    port = free_port()
    address = f"tcp://{HOST}:{port}"
    with Parts(folder) as parts:
        command = [*_module("dask_scheduler"), "--host", address, *_NO_PAGES]
        parts.wait_until_it_listens(parts.start("scheduler", command), port)

        def worker(host: int) -> Part:
            command = [
                *_module("dask_worker"), address, "--host", HOST, "--nthreads", "1", "--no-nanny",
                "--local-directory", str(folder / f"worker-{host}"), *_NO_PAGES,
            ]  # fmt: skip
            return parts.start(f"worker-{host}", command)

        options = (f"--dask_client_address={address}", "--dask_npartitions=12")
        cluster = Cluster("DaskRunner", options, parts, worker, "Registered to:")
        cluster.mend()
        yield cluster


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"distributed.cli.{name}"]
