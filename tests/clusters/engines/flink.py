"""A standalone Flink cluster: a JobManager, two TaskManagers, a pool of SDK workers."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from engines.cluster import HOSTS, POOL, Cluster, java_of, start_pools
from engines.job_servers import job_server
from engines.processes import HOST, Part, Parts, free_port

SLOTS = 2
"""Of each TaskManager: the one that is left can take over from the other."""

_CONFIG = """
jobmanager.rpc.address: {host}
jobmanager.rpc.port: {rpc_port}
jobmanager.bind-host: {host}
rest.address: {host}
rest.bind-address: {host}
rest.port: {rest_port}
blob.server.port: 0
jobmanager.memory.process.size: 768m
jobmanager.memory.jvm-metaspace.size: 128m
jobmanager.memory.jvm-overhead.min: 64m
jobmanager.memory.jvm-overhead.max: 64m
jobmanager.memory.off-heap.size: 64m
taskmanager.host: {host}
taskmanager.bind-host: {host}
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: {slots}
taskmanager.memory.framework.heap.size: 64m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.managed.size: 64m
taskmanager.memory.network.min: 32m
taskmanager.memory.network.max: 32m
taskmanager.memory.jvm-metaspace.size: 192m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
taskmanager.load-balance.mode: SLOTS
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 5
restart-strategy.fixed-delay.delay: 1 s
heartbeat.interval: 1000
heartbeat.timeout: 10000
io.tmp.dirs: {folder}/tmp
"""

_LOGGING = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %-5p %c{1} %m%n
"""

_OPENED = (
    "java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect", "java.text",
    "java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
)  # fmt: skip
JVM = [word for name in _OPENED for word in ("--add-opens", f"java.base/{name}=ALL-UNNAMED")]


_SESSION = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASKMANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"


@contextlib.contextmanager
def flink_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster, and stop it whatever happens.

    Args:
        folder: for logs, settings and temporary files.

    Raises:
        ClusterError: a part did not come up.
    """
    rest, port = free_port(), free_port()
    jar = job_server("flink")
    with Parts(folder) as parts:
        _configure(folder, rest)
        jobmanager = parts.start("jobmanager", _java("-Xmx512m", _SESSION))
        parts.wait_until_it_listens(jobmanager, rest)
        options = (
            f"--flink_master=http://{HOST}:{rest}",
            "--flink_version=1.19",
            f"--flink_job_server_jar={jar}",
            "--environment_type=EXTERNAL",
            f"--environment_config={POOL}:{port}",
            f"--parallelism={len(HOSTS)}",
        )

        def taskmanager(host: int) -> Part:
            command = _java("-Xmx320m", _TASKMANAGER)
            return parts.start(f"taskmanager-{host}", command, java_of(parts, host))

        pools = start_pools(parts, port)
        joined = "Successful registration at resource manager"
        cluster = Cluster("FlinkRunner", options, parts, taskmanager, joined, pools)
        cluster.mend()
        yield cluster


def _configure(folder: Path, rest_port: int) -> None:
    (folder / "tmp").mkdir()
    text = _CONFIG.format(
        host=HOST, rpc_port=free_port(), rest_port=rest_port, slots=SLOTS, folder=folder
    )
    (folder / "config.yaml").write_text(text)
    (folder / "log4j2.properties").write_text(_LOGGING)


def _java(memory: str, entry: str) -> list[str]:
    package = importlib.util.find_spec("pyflink")  # apache-flink-libraries: jars, and no module
    assert package
    assert package.submodule_search_locations
    library = Path(package.submodule_search_locations[0]) / "lib"
    logging = "-Dlog4j.configurationFile=log4j2.properties"
    return ["java", memory, logging, *JVM, "-cp", f"{library}/*", entry, "--configDir", "."]
