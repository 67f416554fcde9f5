"""A square picture for each instance: what the trainer learns from and the evaluation looks at."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from threading import Lock
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import psutil

from kpdata import geometry, images
from kpdata.errors import DatasetError, located
from kpdata.formats.source import LARGEST
from kpdata.framing import Framing, why_not_shown
from kpdata.geometry import Affine, apply_affine
from kpdata.schema import WHOLE_IMAGE, FloatArray, Instance, Sample
from kpdata.shards import Dataset, name_of, read_record
from kpdata.skeletons import Skeleton

Indices = npt.NDArray[np.integer[Any]]

_MEMORY_SHARE = 1 / 3
"""Of what is free; while they are put in one array, they are there twice."""

_AT_A_TIME, _BYTES_AT_A_TIME = 256, 256 << 20
_LARGE = 16_000_000
_one_large = Lock()
"""Pictures of more pixels are decoded one by one, not one by each thread."""


class ImageStore(Protocol):
    """Pictures by position, whether they lie in memory or are read when asked for."""

    def __getitem__(self, indices: Indices) -> images.Pixels:
        """(B, P, P, 3) uint8 RGB."""


@dataclass(frozen=True, eq=False)
class Views:
    """N square pictures of P × P pixels: all that a model needs to see.

    Attributes:
        side: P.
        to_source: (N, 2, 3) picture pixels → source pixels.
        images: an array of indices → (B, P, P, 3) uint8.
    """

    side: int
    to_source: Affine
    images: ImageStore

    def __len__(self) -> int:
        return len(self.to_source)


@dataclass(frozen=True, eq=False)
class Pictures(Views):
    """Views that each show one labelled instance of a skeleton with K keypoints.

    Attributes:
        skeleton: names the keypoints.
        crop: how the squares were chosen, in words.
        keys: the source image of each.
        instance: (N,) position of the instance in its source image.
        keypoints: (N, K, 3) float32 in picture pixels; outside of the picture too.
        truth: (N, K, 3) the same in source pixels.
        source_size: (N, 2) width and height of the source image.
        area, head_size: (N,), and ``bbox_xyxy`` (N, 4), in source pixels; NaN where there is none.
        is_copy: (N,) of an augmented copy; in a mirrored one, left and right have changed places.
        counts: what was left out, by name.
    """

    skeleton: Skeleton
    crop: str
    keys: tuple[str, ...]
    instance: npt.NDArray[np.int64]
    keypoints: npt.NDArray[np.float32]
    truth: FloatArray
    source_size: FloatArray
    area: FloatArray
    bbox_xyxy: FloatArray
    head_size: FloatArray
    is_copy: npt.NDArray[np.bool_]
    counts: dict[str, int]

    def take(self, indices: Indices) -> "Pictures":
        """Those at ``indices``, read into memory."""
        arrays = {
            field.name: getattr(self, field.name)[indices]
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        arrays["images"] = self.images[indices]
        return replace(self, **arrays, keys=tuple(self.keys[i] for i in indices))

    @property
    def shared_squares(self) -> int:
        """How many show a square that stands for another instance of their image, too."""
        squares = [(k, a.tobytes()) for k, a in zip(self.keys, self.to_source, strict=True)]
        shown = Counter(square for square, _ in set(zip(squares, self.instance, strict=True)))
        return sum(shown[square] > 1 for square in squares)

    def warning(self, split: str) -> str | None:
        """What to say of pictures that stand for several instances; None without any."""
        if not (count := self.shared_squares):
            return None
        return (
            f"{count:,} of {len(self):,} pictures of {split} are the same as another instance's, "
            "with other keypoints, and a model has one answer to one picture. Cut a square around "
            "each instance: kpdata train --set crop_from=bbox, or, where the shards are crops, "
            "kpdata convert --crop-from bbox"
        )


class _Place(NamedTuple):
    """One picture to be: where its record is, and what of it is seen."""

    uri: str
    affine: Affine
    """Record pixels → picture pixels."""


class _Row(NamedTuple):
    place: _Place
    key: str
    number: int
    instance: Instance
    to_source: Affine
    source_size: tuple[int, int]
    is_copy: bool


def load(
    dataset: Dataset,
    split: str,
    framing: Framing,
    side: int,
    copies: bool = False,
    on_read: Callable[[int], None] | None = None,
    memory: int | None = None,
) -> Pictures:
    """The pictures of one split, decoded once and kept where they fit in memory.

    Args:
        dataset: a shard folder.
        split: its split.
        framing: what is cut out of whole images.
        side: P.
        copies: take augmented copies too.
        on_read: is told how many pictures have been read.
        memory: bytes of pictures to keep; a third of what is free unless given. Beyond it, they are
            decoded each time they are asked for.

    Raises:
        DatasetError: no such split, a damaged record, or nothing to look at.
    """
    counts: Counter[str] = Counter()
    budget = psutil.virtual_memory().available * _MEMORY_SHARE if memory is None else memory
    kept: list[images.Pixels] | None = []
    rows: list[_Row] = []
    cut: set[bool] = set()
    with ThreadPoolExecutor() as pool:
        for some in _in_batches(_rows(dataset, split, framing, side, copies, counts)):
            rows += [row for row, _ in some]
            cut |= {_is_whole(sample) for _, sample in some}
            if kept is not None and len(rows) * side * side * 3 <= budget:
                kept += pool.map(lambda pair: _placed(pair[1], pair[0].place, side), some)
            else:
                kept = None
            if on_read:
                on_read(len(rows))
    if not rows:
        left = "; ".join(f"{count} {what}" for what, count in counts.items())
        raise DatasetError(f"{dataset.folder}: split {split} shows no instance ({left or 'empty'})")
    places = [row.place for row in rows]
    store = _OnDisk(places, side) if kept is None else np.stack(kept)
    return _pictures(dataset, rows, side, _describe(framing, cut), store, counts)


def _in_batches(pairs: Iterable[tuple[_Row, Sample]]) -> Iterator[list[tuple[_Row, Sample]]]:
    """As many at a time as threads can be busy with, but no more bytes than memory has to spare."""
    some: list[tuple[_Row, Sample]] = []
    size = 0
    for pair in pairs:
        some.append(pair)
        size += len(images.stored_bytes(pair[1].image))
        if len(some) == _AT_A_TIME or size >= _BYTES_AT_A_TIME:
            yield some
            some, size = [], 0
    if some:
        yield some


def _rows(
    dataset: Dataset, split: str, framing: Framing, side: int, copies: bool, counts: Counter[str]
) -> Iterator[tuple[_Row, Sample]]:
    for shard in dataset[split].shards:
        for offset, sample in dataset.read_shard(shard):
            if sample.view and sample.view.copy and not copies:
                continue
            uri = dataset.record_uri(shard, offset)
            for number, instance in enumerate(sample.instances):
                if reason := why_not_shown(instance):
                    counts[f"instances not shown: {reason}"] += 1
                else:
                    with located(name_of(uri)):
                        yield _row(sample, instance, number, uri, framing, side), sample


def _row(
    sample: Sample, instance: Instance, number: int, uri: str, framing: Framing, side: int
) -> _Row:
    view = sample.view
    assert view is not None, "every record has one"
    width, height = cast(int, sample.image.width), cast(int, sample.image.height)
    if _is_whole(sample):
        affine = _square(sample.key, instance, framing, (width, height), side)
    else:
        number = view.instance
        affine = geometry.resize_affine(width, height, side)
    in_source = apply_affine(geometry.invert(view.transform), instance.xy)
    if not (np.abs(np.concatenate([instance.xy, in_source])) <= LARGEST).all():
        raise DatasetError(f"instance {number}: a keypoint beyond {LARGEST:g} pixels")
    to_source = geometry.invert(geometry.compose(affine, view.transform))
    source_size = view.source_width, view.source_height
    return _Row(
        _Place(uri, affine), sample.key, number, instance, to_source, source_size, view.copy > 0
    )


def _square(
    key: str, instance: Instance, framing: Framing, size: tuple[int, int], side: int
) -> Affine:
    if reason := framing.why_not(instance):
        raise DatasetError(
            f"{key}: an instance has {reason} to crop around: choose --crop-from image (the whole "
            "image, squared) or keypoints (which leaks the labels into the crop); kpdata train "
            "takes it as --set crop_from=image"
        )
    return framing.square(instance, *size, side)


def _is_whole(sample: Sample) -> bool:
    return sample.view is None or sample.view.instance == WHOLE_IMAGE


def _placed(sample: Sample, place: _Place, side: int) -> images.Pixels:
    with located(name_of(place.uri)):
        return _picture(sample, place.affine, side)


def _picture(sample: Sample, affine: Affine, side: int) -> images.Pixels:
    shrink = geometry.shrink_for(affine)
    with located(sample.key), _room_for(sample):
        pixels = images.decode_stored(sample.image, shrink)
    if (
        shrink == 1
        and pixels.shape == (side, side, 3)
        and np.array_equal(affine, geometry.IDENTITY)
    ):
        return pixels
    shrunk = geometry.from_shrunk(affine, shrink)
    return geometry.warp(geometry.with_spare_channel(pixels), shrunk, side, side)


def _room_for(sample: Sample) -> AbstractContextManager[object]:
    large = cast(int, sample.image.width) * cast(int, sample.image.height) > _LARGE
    return _one_large if large else nullcontext()


class _OnDisk:
    """Pictures that do not fit in memory, decoded when asked for."""

    def __init__(self, places: Sequence[_Place], side: int):
        self._places, self._side = places, side

    def __getitem__(self, indices: Indices) -> images.Pixels:
        places = [self._places[i] for i in indices]
        return np.stack([_placed(read_record(p.uri), p, self._side) for p in places])


def _pictures(
    dataset: Dataset,
    rows: Sequence[_Row],
    side: int,
    crop: str,
    store: ImageStore,
    counts: dict[str, int],
) -> Pictures:
    to_source = np.stack([row.to_source for row in rows])  # (N, 2, 3)
    in_record = np.stack([row.instance.keypoints for row in rows]).astype(np.float64)
    to_picture = np.stack([row.place.affine for row in rows])
    keypoints = _moved(in_record, to_picture)
    scales = np.array(
        [geometry.scale_of(geometry.compose(row.to_source, row.place.affine)) for row in rows]
    )
    return Pictures(
        skeleton=dataset.skeleton,
        side=side,
        crop=crop,
        keys=tuple(row.key for row in rows),
        instance=np.array([row.number for row in rows]),
        keypoints=keypoints.astype(np.float32),
        truth=_moved(keypoints, to_source),
        to_source=to_source,
        source_size=np.array([row.source_size for row in rows], np.float64),
        area=np.array([_or_nan(row.instance.area) for row in rows]) * scales**2,
        bbox_xyxy=np.stack([_source_box(row) for row in rows]),
        head_size=np.array([_or_nan(row.instance.head_size) for row in rows]) * scales,
        is_copy=np.array([row.is_copy for row in rows]),
        images=store,
        counts=dict(counts),
    )


def _moved(keypoints: FloatArray, affines: Affine) -> FloatArray:
    """(N, K, 3) through affines (N, 2, 3); (0, 0, 0) where not labelled."""
    xy = geometry.apply_affines(affines, keypoints[..., :2])
    moved = np.concatenate([xy, keypoints[..., 2:]], axis=2)
    return np.where(keypoints[..., 2:] > 0, moved, 0.0)


def _source_box(row: _Row) -> FloatArray:
    box = row.instance.bbox_xyxy
    if box is None:
        return np.full(4, np.nan)
    to_source = geometry.compose(row.to_source, row.place.affine)
    corners = np.array([[box[x], box[y]] for x in (0, 2) for y in (1, 3)])
    places = apply_affine(to_source, corners)
    return np.concatenate([places.min(axis=0), places.max(axis=0)])


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _describe(framing: Framing, whole: set[bool]) -> str:
    if whole == {True}:
        return framing.words
    cropped = "as the shards were cropped"
    return f"{cropped}; whole images: {framing.words}" if True in whole else cropped
