"""The Beam job: one linear chain around writing a shard."""

import contextlib
import logging
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kpdata.errors import JobError, KpdataError
from kpdata.pipelines.runners import EMBEDDED, Execution
from kpdata.pipelines.watchdog import Watchdog

logging.disable(logging.WARNING)  # Beam warns of optional cloud packages while it is imported
import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner  # noqa: E402
from apache_beam.transforms.environments import SubprocessSDKEnvironment  # noqa: E402

logging.disable(logging.NOTSET)

_WORKER = "apache_beam.runners.worker.sdk_worker_main"
_SELF_EXPLAINING = (KpdataError, OSError, RuntimeError)
_UNLISTED = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
"""Runners that Beam has, but knows by their full name only."""


def run_on_beam(shards: Sequence[str], write: Callable[[str], Any], plan: Execution) -> None:
    """Call ``write`` on every shard's name on Beam's workers; see :func:`runners.run`."""
    if plan.workers and threading.current_thread() is not threading.main_thread():
        raise JobError("worker processes need the main thread, which alone can hear of their death")
    with _quiet_logs(), Watchdog() as watchdog:
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
            if not isinstance(error, Exception) or isinstance(error, _SELF_EXPLAINING):
                raise
            raise JobError(f"--runner {plan.runner}: {error}") from error


def _pipeline(plan: Execution) -> beam.Pipeline:
    if plan.runner != EMBEDDED:
        return _pipeline_on(plan.runner, plan.beam_options)
    options = PipelineOptions([*plan.beam_options, f"--direct_num_workers={max(1, plan.workers)}"])
    python, log = shlex.quote(sys.executable), shlex.quote(str(plan.log))
    command = f"trap '' INT TERM; exec {python} -m {_WORKER} 2>>{log}"  # for the driver to hear
    workers = SubprocessSDKEnvironment.from_command_string(command)
    return beam.Pipeline(FnApiRunner(workers if plan.workers else None), options=options)


def _pipeline_on(runner: str, beam_options: Sequence[str]) -> beam.Pipeline:
    name = _UNLISTED.get(runner, runner)
    try:
        return beam.Pipeline(options=PipelineOptions([*beam_options, f"--runner={name}"]))
    except (ValueError, ImportError, AttributeError) as error:
        raise JobError(f"--runner {runner}: {error}") from error


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
