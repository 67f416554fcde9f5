"""Augmentation of pixels that moves no keypoint: occluders, colour and blur."""

import math
from collections.abc import Iterable

import cv2
import numpy as np

from kpdata.core.augment import CopyParams, Rectangle
from kpdata.core.sample import FloatArray, Pixels

LUMA = np.array([0.299, 0.587, 0.114])
"""How bright red, green and blue look (ITU-R BT.601, the luma of JPEG)."""

_MID_GREY = 127.5
_UNCHANGED = np.eye(3, 4)
_SAME = np.eye(3)
_AXIS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5


def cover(pixels: Pixels, rectangles: Iterable[Rectangle]) -> Pixels:
    """A copy of (H, W, 3) ``pixels`` with the rectangles painted on it, in this order."""
    covered = pixels.copy()
    for x0, y0, x1, y1, rgb in rectangles:
        cv2.rectangle(covered, (x0, y0), (x1 - 1, y1 - 1), rgb, cv2.FILLED)
    return covered


def colour_matrix(
    brightness: float = 0.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> FloatArray:
    """(3, 4) affine on RGB from 0 to 255: hue first, then saturation, contrast and brightness.

    Args:
        brightness: added to every channel, in units of the full range.
        contrast: factor on the distance from mid-grey.
        saturation: factor on the distance from the pixel's own grey (its luma); 0 is grey.
        hue: degrees of rotation about the grey axis; 120 turns red into green.
    """
    greyed = saturation * _SAME + (1 - saturation) * LUMA  # (3, 3), every row sums to 1
    matrix = np.empty((3, 4))
    matrix[:, :3] = contrast * greyed @ _hue_rotation(hue)
    matrix[:, 3] = 255 * brightness + _MID_GREY * (1 - contrast)
    return matrix


def recolour(pixels: Pixels, matrix: FloatArray) -> Pixels:
    """Apply a (3, 4) colour matrix to (H, W, 3) RGB, rounded and clipped to 0 … 255."""
    if np.array_equal(matrix, _UNCHANGED):
        return pixels
    recoloured: Pixels = cv2.transform(pixels, matrix)
    return recoloured


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Blur (H, W, 3) ``pixels`` with a Gaussian of ``sigma`` pixels; 0 returns them as they are."""
    if sigma == 0:
        return pixels
    blurred: Pixels = cv2.GaussianBlur(pixels, (0, 0), sigma)
    return blurred


def _hue_rotation(degrees: float) -> FloatArray:
    """(3, 3) rotation about (1, 1, 1): Rodrigues' formula."""
    radians = math.radians(degrees)
    cosine, sine = math.cos(radians), math.sin(radians)
    return cosine * _SAME + (1 - cosine) / 3 + sine * _AXIS


def paint(pixels: Pixels, params: CopyParams) -> Pixels:
    """Apply a copy's occluders, colour and blur to (H, W, 3) RGB; ``pixels`` is not changed."""
    if params.rectangles:
        pixels = cover(pixels, params.rectangles)
    matrix = colour_matrix(params.brightness, params.contrast, params.saturation, params.hue)
    return blur(recolour(pixels, matrix), params.blur_sigma)
