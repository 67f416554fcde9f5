"""Square crops, one for each instance, for training and evaluation."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from kpdata.core import transform
from kpdata.core.crop import CropRule
from kpdata.core.errors import DatasetError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.core.transform import Affine, apply_affine
from kpdata.metrics import Unpredicted
from kpdata.shards.dataset import Dataset
from kpdata.train.data.decoding import CropPixels, Indices, decode_crops
from kpdata.train.data.instances import CropFinder, InstanceCrop, NotShown

_WITHOUT_BOXES = (
    ". Choose `crop_from` image (the whole image, squared) or keypoints (which leaks the labels "
    "into the crop); training takes it as the setting crop_from=image"
)


@dataclass(frozen=True, eq=False)
class Crops:
    """N square crops of P × P pixels: the input of a model.

    Attributes:
        side: P.
        to_source: (N, 2, 3) crop pixels → source pixels.
        images: an array of indices → (B, P, P, 3) uint8; of labelled crops with their border.
    """

    side: int
    to_source: Affine
    images: CropPixels

    def __len__(self) -> int:
        return len(self.to_source)


@dataclass(frozen=True, eq=False)
class LabelledCrops(Crops):
    """Crops that each show one labelled instance of a skeleton with K keypoints.

    Attributes:
        skeleton: names the keypoints.
        crop: how they were chosen, in words.
        keys: the source image of each.
        instance: (N,) position of the instance in its source image.
        keypoints: (N, K, 3) float32 in crop pixels; outside of the crop, too.
        truth: (N, K, 3) the same in source pixels.
        source_size: (N, 2) width and height of the source image.
        area, head_size: (N,), and ``bbox_xyxy`` (N, 4), in source pixels; NaN where there is none.
        is_copy: (N,) of an augmented copy; in a mirrored one, left and right are exchanged.
        counts: what was left out, by name.
        unpredicted: the instances of whole images that no crop shows, in source pixels; None where
            there are none, or nobody knows.
        border: pixels of the record that ``images`` show beyond each side of the crop, so that a
            turned or shifted crop finds them there.
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
    unpredicted: Unpredicted | None = None
    border: int = 0

    @cached_property
    def shown_keypoints(self) -> npt.NDArray[np.float32]:
        """(N, K, 3) the keypoints in pixels of ``images``."""
        return self.keypoints + np.array([self.border, self.border, 0], np.float32)

    @property
    def without_border(self) -> Affine:
        """(2, 3) pixels of ``images`` → those of the crop."""
        return np.array([[1.0, 0.0, -self.border], [0.0, 1.0, -self.border]])

    def take(self, indices: Indices) -> "LabelledCrops":
        """The crops at ``indices``, read into memory."""
        arrays = {
            field.name: getattr(self, field.name)[indices]
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        arrays["images"] = self.images[indices]
        return replace(self, **arrays, keys=tuple(self.keys[i] for i in indices))

    @property
    def shared_crops(self) -> int:
        """How many crops show the same part of an image as another instance's crop."""
        squares = [(k, a.tobytes()) for k, a in zip(self.keys, self.to_source, strict=True)]
        shown = Counter(square for square, _ in set(zip(squares, self.instance, strict=True)))
        return sum(shown[square] > 1 for square in squares)

    def warning(self, split: str) -> str | None:
        """A note on crops that stand for several instances; None without any."""
        if not (count := self.shared_crops):
            return None
        return (
            f"{count:,} of {len(self):,} crops of {split} show the same as another instance's "
            "crop, but have other keypoints: a model finds one pose in a crop. Cut a square around "
            "each instance: train with the setting crop_from=bbox or, if the shards hold crops, "
            "convert with `crop_from` bbox"
        )


def load(
    dataset: Dataset,
    split: str,
    crop_rule: CropRule,
    side: int,
    copies: bool = False,
    progress: Progress = SILENT,
    memory: int | None = None,
    border: int = 0,
    limit: int | None = None,
) -> LabelledCrops:
    """Load the crops of one split. They are decoded once and kept if they fit in memory.

    Args:
        dataset: a shard folder.
        split: its split.
        crop_rule: what is cut out of whole images.
        side: P.
        copies: take augmented copies too.
        progress: hears of it as one step.
        memory: bytes of pixels to keep; a third of what is free unless given. Beyond it, they are
            decoded each time they are asked for.
        border: pixels to show around each crop.
        limit: how many to take, the first ones; None takes all.

    Raises:
        DatasetError: no such split, a damaged record, or nothing to look at.
    """
    total = None if copies else dataset[split].dataset.manifest.splits[split].instances
    progress.begin(f"reading {split}", total, "crops")
    finder = CropFinder(dataset, split, crop_rule, side, copies)
    found, pixels = decode_crops(islice(finder, limit), side + 2 * border, progress, memory, border)
    if not found:
        left = "; ".join(f"{count} {what}" for what, count in finder.counts.items())
        fix = _WITHOUT_BOXES if any("no box" in what for what in finder.counts) else ""
        raise DatasetError(
            f"{dataset.folder}: split {split} shows no instance ({left or 'empty'}){fix}"
        )
    to_source = np.stack([crop.to_source for crop in found])  # (N, 2, 3)
    in_record = np.stack([crop.instance.keypoints for crop in found]).astype(np.float64)
    keypoints = _moved(in_record, np.stack([crop.of.affine for crop in found]))
    scales = np.array([transform.scale_of(crop.record_to_source) for crop in found])
    return LabelledCrops(
        skeleton=dataset.skeleton,
        side=side,
        crop=_describe(crop_rule, found),
        keys=tuple(crop.key for crop in found),
        instance=np.array([crop.number for crop in found]),
        keypoints=keypoints.astype(np.float32),
        truth=_moved(keypoints, to_source),
        to_source=to_source,
        source_size=np.array([crop.source_size for crop in found], np.float64),
        area=np.array([_or_nan(crop.instance.area) for crop in found]) * scales**2,
        bbox_xyxy=np.stack([_source_box(crop) for crop in found]),
        head_size=np.array([_or_nan(crop.instance.head_size) for crop in found]) * scales,
        is_copy=np.array([crop.is_copy for crop in found]),
        images=pixels,
        counts=dict(finder.counts),
        unpredicted=_unpredicted(finder.not_shown) if finder.not_shown else None,
        border=border,
    )


def _unpredicted(instances: Sequence[NotShown]) -> Unpredicted:
    return Unpredicted(
        image_ids=tuple(each.key for each in instances),
        keypoints=np.stack([each.keypoints for each in instances]),
        bbox_xyxy=np.stack([each.bbox_xyxy for each in instances]),
        area=np.array([each.area for each in instances]),
        is_crowd=np.array([each.is_crowd for each in instances]),
    )


def _moved(keypoints: FloatArray, affines: Affine) -> FloatArray:
    """Apply affines (N, 2, 3) to keypoints (N, K, 3); (0, 0, 0) where not labelled."""
    xy = transform.apply_affines(affines, keypoints[..., :2])
    moved = np.concatenate([xy, keypoints[..., 2:]], axis=2)
    return np.where(keypoints[..., 2:] > 0, moved, 0.0)


def _source_box(crop: InstanceCrop) -> FloatArray:
    box = crop.instance.bbox_xyxy
    if box is None:
        return np.full(4, np.nan)
    corners = np.array([[box[x], box[y]] for x in (0, 2) for y in (1, 3)])
    moved = apply_affine(crop.record_to_source, corners)
    return np.concatenate([moved.min(axis=0), moved.max(axis=0)])


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _describe(crop_rule: CropRule, found: Sequence[InstanceCrop]) -> str:
    cut = sum(crop.is_cut for crop in found)
    if cut == len(found):
        return crop_rule.words
    cropped = "as the shards were cropped"
    return f"{cropped}; whole images: {crop_rule.words}" if cut else cropped
