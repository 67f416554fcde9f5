"""A standalone Spark cluster: a master, two workers, a pool of SDK workers for each."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from engines.cluster import POOL, Cluster, java_of, start_pools
from engines.job_servers import job_server
from engines.processes import HOST, Part, Parts, free_port

_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"


_NO_PAGES = ("--webui-port", "0")
"""Any port: nobody looks at them."""

_ENVIRONMENT = {"SPARK_LOCAL_IP": HOST, "SPARK_DAEMON_MEMORY": "384m"}


@contextlib.contextmanager
def spark_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster, and stop it whatever happens.

    Args:
        folder: for logs and temporary files.

    Raises:
        ClusterError: a part did not come up.
    """
    port, pool_port = free_port(), free_port()
    url = f"spark://{HOST}:{port}"
    jar = job_server("spark")
    with Parts(folder) as parts:
        command = [_spark_class(), _MASTER, "--host", HOST, "--port", str(port), *_NO_PAGES]
        master = parts.start("master", command, _ENVIRONMENT)
        parts.wait_until_it_listens(master, port)
        options = (
            f"--spark_master_url={url}",
            f"--spark_job_server_jar={jar}",
            "--environment_type=EXTERNAL",
            f"--environment_config={POOL}:{pool_port}",
        )

        def worker(host: int) -> Part:
            command = [
                _spark_class(), _WORKER, url, "--host", HOST, "--cores", "1", "--memory", "1g",
                "--work-dir", folder / f"work-{host}", *_NO_PAGES,
            ]  # fmt: skip
            return parts.start(f"worker-{host}", command, _ENVIRONMENT | java_of(parts, host))

        pools = start_pools(parts, pool_port)
        joined = "Successfully registered with master"
        cluster = Cluster("SparkRunner", options, parts, worker, joined, pools)
        cluster.mend()
        yield cluster


def _spark_class() -> Path:
    package = importlib.util.find_spec("pyspark")
    assert package
    assert package.origin
    return Path(package.origin).parent / "bin" / "spark-class"
