"""Decode crops from records, once into memory if they fit, else each time they are needed."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import psutil

from kpdata.core import transform
from kpdata.core.errors import located
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import Pixels, Sample
from kpdata.core.transform import Affine
from kpdata.images import codec
from kpdata.images.resample import shrink_for, warp, with_spare_channel
from kpdata.shards.dataset import name_of, read_record
from kpdata.train.data.instances import InstanceCrop, RecordCrop

Indices = npt.NDArray[np.integer[Any]]

_MEMORY_SHARE = 1 / 3
"""Of what is free; while they are put in one array, they are there twice."""

_AT_A_TIME, _BYTES_AT_A_TIME = 256, 256 << 20
_LARGE = 16_000_000
_one_large = Lock()
"""Images of more pixels are decoded one by one, not one by each thread."""


class CropPixels(Protocol):
    """Pixels of crops by index, from memory or decoded on demand."""

    def __getitem__(self, indices: Indices) -> Pixels:
        """(B, P, P, 3) uint8 RGB, with the border that the crops were asked for."""


def decode_crops(
    pairs: Iterable[tuple[InstanceCrop, Sample]],
    side: int,
    progress: Progress = SILENT,
    memory: int | None = None,
    border: int = 0,
) -> tuple[list[InstanceCrop], CropPixels]:
    """The crops and their pixels, which are kept if they fit in memory.

    Args:
        pairs: each crop with its record.
        side: P, with the ``border`` on both sides of the crop.
        progress: hears how many crops have been read.
        memory: bytes of pixels to keep; a third of what is free unless given. Beyond it, they are
            decoded each time they are asked for.
        border: pixels that are kept around each crop.
    """
    inset = np.array([[1.0, 0.0, border], [0.0, 1.0, border]])

    def bordered(crop: InstanceCrop) -> RecordCrop:
        return crop.of._replace(affine=transform.compose(inset, crop.of.affine))

    budget = psutil.virtual_memory().available * _MEMORY_SHARE if memory is None else memory
    kept: list[Pixels] | None = []
    crops: list[InstanceCrop] = []
    with ThreadPoolExecutor() as pool:
        for some in _in_batches(pairs):
            crops += [crop for crop, _ in some]
            if kept is not None and len(crops) * side * side * 3 <= budget:
                kept += pool.map(lambda pair: _decoded(pair[1], bordered(pair[0]), side), some)
            else:
                kept = None
            progress.reach(len(crops))
    return crops, np.stack(kept) if kept else _OnDisk(list(map(bordered, crops)), side)


def _in_batches(
    pairs: Iterable[tuple[InstanceCrop, Sample]],
) -> Iterator[list[tuple[InstanceCrop, Sample]]]:
    """Batches that keep all threads busy and fit into the memory that is free."""
    some: list[tuple[InstanceCrop, Sample]] = []
    size = 0
    for pair in pairs:
        some.append(pair)
        size += len(codec.stored_bytes(pair[1].image))
        if len(some) == _AT_A_TIME or size >= _BYTES_AT_A_TIME:
            yield some
            some, size = [], 0
    if some:
        yield some


def _decoded(sample: Sample, crop: RecordCrop, side: int) -> Pixels:
    with located(name_of(crop.uri)):
        return decode_crop(sample, crop.affine, side)


def decode_crop(sample: Sample, affine: Affine, side: int) -> Pixels:
    """(side, side, 3) of a record through ``affine``, which maps its pixels to the crop's."""
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
    """Crops that do not fit in memory. They are decoded on demand."""

    def __init__(self, crops: Sequence[RecordCrop], side: int):
        self._crops, self._side = crops, side

    def __getitem__(self, indices: Indices) -> Pixels:
        some = [self._crops[i] for i in indices]
        return np.stack([_decoded(read_record(crop.uri), crop, self._side) for crop in some])
