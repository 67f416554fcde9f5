"""Where shards are written: in this process, on processes of this machine, or on a Beam runner."""

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
    """What there is to write: a Conversion."""

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the shards to write."""

    def write_function(self, spare_cores: bool = False) -> Callable[[str], ShardReport]:
        """What writes one by its name; picklable."""


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

    @classmethod
    def of(cls, request: Request, pending: Sequence[ShardPlan]) -> "Execution":
        """Where the request has these shards written."""
        if request.runner:
            return cls(0, request.runner, request.beam_options)
        return cls(worker_count(request, pending))

    @property
    def spare_cores(self) -> bool:
        """Whether every worker can have a second core of this machine."""
        return self.runner is None and 2 * max(1, self.workers) <= usable_cores()


def run(
    planned: Planned, where: Execution, processes: Processes, on_tick: Callable[[], None]
) -> None:
    """Write every pending shard once.

    Args:
        planned: the shards, and how to write one.
        where: the runner or the number of processes.
        processes: the processes of this machine.
        on_tick: called a few times a second meanwhile.

    Raises:
        JobError: a worker was killed, or the runner failed.
        RuntimeError: a worker failed. In this process, the error itself comes through.
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
