"""Affine maps of points, boxes and instances, in continuous pixels.

An affine is a (2, 3) array that maps ``xy`` to ``A[:, :2] @ xy + A[:, 2]``.
"""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kpdata.core.sample import NOT_LABELLED, FloatArray, Instance

Affine = npt.NDArray[np.floating]


IDENTITY: Affine = np.eye(2, 3)
"""The affine that changes nothing."""
IDENTITY.flags.writeable = False


def apply_affine(affine: Affine, xy: FloatArray) -> FloatArray:
    """Map points (..., 2) by ``affine``, in float64."""
    matrix = np.asarray(affine, np.float64)
    return np.asarray(xy, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def apply_affines(affines: Affine, xy: FloatArray) -> FloatArray:
    """Map points (N, K, 2), or the same (K, 2) each time, by N affines (N, 2, 3): (N, K, 2)."""
    matrices = np.asarray(affines, np.float64)
    return np.asarray(xy, np.float64) @ matrices[:, :, :2].swapaxes(1, 2) + matrices[:, None, :, 2]


def compose(second: Affine, first: Affine) -> Affine:
    """The affine that applies ``first``, then ``second``, in float64.

    It is written out number by number, since the last bit of a NumPy matrix product depends on the
    processor, and shards must not.
    """
    (a, b, x), (c, d, y) = np.asarray(second, np.float64).tolist()
    (e, f, u), (g, h, v) = np.asarray(first, np.float64).tolist()
    return np.array(
        [
            [a * e + b * g, a * f + b * h, a * u + b * v + x],
            [c * e + d * g, c * f + d * h, c * u + d * v + y],
        ]
    )


def invert(affine: Affine) -> Affine:
    """The affine that undoes ``affine``, in float64."""
    (a, b, x), (c, d, y) = affine.tolist()
    determinant = a * d - b * c
    return np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / determinant


def as_stored(affine: Affine) -> Affine:
    """``affine`` rounded to float32, the precision of a record.

    Round *before* use, so that the stored transform is the one that was applied.
    """
    return np.asarray(affine, np.float32)


def scale_of(affine: Affine) -> float:
    """The factor by which ``affine`` scales lengths: the square root of its factor on areas."""
    (a, b, _), (c, d, _) = affine.tolist()
    return math.sqrt(abs(a * d - b * c))


def flip(width: float) -> Affine:
    """The affine that mirrors a picture of this width: x → width − x."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])


def about(
    center_xy: tuple[float, float], linear: FloatArray, shift_xy: tuple[float, float]
) -> Affine:
    """The affine that applies ``linear`` (2, 2) around a fixed centre, then shifts."""
    (a, b), (c, d) = linear.tolist()
    (x, y), (shift_x, shift_y) = center_xy, shift_xy
    return np.array(
        [[a, b, x - a * x - b * y + shift_x], [c, d, y - c * x - d * y + shift_y]], np.float64
    )


def rotation(degrees: float) -> FloatArray:
    """(2, 2) rotation, clockwise on screen for positive degrees."""
    radians = math.radians(degrees)
    c, s = math.cos(radians), math.sin(radians)
    return np.array([[c, -s], [s, c]])


def orientation_affine(orientation: int, width: int, height: int) -> Affine:
    """(2, 3) affine from raw to upright pixels (Exif 2.3, tag 0x0112).

    Args:
        orientation: the tag's value, 1 to 8.
        width, height: size of the *raw* image.
    """
    w, h = float(width), float(height)
    return np.array(
        {
            1: [[1, 0, 0], [0, 1, 0]],
            2: [[-1, 0, w], [0, 1, 0]],
            3: [[-1, 0, w], [0, -1, h]],
            4: [[1, 0, 0], [0, -1, h]],
            5: [[0, 1, 0], [1, 0, 0]],
            6: [[0, -1, h], [1, 0, 0]],
            7: [[0, -1, h], [-1, 0, w]],
            8: [[0, 1, 0], [-1, 0, w]],
        }[orientation],
        np.float64,
    )


def resize_affine(width: int, height: int, size: int) -> Affine:
    """(2, 3) affine that stretches ``width`` × ``height`` pixels to ``size`` × ``size``."""
    return np.array([[size / width, 0.0, 0.0], [0.0, size / height, 0.0]])


def map_box(affine: Affine, bbox_xyxy: FloatArray) -> FloatArray:
    """(4,) the axis-aligned box around a mapped box.

    Its half sides are the box's, mapped by the absolute values of the linear part.
    """
    (a, b, x), (c, d, y) = affine.tolist()
    x0, y0, x1, y1 = bbox_xyxy.tolist()
    center_x, center_y, half_x, half_y = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
    mapped_x, mapped_y = a * center_x + b * center_y + x, c * center_x + d * center_y + y
    across = abs(a) * half_x + abs(b) * half_y
    down = abs(c) * half_x + abs(d) * half_y
    sides = (mapped_x - across, mapped_y - down, mapped_x + across, mapped_y + down)
    return np.array(sides, np.float32)


_NOWHERE = (0.0, 0.0, NOT_LABELLED)


def move_instance(
    instance: Instance,
    affine: Affine,
    width: int,
    height: int,
    flip_index: npt.NDArray[np.intp] | None = None,
) -> tuple[Instance, int]:
    """Map an instance by ``affine`` into a picture of ``width`` × ``height`` pixels.

    A keypoint outside [0, width) × [0, height) becomes v = 0. The new box is the axis-aligned box
    around the mapped one, and is not clipped. Area and head size are scaled.

    Args:
        instance: labels in the source's pixels.
        affine: (2, 3) source pixels → picture pixels.
        width, height: the picture's size.
        flip_index: (K,) the skeleton's. Where ``affine`` mirrors, it swaps left and right names, so
            that the left wrist in the mirror image is the one that looks left. None never swaps.

    Returns:
        The instance in the picture, and how many labelled keypoints left its frame.
    """
    keypoints = instance.keypoints
    if flip_index is not None and _mirrors(affine):
        keypoints = keypoints[flip_index]
    (a, b, shift_x), (c, d, shift_y) = affine.tolist()
    moved = np.array(
        [
            (a * x + b * y + shift_x, c * x + d * y + shift_y, v) if v else _NOWHERE
            for x, y, v in keypoints.tolist()
        ],
        np.float32,
    )
    lost = [
        row
        for row, (x, y, v) in enumerate(moved.tolist())
        if v and not (0 <= x < width and 0 <= y < height)
    ]
    if lost:
        moved[lost] = _NOWHERE
    scale = scale_of(affine)
    seen = replace(
        instance,
        keypoints=moved,
        bbox_xyxy=None if instance.bbox_xyxy is None else map_box(affine, instance.bbox_xyxy),
        area=None if instance.area is None else instance.area * scale**2,
        head_size=None if instance.head_size is None else instance.head_size * scale,
    )
    return seen, len(lost)


def _mirrors(affine: Affine) -> bool:
    return bool(affine[0, 0] * affine[1, 1] < affine[0, 1] * affine[1, 0])
