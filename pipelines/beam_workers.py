"""The embedded runner's worker processes: how Beam starts, hears the death of and ends them."""

import functools
import json
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from kpdata.pipelines import forked
from kpdata.quiet import without_warnings

with without_warnings():
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import endpoints_pb2
    from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
        GrpcWorkerHandler,
        WorkerHandler,
    )
    from apache_beam.runners.worker import sdk_worker_main
    from apache_beam.transforms.environments import Environment, python_sdk_capabilities
    from google.protobuf import text_format

_URN = "kpdata:env:forked:v1"
_SAY_LITTLE = "--default_sdk_harness_log_level=ERROR"


@Environment.register_urn(_URN, bytes)
class ForkedEnvironment(Environment):
    """What :class:`Workers` answer to."""

    def __init__(self) -> None:
        super().__init__(python_sdk_capabilities())

    def to_runner_api_parameter(self, context: object) -> tuple[str, bytes]:
        """Beam's name of this environment, which has no settings."""
        return _URN, b""

    @staticmethod
    def from_runner_api_parameter(*_: object) -> "ForkedEnvironment":
        """The way back."""
        return ForkedEnvironment()


class Workers:
    """Those of one job, for which Beam asks when it runs in a :class:`ForkedEnvironment`.

    Leaving the context ends them all.
    """

    def __init__(self, beam_options: Sequence[str], log: Path, on_death: Callable[[], None]):
        """Be ready to start workers.

        Args:
            beam_options: hold in the workers too: FnApiRunner itself tells them none.
            log: gets what they say on standard error.
            on_death: called, in another thread, when one ends that nobody has ended.
        """
        options = PipelineOptions([_SAY_LITTLE, *beam_options])
        self._options = json.dumps(options.get_all_options(drop_default=True))
        self._log, self._on_death = log, on_death
        self._processes: list[BaseProcess] = []
        self._ending = False

    def __enter__(self) -> Self:
        WorkerHandler.register_environment(_URN, bytes)(functools.partial(_Handler, self))
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, name: str, control_address: str) -> None:
        """Start one more, and watch over it: FnApiRunner would wait for a dead one for ever.

        Args:
            name: what Beam calls it.
            control_address: where it asks for work.
        """
        control = endpoints_pb2.ApiServiceDescriptor(url=control_address)
        environment = {
            "WORKER_ID": name,
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": self._options,
        }
        process = forked.start(_work, environment, self._log)
        self._processes.append(process)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def end(self) -> None:
        """Kill them all: whatever they did is told, or will not be trusted."""
        self._ending = True
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.join()

    def _watch(self, process: BaseProcess) -> None:
        wait([process.sentinel])
        if not self._ending:
            self._on_death()


class _Handler(GrpcWorkerHandler):
    """Beam's hold on one worker."""

    def __init__(self, workers: Workers, payload: bytes, *surroundings: Any):
        super().__init__(*surroundings)
        self._workers = workers

    def start_worker(self) -> None:
        self._workers.start(self.worker_id, self.control_address)

    def stop_worker(self) -> None:
        self._workers.end()


def _work() -> None:
    sdk_worker_main.main([])
