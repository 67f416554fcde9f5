"""The embedded runner's worker processes: how Beam starts, hears the death of and ends them."""

import functools
import json
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from kpdata.core.quiet import without_warnings
from kpdata.pipelines.run.nursery import Nursery

with without_warnings():
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import endpoints_pb2
    from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
        GrpcWorkerHandler,
        WorkerHandler,
    )
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

    Args:
        nursery: where they come from.
        beam_options: hold in the workers too: FnApiRunner itself tells them none.
        on_death: called, in another thread, when one ends before its time.
    """

    def __init__(self, nursery: Nursery, beam_options: Sequence[str], on_death: Callable[[], None]):
        options = PipelineOptions([_SAY_LITTLE, *beam_options])
        self._options = json.dumps(options.get_all_options(drop_default=True))
        self._nursery, self._on_death = nursery, on_death
        self._watching: list[threading.Thread] = []
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
        pipe = self._nursery.fork(environment)
        thread = threading.Thread(target=self._watch, args=(pipe,), daemon=True)
        thread.start()
        self._watching.append(thread)

    def expect_end(self) -> None:
        """From now on they may end by themselves."""
        self._ending = True

    def end(self) -> None:
        """Kill them all: whatever they did is told, or will not be trusted."""
        self.expect_end()
        self._nursery.end()
        for thread in self._watching:
            thread.join()

    def _watch(self, pipe: int) -> None:
        os.read(pipe, 1)
        os.close(pipe)
        if not self._ending:
            self._on_death()


class _Handler(GrpcWorkerHandler):
    """Beam's hold on one worker."""

    def __init__(self, workers: Workers, payload: bytes, *surroundings: Any):
        super().__init__(*surroundings)
        self._workers = workers

    def start_worker(self) -> None:
        self._workers.start(self.worker_id, self.control_address)

    def close(self) -> None:
        self._workers.expect_end()  # it begins to end as soon as its streams are closed
        super().close()

    def stop_worker(self) -> None:
        self._workers.end()  # all of them: Beam stops one only to stop the rest
