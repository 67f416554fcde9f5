"""The Beam job: one linear chain around writing a shard."""

import contextlib
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from kpdata.core.errors import JobError, KpdataError
from kpdata.core.quiet import without_warnings
from kpdata.pipelines.run import clusters
from kpdata.pipelines.run.beam_workers import ForkedEnvironment, Workers
from kpdata.pipelines.run.runners import EMBEDDED, Execution
from kpdata.pipelines.run.watchdog import Watchdog

with without_warnings():
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.runners.portability.job_server import SubprocessJobServer

_SELF_EXPLAINING = (KpdataError, OSError, RuntimeError)
_UNLISTED = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
"""Runners that Beam has, but knows by their full name only."""

_JOB_SERVERS = "apache_beam.utils.subprocess_server"
"""The logger that tells of job servers, when they end at exit too."""


def _end_server(server: SubprocessJobServer) -> None:
    """Stop a job server, then remove its folder: Beam's own order fails where it still works."""
    folder, server._local_temp_root = server._local_temp_root, None
    server._server.stop()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


SubprocessJobServer.stop = _end_server


def run_on_beam(shards: Sequence[str], write: Callable[[str], Any], execution: Execution) -> None:
    """Call ``write`` on every shard's name on Beam's workers; see :func:`runners.run`."""
    if execution.workers and threading.current_thread() is not threading.main_thread():
        raise JobError("worker processes need the main thread, which alone can hear of their death")
    job_name = f"kpdata-{uuid.uuid4().hex}"
    with _quiet_logs(), Watchdog() as watchdog:
        try:
            pipeline = _pipeline(execution, job_name)
            (
                pipeline
                | "shards to write" >> beam.Create(list(shards))
                | "spread over workers" >> beam.Reshuffle()
                | "write" >> beam.Map(write)
            )
            with _workers(execution, watchdog):
                _run(pipeline, watchdog)
        except BaseException as error:
            if watchdog.interrupted:
                clusters.cancel_on_flink(execution.beam_options, job_name)
                raise KeyboardInterrupt from error
            if watchdog.saw_death:
                raise JobError(
                    "a worker process was killed, most likely because memory ran out. "
                    "Run the same command again: finished shards are kept. "
                    f"Fewer --workers need less memory (this run had {execution.workers})."
                ) from error
            if execution.runner != EMBEDDED and isinstance(error, Exception):
                raise JobError(clusters.explain(execution.runner, error)) from error
            if not isinstance(error, Exception) or isinstance(error, _SELF_EXPLAINING):
                raise
            raise JobError(f"--runner {execution.runner}: {error}") from error


def _workers(execution: Execution, watchdog: Watchdog) -> AbstractContextManager[object]:
    """The processes that the embedded runner asks for; all others have their own."""
    if not execution.workers:
        return contextlib.nullcontext()
    return Workers(execution.nursery, execution.beam_options, watchdog.hear_death)


def _run(pipeline: beam.Pipeline, watchdog: Watchdog) -> None:
    """Run to the end; interrupted, a job that runs elsewhere is cancelled there."""
    result = pipeline.run()
    watchdog.hear_interrupts()  # Beam's job servers do so by now, and would end before their job
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            result.cancel()
        raise


def _pipeline(execution: Execution, job_name: str) -> beam.Pipeline:
    if execution.runner != EMBEDDED:
        clusters.check_reachable(execution.beam_options)
        runner = _UNLISTED.get(execution.runner, execution.runner)
        named = [f"--job_name={job_name}"] if runner == "FlinkRunner" else []
        options = PipelineOptions([*named, *execution.beam_options, f"--runner={runner}"])
        return beam.Pipeline(options=options)
    options = PipelineOptions(
        [*execution.beam_options, f"--direct_num_workers={max(1, execution.workers)}"]
    )
    workers = ForkedEnvironment() if execution.workers else None
    return beam.Pipeline(FnApiRunner(workers), options=options)


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Beam's own account of an error off the screen: the user gets one message."""
    if os.environ.get("KPDATA_BEAM_LOGS"):
        yield
        return
    logging.getLogger(_JOB_SERVERS).setLevel(logging.CRITICAL)
    root, beams = logging.getLogger(), logging.getLogger("apache_beam")
    levels = root.level, beams.level
    root.setLevel(logging.CRITICAL)
    beams.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(levels[0])
        beams.setLevel(levels[1])
