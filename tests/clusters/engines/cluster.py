"""What the tests need to know of a running cluster, and its hosts."""

import contextlib
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from engines.processes import HOST, Part, Parts

POOL = "sdk-pool"
"""The name under which each host of a cluster finds its own pool of SDK workers."""

HOSTS = (1, 2)
"""All of them are this machine: each has an address of the loopback for its pool."""

_SDK_WORKER = "apache_beam.runners.worker.sdk_worker"


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        runner: Beam's name of the runner.
        options: what goes behind ``--``.
        parts: all processes.
        start_worker: starts the worker of a host: a TaskManager, a Spark or a Dask worker.
        greeting: what a worker's log says once it has joined.
        pools: start Beam's SDK workers; none where tasks run in ``workers`` themselves.
        workers: by host.
    """

    runner: str
    options: tuple[str, ...]
    parts: Parts
    start_worker: Callable[[int], Part]
    greeting: str
    pools: list[Part] = field(default_factory=list)
    workers: dict[int, Part] = field(default_factory=dict)

    def mend(self) -> None:
        """Start the workers that are missing, all of them in the beginning.

        Raises:
            ClusterError: one did not come up.
        """
        missing = [h for h in HOSTS if h not in self.workers or not self.workers[h].alive]
        self.workers.update({host: self.start_worker(host) for host in missing})
        for host in missing:
            self.parts.wait_until_it_says(self.workers[host], self.greeting)

    def sdk_workers(self) -> list[psutil.Process]:
        """The processes in which kpdata's own code runs beside ``workers``."""
        children = [child for pool in self.pools for child in pool.children()]
        return [child for child in children if _SDK_WORKER in _command_line(child)]


def start_pools(parts: Parts, port: int) -> list[Part]:
    """Start the pool of SDK workers of each host, and wait for them.

    A pool shared by two workers would mix up their SDK workers, which each of them counts from 1.

    Raises:
        ClusterError: one did not come up.
    """
    program = Path(__file__).with_name("pool.py")
    commands = {host: [sys.executable, program, f"{_address(host)}:{port}"] for host in HOSTS}
    pools = {host: parts.start(f"pool-{host}", command) for host, command in commands.items()}
    for host, pool in pools.items():
        parts.wait_until_it_listens(pool, port, _address(host))
    return list(pools.values())


def java_of(parts: Parts, host: int) -> dict[str, str]:
    """Environment of a Java process, and those that it starts, on the host of this number."""
    hosts = parts.folder / f"hosts-{host}"
    names = {POOL: _address(host), "localhost": HOST, socket.gethostname(): HOST}
    hosts.write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    return {"JAVA_TOOL_OPTIONS": f"-Djdk.net.hosts.file={hosts}"}


def _address(host: int) -> str:
    return f"127.0.1.{host}"


def _command_line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
        return " ".join(process.cmdline())
    return ""
