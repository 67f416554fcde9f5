"""How many worker processes a conversion is worth, and when they are prepared."""

import contextlib
import math
from collections.abc import Callable, Sequence

from kpdata.pipelines.plan.make import ShardPlan
from kpdata.pipelines.request import Request
from kpdata.pipelines.run.nursery import Nursery
from kpdata.pipelines.run.runners import Execution

_SECONDS_WORTH_WORKERS = 2.0
"""What workers must save, since they take half of it to start and to end."""

_SECONDS_PER_IMAGE, _SECONDS_PER_PICTURE = 0.0003, 0.002
"""Rough costs of storing an image as it is and of drawing a picture, on one core."""

_SECONDS_PER_OBJECT = 0.003
"""What a request to a store costs on top, where 32 are under way at once."""


def warming_up(
    nursery: Nursery, request: Request, planned: Callable[[int], None]
) -> Callable[[int], None]:
    """``planned``, but it has workers prepared when there are samples enough for them to pay.

    Args:
        nursery: where workers come from.
        request: what was asked for.
        planned: called with the number of references read since the last call.
    """
    total, enough = 0, _samples_that_pay(request, request.workers)

    def heard(samples: int) -> None:
        nonlocal total
        planned(samples)
        before, total = total, total + samples
        if before < enough <= total:
            with contextlib.suppress(OSError):  # starting workers will tell
                nursery.warm_up()

    return heard


def execution(request: Request, pending: Sequence[ShardPlan], nursery: Nursery) -> Execution:
    """Where to write these shards: with workers beside this process only where they pay."""
    workers = min(request.workers, len(pending))
    pay = sum(shard.samples for shard in pending) >= _samples_that_pay(request, workers)
    return Execution(request.runner, workers if pay else 0, nursery, request.beam_options)


def _samples_that_pay(request: Request, workers: int) -> float:
    """From how many samples on that many processes beside this one are worth their start."""
    if workers == 1:
        return math.inf
    job = request.job
    each = _SECONDS_PER_PICTURE * (1 + job.augment) if job.renders else _SECONDS_PER_IMAGE
    each += _SECONDS_PER_OBJECT if job.on_store else 0
    return _SECONDS_WORTH_WORKERS / (each * (1 - 1 / workers))
