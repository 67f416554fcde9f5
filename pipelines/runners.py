"""Running the shards through Beam: embedded on this machine by default, or on a named runner."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import PipelineOptions

from kpdata.errors import JobError

EMBEDDED = "embedded"
_FN_API = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
_WORKER_DIED = "Worker subprocess exited"
_SECONDS_BETWEEN_LOOKS = 0.25


def run(
    shards: Sequence[str],
    write: Callable[[str], Any],
    runner: str,
    workers: int,
    in_process: bool,
    beam_options: Sequence[str],
    on_tick: Callable[[], None],
) -> None:
    """Call ``write`` on every shard's name, once each, wherever the runner says.

    Args:
        shards: names, in any order.
        write: a picklable function; what it returns is dropped.
        runner: ``embedded``, or the name of any Beam runner.
        workers: processes of the embedded runner.
        in_process: keep the embedded runner inside this process: for jobs of a few seconds.
        beam_options: passed to the runner as they are.
        on_tick: called a few times a second meanwhile.

    Raises:
        JobError: a worker was killed.
        RuntimeError: ``write`` raised on a worker, or the runner itself failed.
    """
    options = _options(runner, workers, in_process, beam_options)
    with _quiet_logs(), _ticking(on_tick), _watchdog() as deaths:
        try:
            with beam.Pipeline(options=options) as pipeline:
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
                    f"Fewer --workers need less memory (this run had {workers})."
                ) from error
            raise


def _options(
    runner: str, workers: int, in_process: bool, beam_options: Sequence[str]
) -> PipelineOptions:
    if runner != EMBEDDED:
        return PipelineOptions([*beam_options, f"--runner={runner}"])
    if in_process:
        mode, workers = "in_memory", 1
    else:
        mode = "multi_processing"
    return PipelineOptions(
        [
            *beam_options,
            f"--runner={_FN_API}",
            f"--direct_running_mode={mode}",
            f"--direct_num_workers={workers}",
        ]
    )


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
