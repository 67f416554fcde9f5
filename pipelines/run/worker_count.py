"""How many worker processes a conversion is worth."""

import math
import os
from collections.abc import Sequence

from kpdata.pipelines.plan.make import ShardPlan
from kpdata.pipelines.request import Request

_SECONDS_WORTH_WORKERS = 1.0
"""What workers must save: they take some 0.3 s to start."""

_SECONDS_PER_IMAGE, _SECONDS_PER_PICTURE = 0.0003, 0.002
"""Rough costs of storing an image as it is and of drawing a picture, on one core."""

_SECONDS_PER_OBJECT = 0.003
"""What a request to a store costs on top, where 32 are under way at once."""


def usable_cores() -> int:
    """Cores that this process may run on: not all of the machine's, where it is pinned to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(request: Request, pending: Sequence[ShardPlan]) -> int:
    """Processes to write these shards with; 0 where they would take longer than this one alone."""
    workers = min(request.workers or usable_cores(), len(pending))
    samples = sum(shard.samples for shard in pending)
    return workers if samples >= samples_that_pay(request, workers) else 0


def samples_that_pay(request: Request, workers: int) -> float:
    """The number of samples from which that many processes save more time than they cost."""
    if workers == 1:
        return math.inf
    each = _SECONDS_PER_PICTURE * (1 + request.augment) if request.renders else _SECONDS_PER_IMAGE
    each += _SECONDS_PER_OBJECT if request.on_store else 0
    return _SECONDS_WORTH_WORKERS / (each * (1 - 1 / workers))
