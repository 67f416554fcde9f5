"""Writing shards with Apache Beam: on a runner, or within a pipeline of the user's own."""

import contextlib
import io
import logging
import os
import signal
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from kpdata.core.errors import JobError
from kpdata.core.quiet import without_warnings
from kpdata.pipelines.run import clusters
from kpdata.pipelines.run.execution import Planned

with without_warnings():
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

_UNLISTED = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
"""Runners that Beam accepts by their full name only."""

_HELP = "https://beam.apache.org/releases/pydoc/current/apache_beam.options.pipeline_options.html"
_JOB_SERVERS = "apache_beam.utils.subprocess_server"
"""The logger that reports on job servers, even when they stop at exit."""


@dataclass
class WriteShards(beam.PTransform):
    """Writes the pending shards of a conversion in a pipeline of your own.

    Applied to a pipeline, it returns a PCollection with a :class:`ShardReport` for each shard that
    was written. Workers must see the images and ``out`` under the same paths or URLs as the driver.

    >>> with Conversion.plan(source, request, "shards/") as conversion:    # doctest: +SKIP
    ...     with beam.Pipeline(options=options) as pipeline:
    ...         reports = pipeline | WriteShards(conversion)
    ...     outcome = conversion.seal()

    Attributes:
        conversion: the planned conversion. The caller seals it once the pipeline has ended.
    """

    conversion: Planned

    def __post_init__(self) -> None:
        """Set up Beam's base class, which a dataclass does not call."""
        super().__init__()

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """One element for each shard; Reshuffle distributes them over the workers."""
        return (
            pipeline
            | "shards to write" >> beam.Create(list(self.conversion.shards), reshuffle=False)
            | "spread over workers" >> beam.Reshuffle()
            | "write" >> beam.Map(self.conversion.write_function())
        )


def run_on_beam(planned: Planned, runner: str, beam_options: Sequence[str]) -> None:
    """Write every pending shard on the workers of a Beam runner.

    Raises:
        JobError: the runner cannot be reached, or the job failed.
    """
    job_name = f"kpdata-{uuid.uuid4().hex}"
    with _quiet_logs(), _Interrupts() as interrupts:
        try:
            clusters.check_reachable(beam_options)
            pipeline = beam.Pipeline(options=_options(runner, beam_options, job_name))
            _ = pipeline | WriteShards(planned)
            _run(pipeline, interrupts)
        except BaseException as error:
            if interrupts.heard:
                clusters.cancel_on_flink(beam_options, job_name)
                raise KeyboardInterrupt from error
            if not isinstance(error, Exception):
                raise
            raise JobError(clusters.explain(runner, error)) from error


def _options(runner: str, beam_options: Sequence[str], job_name: str) -> PipelineOptions:
    runner = _UNLISTED.get(runner, runner)
    named = [f"--job_name={job_name}"] if runner == "FlinkRunner" else []
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            options = PipelineOptions([*named, *beam_options, f"--runner={runner}"])
            options.get_all_options()  # Beam parses each group of options when it needs it
    except SystemExit as error:  # of argparse, which has printed how all of them are used
        *_, refusal = said.getvalue().strip().split("error: ")
        what = refusal if error.code else "a request for help"
        raise JobError(f"Beam refuses its options: {what}. {_HELP} lists them") from error
    return options


def _run(pipeline: beam.Pipeline, interrupts: "_Interrupts") -> None:
    """Run the pipeline to its end; on Ctrl-C, cancel the job on the cluster too."""
    result = pipeline.run()
    interrupts.hear()  # Beam's job servers handle them by now, and would stop before the job
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            result.cancel()
        raise


class _Interrupts:
    """Remembers Ctrl-C and SIGTERM, which Beam may turn into another error.

    Attributes:
        heard: whether one of them arrived.
    """

    def __init__(self) -> None:
        self.heard = False
        handled = [signal.SIGINT, signal.SIGTERM]
        # Python lets only the main thread set handlers
        in_main = threading.current_thread() is threading.main_thread()
        self._old = {n: signal.getsignal(n) for n in handled if in_main}

    def hear(self) -> None:
        """Handle the signals that had a handler before, even if Beam has set another since."""
        for number, handler in self._old.items():
            if callable(handler):
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        handler = self._old[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)

    def __enter__(self) -> "_Interrupts":
        self.hear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            if callable(handler):
                signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Beam's log of an error off the screen: the user gets one message."""
    if os.environ.get("KPDATA_BEAM_LOGS"):
        yield
        return
    logging.getLogger(_JOB_SERVERS).setLevel(logging.CRITICAL)
    root, beams = logging.getLogger(), logging.getLogger("apache_beam")
    levels = root.level, beams.level
    root.setLevel(logging.CRITICAL)
    beams.setLevel(logging.CRITICAL)
    try:
        with _silent_threads():
            yield
    finally:
        root.setLevel(levels[0])
        beams.setLevel(levels[1])


@contextlib.contextmanager
def _silent_threads() -> Iterator[None]:
    """Print no traceback of threads that begin inside the block: they are Beam's.

    Some outlive the job, and fail when its server ends; the job has reported its own error before.
    """
    others, before = set(threading.enumerate()), threading.excepthook
    left: Collection[threading.Thread | None] | None = None

    def hook(args: threading.ExceptHookArgs) -> None:
        ignored = args.thread not in others if left is None else args.thread in left
        if not ignored:
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        left = set(threading.enumerate()) - others
