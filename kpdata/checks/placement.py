"""Find coordinates in a wrong unit or order, or of other images."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kpdata.core.sample import FloatArray

BoolArray = npt.NDArray[np.bool_]

FEW = 20
"""With fewer poses, nothing is judged."""

_MOST_OUTSIDE, _SOME_OUTSIDE = 0.25, 0.05
"""Share of keypoints outside: LSP 0.004 %, COCO 0; with x and y exchanged 29 and 27 %."""

_CORNER, _INSIDE_BOX = 0.4, 0.5
_LARGEST_UNIT, _WIDER_THAN_PERCENT = 1.5, 130.0
_PERCENT_END = 50.0, 102.0
"""The largest of coordinates in percent lies between these."""


def coordinate_faults(
    xy: FloatArray,
    labelled: BoolArray,
    source_size: FloatArray,
    bbox_xyxy: FloatArray | None,
) -> Iterator[str]:
    """Yield a message for each fault, with numbers, cause and fix; the most specific comes first.

    Args:
        xy: (N, K, 2) coordinates, which should be pixels.
        labelled: (N, K) which keypoints count; at least one of each pose.
        source_size: (N, 2) width and height of the images.
        bbox_xyxy: (N, 4), NaN where there is none; None for none at all.
    """
    largest = np.percentile(xy[labelled], 99.9)
    width, height = np.median(source_size, axis=0)
    images = f"images of typically {width:.0f} × {height:.0f} pixels"
    if largest <= _LARGEST_UNIT < min(width, height) / 10:
        yield (
            f"Coordinates reach {largest:.2f} in {images}. Likely cause: they are normalised, 0 to "
            "1. Fix: multiply them by the images' width and height."
        )
    if share := _looks_like_percent(xy, labelled, source_size):
        yield (
            f"No coordinate is over {_PERCENT_END[1]:.0f}, although {share} images have a side of "
            f"more than {_WIDER_THAN_PERCENT:.0f} pixels; the largest is {largest:.1f} in "
            f"{images}. "
            "Likely cause: they are percentages (0 to 100, or 1 to 101). Fix: multiply them by the "
            "images' width and height over 100."
        )
    outside = share_outside(xy, labelled, source_size)
    exchanged = share_outside(xy[..., ::-1], labelled, source_size)
    if outside > _SOME_OUTSIDE and exchanged < outside / 4:
        yield (
            f"{outside:.0%} of the labelled keypoints lie outside of their images, and with x and "
            f"y exchanged {exchanged:.0%}. Likely cause: they are given as y, x. Fix: exchange "
            "them."
        )
    if outside > _MOST_OUTSIDE:
        yield (
            f"{outside:.0%} of the labelled keypoints lie outside of their images; coordinates "
            f"reach {largest:.0f} in {images}. Likely cause: they belong to images of another "
            "size, or to other images. Fix: scale them to the images that are read."
        )
    low, high = np.percentile((xy / source_size[:, None])[labelled], [1, 99], axis=0)
    if ((high < _CORNER) | (low > 1 - _CORNER)).all():
        yield (
            f"All keypoints lie between {low[0]:.0%} and {high[0]:.0%} of the width and between "
            f"{low[1]:.0%} and {high[1]:.0%} of the height of {images}. Likely cause: they belong "
            "to crops, or to images of another size. Fix: map them to the images that are read."
        )
    if bbox_xyxy is not None and (share_in := _share_in_box(xy, labelled, bbox_xyxy)) is not None:
        yield (
            f"{share_in:.0%} of the labelled keypoints lie in or near their instance's box. Likely "
            "cause: boxes and keypoints are in different units, or a box's width and height were "
            "read as its second corner. Fix: give boxes in the units and order of the format."
        )


def share_outside(xy: FloatArray, labelled: BoolArray, source_size: FloatArray) -> float:
    """The share of labelled keypoints that lie outside of their images."""
    inside = np.all((xy >= 0) & (xy <= source_size[:, None]), axis=2)
    return 1 - float(inside[labelled].mean())


def _looks_like_percent(xy: FloatArray, labelled: BoolArray, source_size: FloatArray) -> int:
    """The number of images of over 130 pixels, if coordinates end near 100 and centre on 50; or 0.

    Small objects in the middle of small images end near 100 too, but centre on half the *image*.
    """
    can_tell = source_size.max(axis=1) > _WIDER_THAN_PERCENT
    if can_tell.sum() < FEW:
        return 0
    xy, size = np.where(labelled[..., None], xy, np.nan)[can_tell], source_size[can_tell]
    largest = np.nanmax(xy, axis=(1, 2))  # (M,)
    center = np.nanmean(xy, axis=1)  # (M, 2)
    as_pixels = np.abs(np.median(center / size, axis=0) - 0.5).sum()
    as_percent = np.abs(np.median(center / 100, axis=0) - 0.5).sum()
    low, high = _PERCENT_END
    ends_there = low < np.percentile(largest, 99) <= high
    return len(xy) if ends_there and as_percent < as_pixels else 0


def _share_in_box(xy: FloatArray, labelled: BoolArray, bbox_xyxy: FloatArray) -> float | None:
    """The share of keypoints in their boxes, enlarged by half on each side; None if it is large."""
    known = np.isfinite(bbox_xyxy).all(axis=1)
    if known.sum() < FEW:
        return None
    corners = bbox_xyxy[known].reshape(-1, 1, 2, 2)  # (M, 1, corner, xy)
    grown = (corners[:, :, 1] - corners[:, :, 0]) / 2
    near = (xy[known] >= corners[:, :, 0] - grown) & (xy[known] <= corners[:, :, 1] + grown)
    share = float(np.all(near, axis=2)[labelled[known]].mean())
    return share if share < _INSIDE_BOX else None
