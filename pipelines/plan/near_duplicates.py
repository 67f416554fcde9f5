"""Images that look alike join one group, so that no split tears them apart."""

from array import array
from collections.abc import Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import ImageError
from kpdata.core.groups import Groups
from kpdata.core.progress import Progress
from kpdata.core.sample import ImageRef
from kpdata.images.perceptual import HASH_BYTES, Fingerprint, Hashes, fingerprint, near_pairs
from kpdata.pipelines.plan.references import References
from kpdata.pipelines.request import Request
from kpdata.shards.fetch import fetch
from kpdata.storage.parallel import in_parallel

Column = npt.NDArray[np.uint64]  # (N,)


def join_near_duplicates(references: References, request: Request, progress: Progress) -> int:
    """Join the groups of images with equal pixels, or that look alike.

    How many bits of their hashes may differ is the request's ``group_near_duplicates``.

    Every image is read and decoded. One that cannot be is left alone: the writer meets it again,
    and quarantines it there. An image takes some 110 bytes of memory.

    Returns:
        How many images were joined to one that was not of their group.
    """
    distance = request.group_near_duplicates
    if distance is None:
        return 0
    progress.begin("hashing", references.samples)
    numbers, hashes, pixels = _hash(references, request, progress)
    parents: dict[int, int] = {}
    alike = Groups[int](parents)
    for first, second in chain(_equal(pixels), _alike(hashes, distance, progress)):
        alike.join(numbers[first], numbers[second])
    members = {number: alike.find(number) for number in parents}
    names = dict.fromkeys(members.values(), "")
    joined = 0
    for number, (group, _) in enumerate(references.images()):
        if number in names:
            names[number] = group
        elif number in members:
            joined += references.join(names[members[number]], group)
    return joined


def _hash(
    references: References, request: Request, progress: Progress
) -> tuple["array[int]", Hashes, Column]:
    """The numbers, among the references' images, of those that decode, and their fingerprints.

    Returns:
        (N,) numbers, (N, 32) perceptual hashes, (N,) hashes of the pixels.
    """
    numbers, bits, pixels = array("q"), bytearray(), array("Q")

    def hash_one(item: tuple[str, ImageRef]) -> Fingerprint | None:
        try:
            return fingerprint(fetch(item[1], request.max_bytes), request.max_pixels)
        except ImageError:
            return None

    every = (in_parallel if request.on_store else map)(hash_one, references.images())
    for number, found in enumerate(every):
        if found:
            bits += found.looks.tobytes()
            pixels.append(found.pixels)
            numbers.append(number)
        progress.advance()
    hashes = np.frombuffer(bits, np.uint8).reshape(-1, HASH_BYTES)
    return numbers, hashes, np.frombuffer(pixels, np.uint64)


def _equal(pixels: Column) -> Iterator[tuple[int, int]]:
    """Pairs of rows of ``pixels`` (N,) that connect all that are equal."""
    _, firsts, copies = np.unique(pixels, return_index=True, return_inverse=True)
    yield from zip(firsts[copies].tolist(), range(len(pixels)), strict=True)


def _alike(hashes: Hashes, distance: int, progress: Progress) -> Iterator[tuple[int, int]]:
    """Pairs of rows of ``hashes`` (N, 32) that connect all within ``distance`` bits."""
    distinct, firsts, copies = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    yield from zip(firsts[copies.reshape(-1)].tolist(), range(len(hashes)), strict=True)
    progress.begin("comparing", len(distinct))
    for i, j in near_pairs(distinct, None, distance, progress.advance):
        yield from zip(firsts[i].tolist(), firsts[j].tolist(), strict=True)
