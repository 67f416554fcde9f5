"""How many shards each split gets; no worker has a say: the number is part of the bytes."""

import math
from typing import NamedTuple

from kpdata.pipelines.request import Request

MIN_SAMPLES_PER_SHARD = 128
MAX_SPREAD = 16
"""Small splits are spread over up to this many shards, so that workers can share them."""


class SplitSize(NamedTuple):
    """A split to cut: its samples, and roughly how many bytes its records will have."""

    samples: int
    bytes: float


def shards_per_split(request: Request, sizes: dict[str, SplitSize]) -> dict[str, int]:
    """Split → its shards: at least one, and no more than it has samples."""
    if request.shards is None:
        wanted = {name: _by_size(size, request.shard_size) for name, size in sizes.items()}
    else:
        wanted = _share_out(request.shards, {name: size.samples for name, size in sizes.items()})
    return {name: min(wanted[name], size.samples) for name, size in sizes.items()}


def _by_size(size: SplitSize, shard_size: int) -> int:
    spread = min(MAX_SPREAD, size.samples // MIN_SAMPLES_PER_SHARD)
    return max(1, math.ceil(size.bytes / shard_size), spread)


def _share_out(count: int, samples: dict[str, int]) -> dict[str, int]:
    """One shard each, then every further one to the split with the most samples a shard."""
    shards = dict.fromkeys(samples, 1)
    for _ in range(count - len(samples)):
        shards[max(samples, key=lambda name: samples[name] / shards[name])] += 1
    return shards
