"""Where shards are written: in this process, or through Beam, embedded or on a named runner."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kpdata.pipelines.run.nursery import Nursery

EMBEDDED = "embedded"
_SECONDS_BETWEEN_LOOKS = 0.25


@dataclass(frozen=True)
class Execution:
    """Where a job runs, which never changes what it writes.

    Attributes:
        runner: ``embedded``, or the name of any Beam runner.
        workers: processes of the embedded runner; 0 stays inside this process, without Beam.
        nursery: where those processes come from.
        beam_options: passed to Beam as they are.
    """

    runner: str
    workers: int
    nursery: Nursery
    beam_options: tuple[str, ...] = ()

    @property
    def in_process(self) -> bool:
        """Whether nothing but a loop is asked for, which Ctrl-C can stop at any moment."""
        return self.runner == EMBEDDED and not self.workers and not self.beam_options

    @property
    def spare_cores(self) -> bool:
        """Whether every worker can have a second core of this machine."""
        return self.runner == EMBEDDED and 2 * max(1, self.workers) <= usable_cores()


def usable_cores() -> int:
    """Cores that this process may run on: not all of the machine's, where it is pinned to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    shards: Sequence[str],
    write: Callable[[str], Any],
    execution: Execution,
    on_tick: Callable[[], None],
) -> None:
    """Call ``write`` on every shard's name, once each, wherever ``execution`` says.

    Args:
        shards: names, in any order.
        write: a picklable function; what it returns is dropped.
        execution: the runner and its workers.
        on_tick: called a few times a second meanwhile.

    Raises:
        JobError: a worker was killed.
        RuntimeError: ``write`` raised on a worker, or the runner itself failed. In this process,
            ``write``'s own error comes through.
    """
    with _ticking(on_tick):
        if execution.in_process:
            for shard in shards:
                write(shard)
        else:
            from kpdata.pipelines.run.beam_job import run_on_beam  # Beam takes a second to import

            run_on_beam(shards, write, execution)


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
