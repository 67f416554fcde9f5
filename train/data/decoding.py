"""Squares of records → pixels: decoded once and kept in memory, or whenever they are asked for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import psutil

from kpdata.core import transform
from kpdata.core.errors import located
from kpdata.core.sample import Pixels, Sample
from kpdata.core.transform import Affine
from kpdata.images import codec
from kpdata.images.resample import shrink_for, warp, with_spare_channel
from kpdata.shards.dataset import name_of, read_record
from kpdata.train.data.squares import Location, Square

Indices = npt.NDArray[np.integer[Any]]

_MEMORY_SHARE = 1 / 3
"""Of what is free; while they are put in one array, they are there twice."""

_AT_A_TIME, _BYTES_AT_A_TIME = 256, 256 << 20
_LARGE = 16_000_000
_one_large = Lock()
"""Pictures of more pixels are decoded one by one, not one by each thread."""


class ImageStore(Protocol):
    """Pictures by position, whether they lie in memory or are read when asked for."""

    def __getitem__(self, indices: Indices) -> Pixels:
        """(B, P, P, 3) uint8 RGB."""


def decode_all(
    pairs: Iterable[tuple[Square, Sample]],
    side: int,
    on_read: Callable[[int], None] | None = None,
    memory: int | None = None,
) -> tuple[list[Square], ImageStore]:
    """The squares, and their pictures, kept where they fit in memory.

    Args:
        pairs: each square with its record.
        side: P.
        on_read: is told how many pictures have been read.
        memory: bytes of pictures to keep; a third of what is free unless given. Beyond it, they are
            decoded each time they are asked for.
    """
    budget = psutil.virtual_memory().available * _MEMORY_SHARE if memory is None else memory
    kept: list[Pixels] | None = []
    squares: list[Square] = []
    with ThreadPoolExecutor() as pool:
        for some in _in_batches(pairs):
            squares += [square for square, _ in some]
            if kept is not None and len(squares) * side * side * 3 <= budget:
                kept += pool.map(lambda pair: _placed(pair[1], pair[0].place, side), some)
            else:
                kept = None
            if on_read:
                on_read(len(squares))
    places = [square.place for square in squares]
    return squares, np.stack(kept) if kept else _OnDisk(places, side)


def _in_batches(pairs: Iterable[tuple[Square, Sample]]) -> Iterator[list[tuple[Square, Sample]]]:
    """As many at a time as threads can be busy with, but no more bytes than memory has to spare."""
    some: list[tuple[Square, Sample]] = []
    size = 0
    for pair in pairs:
        some.append(pair)
        size += len(codec.stored_bytes(pair[1].image))
        if len(some) == _AT_A_TIME or size >= _BYTES_AT_A_TIME:
            yield some
            some, size = [], 0
    if some:
        yield some


def _placed(sample: Sample, place: Location, side: int) -> Pixels:
    with located(name_of(place.uri)):
        return picture(sample, place.affine, side)


def picture(sample: Sample, affine: Affine, side: int) -> Pixels:
    """(side, side, 3) of a record through ``affine``, which maps its pixels to the picture's."""
    shrink = shrink_for(affine)
    with located(sample.key), _room_for(sample):
        pixels = codec.decode_stored(sample.image, shrink)
    if (
        shrink == 1
        and pixels.shape == (side, side, 3)
        and np.array_equal(affine, transform.IDENTITY)
    ):
        return pixels
    return warp(with_spare_channel(pixels), affine, side, side, shrink=shrink)


def _room_for(sample: Sample) -> AbstractContextManager[object]:
    large = cast(int, sample.image.width) * cast(int, sample.image.height) > _LARGE
    return _one_large if large else nullcontext()


class _OnDisk:
    """Pictures that do not fit in memory, decoded when asked for."""

    def __init__(self, places: Sequence[Location], side: int):
        self._places, self._side = places, side

    def __getitem__(self, indices: Indices) -> Pixels:
        places = [self._places[i] for i in indices]
        return np.stack([_placed(read_record(p.uri), p, self._side) for p in places])
