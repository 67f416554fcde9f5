"""Boxes, crops and affine maps: pure functions on continuous pixels.

An affine is a (2, 3) array that maps ``xy`` to ``A[:, :2] @ xy + A[:, 2]``.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from kpdata.schema import FloatArray, Instance

Affine = npt.NDArray[np.floating]


IDENTITY: Affine = np.eye(2, 3)
"""The affine that changes nothing."""
IDENTITY.flags.writeable = False

_SHRINKS = (8, 4, 2)
_LARGEST_SHRUNK = 0.8 + 1e-6
"""The scale that may be left to sample at, once a picture is shrunk, and a float32's rounding. On
COCO photos, a copy that is enlarged by a third then comes as near to the true mean as without
shrinking, and all others nearer."""


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

    Number by number: a matrix product's last bit depends on the processor.
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
    """``affine`` rounded to float32, the precision of the wire.

    Rounding *before* use makes the stored transform the one that was really applied.
    """
    return np.asarray(affine, np.float32)


def scale_of(affine: Affine) -> float:
    """How much lengths grow under ``affine``: the square root of the area's factor."""
    (a, b, _), (c, d, _) = affine.tolist()
    return math.sqrt(abs(a * d - b * c))


def flip(width: float) -> Affine:
    """The mirror image of a picture of this width: x → width − x."""
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
    """Raw pixels → upright pixels for an EXIF orientation, 1 to 8 (Exif 2.3, tag 0x0112).

    Args:
        orientation: the tag's value.
        width, height: the size of the *raw* image.
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


def square_crop(bbox_xyxy: FloatArray, margin: float, size: int) -> Affine:
    """Source pixels → a ``size`` × ``size`` picture of the box squared around its centre.

    Args:
        bbox_xyxy: (4,) the box to show.
        margin: the square's side in units of the box's longer side.
        size: the picture's side in pixels.
    """
    x0, y0, x1, y1 = bbox_xyxy.tolist()
    scale = size / (max(x1 - x0, y1 - y0, 1.0) * margin)
    shift_x, shift_y = size / 2 - scale * (x0 + x1) / 2, size / 2 - scale * (y0 + y1) / 2
    return np.array([[scale, 0, shift_x], [0, scale, shift_y]])


def resize_affine(width: int, height: int, size: int) -> Affine:
    """(2, 3): a picture of ``width`` × ``height`` pixels stretched to ``size`` × ``size``."""
    return np.array([[size / width, 0.0, 0.0], [0.0, size / height, 0.0]])


def shrink_for(affine: Affine) -> int:
    """By how many whole pixels to average before ``affine``, so that sampling skips none.

    A moderate enlargement on top of it still finds pixels enough.
    """
    scale = scale_of(affine)
    return next((n for n in _SHRINKS if scale * n <= _LARGEST_SHRUNK), 1)


def keypoint_box(instance: Instance) -> FloatArray | None:
    """(4,) xyxy: the tight box of the labelled keypoints, or None without any."""
    labelled = instance.xy[instance.visibility > 0]
    if not len(labelled):
        return None
    return np.concatenate([labelled.min(axis=0), labelled.max(axis=0)])


def map_box(affine: Affine, bbox_xyxy: FloatArray) -> FloatArray:
    """(4,) the upright box around a mapped box: its half sides go through the map's magnitudes."""
    (a, b, x), (c, d, y) = affine.tolist()
    x0, y0, x1, y1 = bbox_xyxy.tolist()
    center_x, center_y, half_x, half_y = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
    mapped_x, mapped_y = a * center_x + b * center_y + x, c * center_x + d * center_y + y
    across = abs(a) * half_x + abs(b) * half_y
    down = abs(c) * half_x + abs(d) * half_y
    sides = (mapped_x - across, mapped_y - down, mapped_x + across, mapped_y + down)
    return np.array(sides, np.float32)


def with_spare_channel(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) → (H, W, 4): OpenCV warps four channels more than twice as fast as three."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)


def warp(
    pixels: npt.NDArray[np.uint8],
    affine: Affine,
    width: int,
    height: int,
    fill: tuple[int, int, int] = (0, 0, 0),
    shrink: int = 1,
) -> npt.NDArray[np.uint8]:
    """Resample ``pixels`` through ``affine`` into (height, width, 3), bilinearly.

    OpenCV counts pixel centres as integers, half a pixel from our continuous coordinates.

    Args:
        pixels: (H, W, 3), or (H, W, 4) whose last channel is dropped.
        affine: (2, 3) from the picture's pixels to the result.
        width, height: of the result.
        fill: the colour beyond the edges.
        shrink: of the picture; each of ``pixels`` is the mean of a block of this side.
    """
    (a, b, x), (c, d, y) = (np.asarray(affine, np.float64) * (shrink, shrink, 1)).tolist()
    matrix = np.array([[a, b, x + (a + b - 1) / 2], [c, d, y + (c + d - 1) / 2]])
    warped = cv2.warpAffine(
        pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill
    )
    return warped if pixels.shape[2] == 3 else cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
