"""Where shards are written: in this process, on processes of this machine, or on a Beam runner."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kpdata.pipelines.run.processes import Processes

_SECONDS_BETWEEN_LOOKS = 0.25


@dataclass(frozen=True)
class Execution:
    """Where a job runs, which never changes what it writes.

    Attributes:
        workers: processes of this machine; 0 stays inside this process.
        runner: the name of a Beam runner that does the work instead.
        beam_options: passed to Beam as they are.
    """

    workers: int = 0
    runner: str | None = None
    beam_options: tuple[str, ...] = ()

    @property
    def spare_cores(self) -> bool:
        """Whether every worker can have a second core of this machine."""
        return self.runner is None and 2 * max(1, self.workers) <= usable_cores()


def usable_cores() -> int:
    """Cores that this process may run on: not all of the machine's, where it is pinned to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    shards: Sequence[str],
    write: Callable[[str], Any],
    execution: Execution,
    processes: Processes,
    on_tick: Callable[[], None],
) -> None:
    """Call ``write`` on every shard's name, once each, wherever ``execution`` says.

    Args:
        shards: names, in any order.
        write: a picklable function; what it returns is dropped.
        execution: the runner or the number of processes.
        processes: the processes of this machine.
        on_tick: called a few times a second meanwhile.

    Raises:
        JobError: a worker was killed, or the runner failed.
        RuntimeError: ``write`` raised on a worker. In this process, its own error comes through.
    """
    with _ticking(on_tick):
        if execution.runner:
            from kpdata.pipelines.run.beam_job import run_on_beam  # Beam takes a second to import

            run_on_beam(shards, write, execution.runner, execution.beam_options)
        elif execution.workers:
            processes.map(write, shards, execution.workers)
        else:
            for shard in shards:
                write(shard)


@contextlib.contextmanager
def _ticking(on_tick: Callable[[], None]) -> Iterator[None]:
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            on_tick()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        on_tick()
