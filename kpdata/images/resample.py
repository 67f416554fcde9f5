"""Pixels through an affine map: pure functions on decoded pictures."""

import cv2
import numpy as np

from kpdata.core.sample import Pixels
from kpdata.core.transform import Affine, scale_of

_SHRINKS = (8, 4, 2)
_LARGEST_SHRUNK = 0.8 + 1e-6
"""The scale that may be left to sample at, once a picture is shrunk, and a float32's rounding. On
COCO photos, a copy that is enlarged by a third then comes as near to the true mean as without
shrinking, and all others nearer."""


def shrink_for(affine: Affine) -> int:
    """By how many whole pixels to average before ``affine``, so that sampling skips none.

    A moderate enlargement on top of it still finds pixels enough.
    """
    scale = scale_of(affine)
    return next((n for n in _SHRINKS if scale * n <= _LARGEST_SHRUNK), 1)


def with_spare_channel(pixels: Pixels) -> Pixels:
    """(H, W, 3) → (H, W, 4): OpenCV warps four channels more than twice as fast as three."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)


def warp(
    pixels: Pixels,
    affine: Affine,
    width: int,
    height: int,
    fill: tuple[int, int, int] = (0, 0, 0),
    shrink: int = 1,
) -> Pixels:
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


def mean_of_blocks(pixels: Pixels, side: int) -> Pixels:
    """Shrink (H, W, 3) by ``side``: each pixel the mean of a block, the edges repeated to fit."""
    if side == 1:
        return pixels
    height, width = pixels.shape[:2]
    whole = cv2.copyMakeBorder(pixels, 0, -height % side, 0, -width % side, cv2.BORDER_REPLICATE)
    size = whole.shape[1] // side, whole.shape[0] // side
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA)


def square(pixels: Pixels, affine: Affine, side: int) -> Pixels:
    """(side, side, 3) of ``pixels`` through ``affine``, shrunk by whole blocks where they are many.

    Bilinear sampling alone would skip over pixels, which no picture in training does. Beyond the
    picture it is black.

    Args:
        pixels: (H, W, 3).
        affine: (2, 3) from ``pixels`` to the square, as of :func:`kpdata.core.crop.square_crop`.
        side: of the square.
    """
    shrink = shrink_for(affine)
    small = with_spare_channel(mean_of_blocks(pixels, shrink))
    return warp(small, affine, side, side, shrink=shrink)
