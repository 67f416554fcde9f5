"""A square picture for each instance: what the trainer learns from and the evaluation looks at."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from kpdata.core import transform
from kpdata.core.crop import CropRule
from kpdata.core.errors import DatasetError
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.core.transform import Affine, apply_affine
from kpdata.shards.dataset import Dataset
from kpdata.train.data.decoding import ImageStore, Indices, decode_all
from kpdata.train.data.squares import Square, squares

_WITHOUT_BOXES = (
    ". Choose --crop-from image (the whole image, squared) or keypoints (which leaks the labels "
    "into the crop); kpdata train takes it as --set crop_from=image"
)


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


def load(
    dataset: Dataset,
    split: str,
    crop_rule: CropRule,
    side: int,
    copies: bool = False,
    on_read: Callable[[int], None] | None = None,
    memory: int | None = None,
) -> Pictures:
    """The pictures of one split, decoded once and kept where they fit in memory.

    Args:
        dataset: a shard folder.
        split: its split.
        crop_rule: what is cut out of whole images.
        side: P.
        copies: take augmented copies too.
        on_read: is told how many pictures have been read.
        memory: bytes of pictures to keep; a third of what is free unless given. Beyond it, they are
            decoded each time they are asked for.

    Raises:
        DatasetError: no such split, a damaged record, or nothing to look at.
    """
    counts: Counter[str] = Counter()
    pairs = squares(dataset, split, crop_rule, side, copies, counts)
    found, store = decode_all(pairs, side, on_read, memory)
    if not found:
        left = "; ".join(f"{count} {what}" for what, count in counts.items())
        fix = _WITHOUT_BOXES if any("no box" in what for what in counts) else ""
        raise DatasetError(
            f"{dataset.folder}: split {split} shows no instance ({left or 'empty'}){fix}"
        )
    return _pictures(dataset, found, side, _describe(crop_rule, found), store, counts)


def _pictures(
    dataset: Dataset,
    found: Sequence[Square],
    side: int,
    crop: str,
    store: ImageStore,
    counts: dict[str, int],
) -> Pictures:
    to_source = np.stack([square.to_source for square in found])  # (N, 2, 3)
    in_record = np.stack([square.instance.keypoints for square in found]).astype(np.float64)
    to_picture = np.stack([square.place.affine for square in found])
    keypoints = _moved(in_record, to_picture)
    scales = np.array([transform.scale_of(square.record_to_source) for square in found])
    return Pictures(
        skeleton=dataset.skeleton,
        side=side,
        crop=crop,
        keys=tuple(square.key for square in found),
        instance=np.array([square.number for square in found]),
        keypoints=keypoints.astype(np.float32),
        truth=_moved(keypoints, to_source),
        to_source=to_source,
        source_size=np.array([square.source_size for square in found], np.float64),
        area=np.array([_or_nan(square.instance.area) for square in found]) * scales**2,
        bbox_xyxy=np.stack([_source_box(square) for square in found]),
        head_size=np.array([_or_nan(square.instance.head_size) for square in found]) * scales,
        is_copy=np.array([square.is_copy for square in found]),
        images=store,
        counts=dict(counts),
    )


def _moved(keypoints: FloatArray, affines: Affine) -> FloatArray:
    """(N, K, 3) through affines (N, 2, 3); (0, 0, 0) where not labelled."""
    xy = transform.apply_affines(affines, keypoints[..., :2])
    moved = np.concatenate([xy, keypoints[..., 2:]], axis=2)
    return np.where(keypoints[..., 2:] > 0, moved, 0.0)


def _source_box(square: Square) -> FloatArray:
    box = square.instance.bbox_xyxy
    if box is None:
        return np.full(4, np.nan)
    corners = np.array([[box[x], box[y]] for x in (0, 2) for y in (1, 3)])
    places = apply_affine(square.record_to_source, corners)
    return np.concatenate([places.min(axis=0), places.max(axis=0)])


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _describe(crop_rule: CropRule, found: Sequence[Square]) -> str:
    cut = sum(square.is_cut for square in found)
    if cut == len(found):
        return crop_rule.words
    cropped = "as the shards were cropped"
    return f"{cropped}; whole images: {crop_rule.words}" if cut else cropped
