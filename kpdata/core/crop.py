"""The square that is cut out of an image for an instance, in conversion and in training alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np

from kpdata.core.errors import SchemaError, either
from kpdata.core.sample import FloatArray, Instance
from kpdata.core.transform import Affine

CropFrom = Literal["bbox", "keypoints", "image"]

_LEAST_MARGIN, _LARGEST_MARGIN = 0.1, 10.0

_LEAST_EXTENT = 1.0
"""Pixels: a crop of what is smaller would show a few source pixels, magnified."""


@dataclass(frozen=True)
class CropRule:
    """What a crop is centred on, and how large it is.

    >>> CropRule("box")
    Traceback (most recent call last):
    kpdata.core.errors.SchemaError: crop_from is 'box': expected bbox, keypoints or image

    Attributes:
        crop_from: around the instance's ``bbox``, its labelled ``keypoints``, or the ``image``.
        margin: the square's side in units of that box's longer side, from 0.1 to 10.

    Raises:
        SchemaError: another value.
    """

    crop_from: CropFrom = "bbox"
    margin: float = 1.25

    def __post_init__(self) -> None:
        """Raise SchemaError for an unknown ``crop_from`` or a margin out of range."""
        if self.crop_from not in get_args(CropFrom):
            raise SchemaError(
                f"crop_from is {self.crop_from!r}: expected {either(get_args(CropFrom))}"
            )
        margin: Any = self.margin
        is_number = isinstance(margin, Real) and not isinstance(margin, bool)
        if not is_number or not _LEAST_MARGIN <= margin <= _LARGEST_MARGIN:
            raise SchemaError(
                f"margin is {margin!r}: expected a number from {_LEAST_MARGIN:g} to "
                f"{_LARGEST_MARGIN:g}"
            )

    @property
    def words(self) -> str:
        """The rule in words, such as ``a square around the bbox, × 1.25``."""
        what = f"a square around the {self.crop_from}"
        if self.crop_from == "image":
            what = "the whole image, squared around its centre"
        return f"{what}, × {self.margin:g}"

    def why_not(self, instance: Instance) -> str | None:
        """Why an instance cannot be cropped, as a short name to count by; None where it can."""
        if reason := why_not_shown(instance):
            return reason
        if self.crop_from == "image":
            return None
        if self.crop_from == "bbox":
            if instance.bbox_xyxy is None:
                return "no box"
            sides = instance.bbox_xyxy[2:] - instance.bbox_xyxy[:2]
            return (
                None if sides.min() > 0 and sides.max() >= _LEAST_EXTENT else "box without extent"
            )
        xy = instance.xy[instance.visibility > 0]
        return None if np.ptp(xy, axis=0).max() >= _LEAST_EXTENT else "keypoints all at one point"

    def square(self, instance: Instance, width: int, height: int, side: int) -> Affine:
        """(2, 3) affine from image pixels to the instance's crop of ``side`` × ``side`` pixels.

        Args:
            instance: in the image's pixels.
            width, height: size of the image in pixels.
            side: side of the crop in pixels.

        Raises:
            SchemaError: the instance has no box, or no labelled keypoint, to crop around.
        """
        return square_crop(self._box(instance, width, height), self.margin, side)

    def _box(self, instance: Instance, width: int, height: int) -> FloatArray:
        if self.crop_from == "image":
            return np.array([0, 0, width, height], np.float32)
        keypoints = self.crop_from == "keypoints"
        box = keypoint_box(instance) if keypoints else instance.bbox_xyxy
        if box is None:
            what = "labelled keypoint" if keypoints else "box"
            raise SchemaError(f"an instance has no {what} to put a square around")
        return box


def usual_margin(crop_from: str) -> float:
    """The margin where none is given: around a whole image there is nothing more to show."""
    return 1.0 if crop_from == "image" else CropRule.margin


def crop_rule_of(options: Mapping[str, Any]) -> CropRule | None:
    """The rule that a dataset's crops were cut by; None for a dataset of whole images.

    Args:
        options: the manifest's. They are JSON that anybody may have written, so their values can be
            of any type; CropRule checks those that are used here.

    Raises:
        SchemaError: a value that is no rule.
    """
    if not options.get("crop"):
        return None
    usual = CropRule()
    crop_from = options.get("crop_from", usual.crop_from)
    return CropRule(crop_from, options.get("margin", usual.margin))


def why_not_shown(instance: Instance) -> str | None:
    """Why no crop of an instance is useful, by whatever rule; None where one may be."""
    if instance.is_crowd:
        return "crowd"
    return None if instance.num_labelled else "no labelled keypoint"


def square_crop(bbox_xyxy: FloatArray, margin: float, size: int) -> Affine:
    """(2, 3) affine from source pixels to a square crop with the box in its middle.

    Args:
        bbox_xyxy: (4,) the box to show, in source pixels.
        margin: side of the square in units of the box's longer side.
        size: side of the crop in pixels.
    """
    x0, y0, x1, y1 = bbox_xyxy.tolist()
    scale = size / (max(x1 - x0, y1 - y0, 1.0) * margin)
    shift_x, shift_y = size / 2 - scale * (x0 + x1) / 2, size / 2 - scale * (y0 + y1) / 2
    return np.array([[scale, 0, shift_x], [0, scale, shift_y]])


def keypoint_box(instance: Instance) -> FloatArray | None:
    """(4,) xyxy: the tightest box around the labelled keypoints; None where none is labelled."""
    labelled = instance.xy[instance.visibility > 0]
    if not len(labelled):
        return None
    return np.concatenate([labelled.min(axis=0), labelled.max(axis=0)])
