"""Fingerprints of pictures: a hash of the pixels, and one of the looks.

Pictures that look alike have perceptual hashes that differ in few bits.

The hash is pHash with 256 bits: one for each of the 16 × 16 lowest frequencies of a small grey
picture. Size, encoding, brightness and contrast hardly change it; cropping, rotation and mirroring
do.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from blake3 import blake3
from PIL import Image

from kpdata import __version__
from kpdata.core.sample import FloatArray, Pixels
from kpdata.images import codec
from kpdata.images.headers import MAX_PIXELS, Header, probe

Hashes = npt.NDArray[np.uint8]  # (N, 32): 256 bits each
Indices = npt.NDArray[np.intp]

HASH_BYTES = 32
BITS = 8 * HASH_BYTES
DEFAULT_DISTANCE = 56
"""Bits by which near duplicates may differ; docs/audit.md has the measurements."""

MAX_DISTANCE = 96
"""Beyond this, unrelated pictures match too: they differ in about 128 bits."""

_FREQUENCIES = 16
_SIDE = 4 * _FREQUENCIES
"""Pixels of the small grey picture."""

_DETAIL = 192
"""The least pixels of the shorter side, where a JPEG is shrunk while it is decoded."""

_ROWS, _COLUMNS = 2048, 4096
"""Size of the blocks that are compared at once."""


def method() -> dict[str, str]:
    """The hash's name, and the versions of the packages that its bits depend on."""
    packages = ("numpy", "opencv-python-headless", "pillow")
    versions = {"kpdata": __version__} | {name: version(name) for name in packages}
    return {"name": f"pHash, {BITS} bits"} | versions


class Fingerprint(NamedTuple):
    """What an image is recognised by.

    Attributes:
        looks: (32,) uint8, the perceptual hash.
        pixels: 64 bits of a hash of every pixel. Files with the same pixels have the same, whatever
            their format and metadata; of two formats, ``looks`` may differ in some bits.
    """

    looks: Hashes
    pixels: int


def fingerprint(
    data: bytes, max_pixels: int = MAX_PIXELS, box_xyxy: FloatArray | None = None
) -> Fingerprint:
    """Hash an encoded image of any readable format, after it is turned upright.

    Args:
        data: the image's bytes.
        max_pixels: a larger image is refused.
        box_xyxy: (4,) the part whose looks to hash, in upright pixels; the whole image if the box
            is empty.

    Raises:
        ImageError: the image is too large, cut short, or does not decode.
    """
    header = probe(data, max_pixels)
    whole = codec.decode(data) if header.storable else codec.decode_upright(data, header)
    reduce = _reduction(header)
    shown = codec.decode(data, reduce) if reduce > 1 else whole
    if box_xyxy is not None:
        shown = _part(shown, box_xyxy / reduce)
    hashed = blake3(str(whole.shape).encode()).update(np.ascontiguousarray(whole).data)
    return Fingerprint(_signs_of_frequencies(shown), int.from_bytes(hashed.digest(length=8)))


def _signs_of_frequencies(pixels: Pixels) -> Hashes:
    """(H, W, 3) → (32,): one bit for each of the lowest frequencies, 1 above their median.

    The bits are those of ``imagehash.phash(image, 16)``. Its cosine transform is not normalised, so
    its first row and column are √2 times OpenCV's.
    """
    small = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    frequencies = cv2.dct(np.asarray(small, np.float64))[:_FREQUENCIES, :_FREQUENCIES]
    frequencies[0] *= np.sqrt(2)
    frequencies[:, 0] *= np.sqrt(2)
    return np.packbits(frequencies > np.median(frequencies))


def _part(pixels: Pixels, box_xyxy: FloatArray) -> Pixels:
    height, width = pixels.shape[:2]
    within = np.clip(box_xyxy, 0, (width, height, width, height))
    left, top = np.ceil(within[:2]).astype(int)
    right, bottom = np.floor(within[2:]).astype(int)
    return pixels[top:bottom, left:right] if left < right and top < bottom else pixels


def _reduction(header: Header) -> int:
    if header.format != "jpeg" or not header.storable:
        return 1
    shorter = min(header.width, header.height)
    return next((reduce for reduce in (8, 4, 2) if shorter >= reduce * _DETAIL), 1)


def near_pairs(
    first: Hashes,
    second: Hashes | None,
    distance: int,
    on_rows: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[Indices, Indices]]:
    """Find all pairs of hashes that differ in at most ``distance`` bits.

    Every pair is compared, so none is missed. It is done in blocks, which bounds the memory.

    Args:
        first: (N, 32).
        second: (M, 32); None compares ``first`` with itself, every pair once.
        distance: bits, 0 or more.
        on_rows: called with the number of rows of ``first`` that were just finished.

    Yields:
        For each block that has such pairs: their rows in ``first``, and those in ``second``.
    """
    others = first if second is None else second
    for top in range(0, len(first), _ROWS):
        rows = _signs(first[top : top + _ROWS])
        for left in range(top if second is None else 0, len(others), _COLUMNS):
            agreement = rows @ _signs(others[left : left + _COLUMNS]).T  # BITS − 2 · distance
            i, j = np.nonzero(agreement >= BITS - 2 * distance)
            i, j = i + top, j + left
            if second is None:
                i, j = i[i < j], j[i < j]
            if len(i):
                yield i, j
        on_rows(len(rows))


def _signs(hashes: Hashes) -> npt.NDArray[np.float32]:
    """(N, 256) of ±1: the product of two rows is BITS − 2 · distance, exactly."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def bit_distances(first: Hashes, second: Hashes) -> npt.NDArray[np.intp]:
    """(N,) how many bits differ in each row of two (N, 32) arrays."""
    return np.unpackbits(first ^ second, axis=1).sum(axis=1, dtype=np.intp)
