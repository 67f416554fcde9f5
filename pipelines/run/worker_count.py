"""How many worker processes to use, so that they save more time than their start costs."""

import math
import os
from collections.abc import Sequence

import psutil

from kpdata.pipelines.plan.make import ShardPlan
from kpdata.pipelines.request import Request

_SECONDS_WORTH_WORKERS = 1.0
"""The least time that workers must save; they take about 0.3 s to start."""

_SECONDS_PER_IMAGE, _SECONDS_PER_PICTURE = 0.0003, 0.002
"""Rough costs, on one core, of storing an image as it is and of rendering a picture."""

_SECONDS_PER_OBJECT = 0.003
"""Additional cost of reading an image from a store, with 32 requests at once."""


_BYTES_PER_WORKER = 200 << 20
"""Memory of a process with its libraries and an image of some megapixels."""


def usable_cores() -> int:
    """Number of cores that this process may use: fewer than the machine has, if it is pinned."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(request: Request, pending: Sequence[ShardPlan]) -> int:
    """Worker processes for these shards; 0 where this process alone is about as fast."""
    affordable = max(1, psutil.virtual_memory().available // _BYTES_PER_WORKER)
    workers = min(request.workers or usable_cores(), len(pending), affordable)
    samples = sum(shard.samples for shard in pending)
    return workers if samples >= samples_that_pay(request, workers) else 0


def samples_that_pay(request: Request, workers: int) -> float:
    """From how many samples on that many processes save time; infinite for one process."""
    if workers == 1:
        return math.inf
    each = _SECONDS_PER_PICTURE * (1 + request.augment) if request.renders else _SECONDS_PER_IMAGE
    each += _SECONDS_PER_OBJECT if request.on_store else 0
    return _SECONDS_WORTH_WORKERS / (each * (1 - 1 / workers))
