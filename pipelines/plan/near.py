"""Images that look alike join one group, so that no split tears them apart."""

from array import array
from collections.abc import Iterator

import numpy as np

from kpdata.core.errors import ImageError
from kpdata.core.groups import Groups
from kpdata.core.progress import Progress
from kpdata.core.sample import ImageRef
from kpdata.images.perceptual import HASH_BYTES, Hashes, near_pairs, perceptual_hash
from kpdata.pipelines.job import Job
from kpdata.pipelines.plan.table import Spool
from kpdata.shards.fetch import fetch
from kpdata.storage.parallel import in_parallel


def join_near_duplicates(spool: Spool, job: Job, distance: int, progress: Progress) -> int:
    """Join the groups of images whose perceptual hashes differ in ``distance`` bits or fewer.

    Every image is read and decoded. One that cannot be is left alone: the writer meets it again,
    and quarantines it there. An image takes some 100 bytes of memory.

    Returns:
        How many images were joined to one that was not of their group.
    """
    progress.begin("hashing", spool.samples)
    numbers, hashes = _hash(spool, job, progress)
    parents: dict[int, int] = {}
    alike = Groups[int](parents)
    for first, second in _alike(hashes, distance, progress):
        alike.join(numbers[first], numbers[second])
    members = {number: alike.find(number) for number in parents}
    names = dict.fromkeys(members.values(), "")
    joined = 0
    for number, (group, _) in enumerate(spool.images()):
        if number in names:
            names[number] = group
        elif number in members:
            joined += spool.join(names[members[number]], group)
    return joined


def _hash(spool: Spool, job: Job, progress: Progress) -> tuple["array[int]", Hashes]:
    """The numbers, among the spool's images, of those that decode, and their hashes (N, 32)."""
    numbers, bits = array("q"), bytearray()

    def hash_one(item: tuple[str, ImageRef]) -> bytes | None:
        try:
            return perceptual_hash(fetch(item[1], job.max_bytes), job.max_pixels).tobytes()
        except ImageError:
            return None

    hashes = (in_parallel if job.on_store else map)(hash_one, spool.images())
    for number, found in enumerate(hashes):
        if found:
            bits += found
            numbers.append(number)
        progress.advance()
    return numbers, np.frombuffer(bits, np.uint8).reshape(-1, HASH_BYTES)


def _alike(hashes: Hashes, distance: int, progress: Progress) -> Iterator[tuple[int, int]]:
    """Pairs of rows that link all that lie within ``distance`` of each other."""
    distinct, firsts, copies = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    yield from zip(firsts[copies.reshape(-1)].tolist(), range(len(hashes)), strict=True)
    progress.begin("comparing", len(distinct))
    for i, j in near_pairs(distinct, None, distance, progress.advance):
        yield from zip(firsts[i].tolist(), firsts[j].tolist(), strict=True)
