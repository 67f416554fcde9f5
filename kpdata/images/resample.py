"""Resample decoded pictures through affine maps."""

import cv2
import numpy as np

from kpdata.core.sample import Pixels
from kpdata.core.transform import Affine, scale_of

_SHRINKS = (8, 4, 2)
_LARGEST_SHRUNK = 0.8 + 1e-6
"""The largest scale that may remain after a picture was shrunk, plus float32 rounding.

Measured on COCO photos: with it, a copy enlarged by a third is as close to the exact area mean as
without shrinking, and all other copies are closer."""


def shrink_for(affine: Affine) -> int:
    """The side of the blocks to average before ``affine``, so that sampling skips no pixel.

    Enough pixels remain for a copy that is moderately enlarged.
    """
    scale = scale_of(affine)
    return next((n for n in _SHRINKS if scale * n <= _LARGEST_SHRUNK), 1)


def with_spare_channel(pixels: Pixels) -> Pixels:
    """(H, W, 3) → (H, W, 4). OpenCV warps four channels more than twice as fast as three."""
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

    OpenCV puts pixel centres at integers, and our continuous coordinates put them at halves; the
    matrix is corrected for that.

    Args:
        pixels: (H, W, 3), or (H, W, 4) whose last channel is dropped.
        affine: (2, 3) from the picture's pixels to the result.
        width, height: of the result.
        fill: colour outside the picture.
        shrink: side of the blocks that ``pixels`` was averaged over before; ``affine`` is for the
            picture before that.
    """
    (a, b, x), (c, d, y) = (np.asarray(affine, np.float64) * (shrink, shrink, 1)).tolist()
    matrix = np.array([[a, b, x + (a + b - 1) / 2], [c, d, y + (c + d - 1) / 2]])
    warped = cv2.warpAffine(
        pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill
    )
    return warped if pixels.shape[2] == 3 else cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def mean_of_blocks(pixels: Pixels, side: int) -> Pixels:
    """Average (H, W, 3) over blocks of ``side`` pixels; edge pixels fill the last ones up."""
    if side == 1:
        return pixels
    height, width = pixels.shape[:2]
    whole = cv2.copyMakeBorder(pixels, 0, -height % side, 0, -width % side, cv2.BORDER_REPLICATE)
    size = whole.shape[1] // side, whole.shape[0] // side
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA)


def square(pixels: Pixels, affine: Affine, side: int) -> Pixels:
    """Resample ``pixels`` to (side, side, 3) through ``affine``, as training crops are.

    If the square has much fewer pixels than the picture, blocks are averaged first: bilinear
    sampling alone would skip pixels. Outside the picture the square is black.

    Args:
        pixels: (H, W, 3).
        affine: (2, 3) from ``pixels`` to the square, such as :func:`kpdata.core.crop.square_crop`
            returns.
        side: of the square in pixels.
    """
    shrink = shrink_for(affine)
    small = with_spare_channel(mean_of_blocks(pixels, shrink))
    return warp(small, affine, side, side, shrink=shrink)
