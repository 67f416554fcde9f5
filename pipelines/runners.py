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
from typing import Any

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
_SECONDS_BETWEEN_LOOKS = 0.25


@dataclass(frozen=True)
class Execution:
    """Where a job runs, which never changes what it writes.

    Attributes:
        runner: ``embedded``, or the name of any Beam runner.
        workers: processes of the embedded runner; 0 stays inside this process.
        log: where those processes write what they have to say.
        beam_options: passed to Beam as they are.
    """

    runner: str
    workers: int
    log: Path
    beam_options: tuple[str, ...] = ()


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
        RuntimeError: ``write`` raised on a worker, or the runner itself failed.
    """
    with _quiet_logs(), _ticking(on_tick), _watchdog() as deaths:
        try:
            with _pipeline(plan) as pipeline:
                (
                    pipeline
                    | "shards to write" >> beam.Create(list(shards))
                    | "spread over workers" >> beam.Reshuffle()
                    | "write" >> beam.Map(write)
                )
        except BaseException as error:
            _kill_children()
            if deaths:
                raise JobError(
                    "a worker process was killed, most likely because memory ran out. "
                    "Run the same command again: finished shards are kept. "
                    f"Fewer --workers need less memory (this run had {plan.workers})."
                ) from error
            raise


def _pipeline(plan: Execution) -> beam.Pipeline:
    if plan.runner != EMBEDDED:
        return beam.Pipeline(
            options=PipelineOptions([*plan.beam_options, f"--runner={plan.runner}"])
        )
    options = PipelineOptions([*plan.beam_options, f"--direct_num_workers={plan.workers}"])
    command = f"exec {shlex.quote(sys.executable)} -m {_WORKER} 2>>{shlex.quote(str(plan.log))}"
    workers = SubprocessSDKEnvironment.from_command_string(command)
    return beam.Pipeline(FnApiRunner(workers if plan.workers else None), options=options)


@contextlib.contextmanager
def _watchdog() -> Iterator[list[str]]:
    """Break the main thread's wait when a worker dies: FnApiRunner would wait for ever.

    Yields:
        A list that holds a message once a worker has died.
    """
    deaths: list[str] = []
    previous = threading.excepthook
    main = threading.main_thread()

    def hook(args: threading.ExceptHookArgs) -> None:
        if _WORKER_DIED not in str(args.exc_value):
            previous(args)
        elif not deaths:
            deaths.append(str(args.exc_value))
            signal.pthread_kill(main.ident or 0, signal.SIGINT)

    threading.excepthook = hook
    try:
        yield deaths
    finally:
        threading.excepthook = previous


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
