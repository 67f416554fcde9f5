"""Running the shards through Beam: embedded on this machine by default, or on a named runner."""

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import psutil

from kpdata.errors import JobError

logging.disable(logging.WARNING)  # Beam warns of optional cloud packages while it is imported
import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner  # noqa: E402
from apache_beam.transforms.environments import SubprocessSDKEnvironment  # noqa: E402

logging.disable(logging.NOTSET)

EMBEDDED = "embedded"
_WORKER = "apache_beam.runners.worker.sdk_worker_main"
_WORKER_DIED = "Worker subprocess exited"
_UNLISTED = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
"""Runners that Beam has, but knows by their full name only."""
_BEAM_THREADS = frozenset({"run_worker", "beam_control_read", "read_grpc_client_inputs"})
"""They serve one worker each, and end in an exception when it is gone."""
_SECONDS_BETWEEN_LOOKS = 0.25
_SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class Execution:
    """Where a job runs, which never changes what it writes.

    Attributes:
        runner: ``embedded``, or the name of any Beam runner.
        workers: processes of the embedded runner; 0 stays inside this process, without Beam.
        log: where those processes write what they have to say.
        beam_options: passed to Beam as they are.
    """

    runner: str
    workers: int
    log: Path
    beam_options: tuple[str, ...] = ()

    @property
    def in_process(self) -> bool:
        """Whether nothing but a loop is asked for, which Ctrl-C can stop at any moment."""
        return self.runner == EMBEDDED and not self.workers and not self.beam_options


def run(
    shards: Sequence[str],
    write: Callable[[str], Any],
    plan: Execution,
    on_tick: Callable[[], None],
) -> None:
    """Call ``write`` on every shard's name, once each, wherever ``plan`` says.

    Args:
        shards: names, in any order.
        write: a picklable function; what it returns is dropped.
        plan: the runner and its workers.
        on_tick: called a few times a second meanwhile.

    Raises:
        JobError: a worker was killed.
        RuntimeError: ``write`` raised on a worker, or the runner itself failed. In this process,
            ``write``'s own error comes through.
    """
    with _ticking(on_tick):
        if plan.in_process:
            for shard in shards:
                write(shard)
        else:
            _run_on_beam(shards, write, plan)


def _run_on_beam(shards: Sequence[str], write: Callable[[str], Any], plan: Execution) -> None:
    with _quiet_logs(), _Watchdog() as watchdog:
        try:
            with _pipeline(plan) as pipeline:
                (
                    pipeline
                    | "shards to write" >> beam.Create(list(shards))
                    | "spread over workers" >> beam.Reshuffle()
                    | "write" >> beam.Map(write)
                )
        except BaseException as error:
            watchdog.stop_workers()
            if watchdog.interrupted:
                raise KeyboardInterrupt from error
            if watchdog.saw_death:
                raise JobError(
                    "a worker process was killed, most likely because memory ran out. "
                    "Run the same command again: finished shards are kept. "
                    f"Fewer --workers need less memory (this run had {plan.workers})."
                ) from error
            raise


def _pipeline(plan: Execution) -> beam.Pipeline:
    if plan.runner != EMBEDDED:
        return _pipeline_on(plan.runner, plan.beam_options)
    options = PipelineOptions([*plan.beam_options, f"--direct_num_workers={plan.workers}"])
    python, log = shlex.quote(sys.executable), shlex.quote(str(plan.log))
    command = f"trap '' INT; exec {python} -m {_WORKER} 2>>{log}"  # Ctrl-C is the driver's to hear
    workers = SubprocessSDKEnvironment.from_command_string(command)
    return beam.Pipeline(FnApiRunner(workers if plan.workers else None), options=options)


def _pipeline_on(runner: str, beam_options: Sequence[str]) -> beam.Pipeline:
    name = _UNLISTED.get(runner, runner)
    try:
        return beam.Pipeline(options=PipelineOptions([*beam_options, f"--runner={name}"]))
    except (ValueError, ImportError, AttributeError) as error:
        raise JobError(f"--runner {runner}: {error}") from error


class _Watchdog:
    """Breaks the main thread's wait when a worker dies: FnApiRunner would wait for ever.

    Attributes:
        interrupted: Ctrl-C was pressed, which Beam may turn into another error.
        saw_death: a worker died, and nobody had interrupted the run before.
    """

    def __init__(self) -> None:
        self.interrupted = self.saw_death = self._stopping = False
        self._in_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        self._old_hook, threading.excepthook = threading.excepthook, self._hear
        if self._in_main:  # nobody else may set a signal's handler
            self._old_handler = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        threading.excepthook = self._old_hook
        if self._in_main:
            signal.signal(signal.SIGINT, self._old_handler)

    def _hear(self, args: threading.ExceptHookArgs) -> None:
        if _WORKER_DIED in str(args.exc_value):
            if self._in_main and not (self.saw_death or self._stopping):
                self.saw_death = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        elif args.thread is None or args.thread.name not in _BEAM_THREADS:
            self._old_hook(args)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Hear a worker's death or Ctrl-C, whichever comes first: each brings on the other."""
        if self.saw_death:
            raise KeyboardInterrupt
        if callable(self._old_handler):
            self.interrupted = self._stopping = True
            self._old_handler(number, frame)

    def stop_workers(self) -> None:
        """Kill all workers, and wait until the threads that served them have ended."""
        self._stopping = True
        _kill_children()
        for thread in threading.enumerate():
            if thread.name in _BEAM_THREADS:
                thread.join(_SECONDS_TO_END)


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


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Beam's own account of an error off the screen: the user gets one message."""
    if os.environ.get("KPDATA_BEAM_LOGS"):
        yield
        return
    root, beams = logging.getLogger(), logging.getLogger("apache_beam")
    levels = root.level, beams.level
    root.setLevel(logging.CRITICAL)
    beams.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(levels[0])
        beams.setLevel(levels[1])


def _kill_children() -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
