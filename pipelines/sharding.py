"""How many shards each split gets. The workers have no say: the number is part of the bytes."""

import math
from typing import NamedTuple

import msgspec

MIN_SAMPLES_PER_SHARD = 128
MAX_SPREAD = 16
"""Small splits are spread over up to this many shards, so that workers can share them."""


class SplitSize(NamedTuple):
    """A split to cut: its samples, and roughly how many bytes its records will have."""

    samples: int
    bytes: float


class Sharding(msgspec.Struct, frozen=True):
    """``count`` shards in all, or as many as ``bytes_per_shard`` asks for."""

    bytes_per_shard: int = 128_000_000
    count: int | None = None

    def shards_per_split(self, sizes: dict[str, SplitSize]) -> dict[str, int]:
        """Split → its shards: at least one, and no more than it has samples."""
        if self.count is None:
            wanted = {name: self._by_size(size) for name, size in sizes.items()}
        else:
            wanted = _share_out(self.count, {name: size.samples for name, size in sizes.items()})
        return {name: min(wanted[name], size.samples) for name, size in sizes.items()}

    def _by_size(self, size: SplitSize) -> int:
        spread = min(MAX_SPREAD, size.samples // MIN_SAMPLES_PER_SHARD)
        return max(1, math.ceil(size.bytes / self.bytes_per_shard), spread)


def _share_out(count: int, samples: dict[str, int]) -> dict[str, int]:
    """One shard each, then every further one to the split with the most samples a shard."""
    shards = dict.fromkeys(samples, 1)
    for _ in range(count - len(samples)):
        shards[max(samples, key=lambda name: samples[name] / shards[name])] += 1
    return shards
