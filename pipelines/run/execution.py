"""Choose where shards are written: this process, worker processes, or a Beam runner; and do it."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from kpdata.pipelines.plan.make import ShardPlan
from kpdata.pipelines.request import Request
from kpdata.pipelines.run.processes import Processes
from kpdata.pipelines.run.worker_count import usable_cores, worker_count
from kpdata.pipelines.write.shard import ShardReport

_SECONDS_BETWEEN_LOOKS = 0.25


class Planned(Protocol):
    """The part of a Conversion that is needed here."""

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the shards to write."""

    def write_function(self, spare_cores: bool = False) -> Callable[[str], ShardReport]:
        """A picklable function that writes a shard, given its name."""


@dataclass(frozen=True)
class Execution:
    """Where shards are written. It never changes what is written.

    Attributes:
        workers: worker processes on this machine; 0 writes in this process.
        runner: name of a Beam runner to use instead.
        beam_options: passed to Beam unchanged.
    """

    workers: int = 0
    runner: str | None = None
    beam_options: tuple[str, ...] = ()

    @classmethod
    def of(cls, request: Request, pending: Sequence[ShardPlan]) -> "Execution":
        """Decide where to write these shards."""
        if request.runner:
            return cls(0, request.runner, request.beam_options)
        return cls(worker_count(request, pending))

    @property
    def spare_cores(self) -> bool:
        """Whether this machine has two cores for each worker."""
        return self.runner is None and 2 * max(1, self.workers) <= usable_cores()


def run(
    planned: Planned, where: Execution, processes: Processes, on_tick: Callable[[], None]
) -> None:
    """Write every pending shard once.

    Args:
        planned: the shards, and how to write one.
        where: the runner, or the number of processes.
        processes: the worker processes of this machine.
        on_tick: called a few times a second while shards are written.

    Raises:
        JobError: a worker was killed, or the runner failed.
        RuntimeError: a worker process raised. An error in this process is raised as it is.
    """
    write = planned.write_function(where.spare_cores)
    with _ticking(on_tick):
        if where.runner:
            from kpdata.pipelines.run.beam_job import run_on_beam  # Beam takes a second to import

            run_on_beam(planned, where.runner, where.beam_options)
        elif where.workers:
            processes.map(write, planned.shards, where.workers)
        else:
            for shard in planned.shards:
                write(shard)


@contextlib.contextmanager
def _ticking(on_tick: Callable[[], None]) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        with contextlib.suppress(OSError):  # of a folder that is gone, whose writer says so
            on_tick()

    def tick() -> None:
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            look()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        look()
