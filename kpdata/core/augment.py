"""Augmented copies: all random numbers of a copy are sampled first, then applied.

The ranges come from a TOML file, in which every key is optional:

    flip = 0.5                      # probability of a mirror image
    rotate = [-30, 30]              # degrees, clockwise on screen
    scale = [0.75, 1.33]            # factor; a factor and its inverse are equally likely
    shift = 0.1                     # at most this fraction of the width and of the height
    brightness = [-0.2, 0.2]        # added to every channel, in units of the full range
    contrast = [0.75, 1.25]         # factor on the distance from mid-grey
    saturation = [0.6, 1.4]         # factor on the distance from the pixel's own grey
    hue = [-15, 15]                 # degrees around the colour wheel
    grey = 0.05                     # probability of a picture without colour
    blur = 0.1                      # probability of a Gaussian blur
    blur_sigma = [0.3, 1.5]         # its sigma, in pixels of the copy
    jpeg_quality = [60, 95]         # of the stored copy, both ends included
    rectangles = 2                  # occluders in one colour each: none to this many
    rectangle_size = [0.05, 0.25]   # fraction of the width and, sampled apart, of the height
    cutout = 0.2                    # probability of a black square
    cutout_size = [0.1, 0.3]        # its side, as a fraction of the picture's shorter side

The values shown are the defaults. Values are uniform in their range; of scale, the logarithm is.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
import numpy as np

from kpdata.core import transform
from kpdata.core.errors import SchemaError
from kpdata.core.sample import OCCLUDED, VISIBLE, Instance
from kpdata.core.transform import Affine

Range = tuple[float, float]


class Rectangle(NamedTuple):
    """An opaque occluder: pixel columns x0 … x1 − 1, rows y0 … y1 − 1, in one RGB colour."""

    x0: int
    y0: int
    x1: int
    y1: int
    rgb: tuple[int, int, int]


_LIMITS: dict[str, Range] = {
    "flip": (0, 1),
    "rotate": (-180, 180),
    "scale": (0.1, 10),
    "shift": (0, 1),
    "brightness": (-1, 1),
    "contrast": (0.1, 4),
    "saturation": (0, 4),
    "hue": (-180, 180),
    "grey": (0, 1),
    "blur": (0, 1),
    "blur_sigma": (0.1, 20),
    "jpeg_quality": (1, 100),
    "rectangles": (0, 16),
    "rectangle_size": (0.01, 1),
    "cutout": (0, 1),
    "cutout_size": (0.01, 1),
}
"""What each value, or both ends of each range, must lie within."""

_SINGLE_DRAWS = 15
_RECTANGLE_DRAWS = 7
_BLACK = (0, 0, 0)


class AugmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The range of every random change; the module's docstring says what each key means."""

    flip: float = 0.5
    rotate: Range = (-30, 30)
    scale: Range = (0.75, 1.33)
    shift: float = 0.1
    brightness: Range = (-0.2, 0.2)
    contrast: Range = (0.75, 1.25)
    saturation: Range = (0.6, 1.4)
    hue: Range = (-15, 15)
    grey: float = 0.05
    blur: float = 0.1
    blur_sigma: Range = (0.3, 1.5)
    jpeg_quality: tuple[int, int] = (60, 95)
    rectangles: int = 2
    rectangle_size: Range = (0.05, 0.25)
    cutout: float = 0.2
    cutout_size: Range = (0.1, 0.3)

    def __post_init__(self) -> None:
        """Raise SchemaError naming the key, its value and what is allowed."""
        for key, (low, high) in _LIMITS.items():
            value = getattr(self, key)
            if isinstance(value, tuple):
                good = low <= value[0] <= value[1] <= high
                expected = f"a range [low, high] within {low:g} and {high:g}"
            else:
                good = low <= value <= high
                expected = f"a value from {low:g} to {high:g}"
            if not good:
                shown = list(value) if isinstance(value, tuple) else value
                raise SchemaError(f"{key} is {shown}: expected {expected}")


@dataclass(frozen=True)
class CopyParams:
    """All random numbers of one copy. ``CopyParams()`` leaves the picture as it is.

    Attributes:
        flip: whether the copy is a mirror image.
        rotate: degrees, clockwise on screen, about the picture's centre.
        scale: factor about the picture's centre.
        shift_xy: fractions of the width and of the height.
        brightness, contrast, saturation, hue: arguments of
            :func:`kpdata.images.photometric.colour_matrix`; a grey copy has saturation 0.
        blur_sigma: pixels, 0 for no blur.
        rectangles: the occluders, in the order in which they are painted; the cut-out is last.
        jpeg_quality: 1 to 100.
    """

    flip: bool = False
    rotate: float = 0.0
    scale: float = 1.0
    shift_xy: tuple[float, float] = (0.0, 0.0)
    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur_sigma: float = 0.0
    rectangles: tuple[Rectangle, ...] = ()
    jpeg_quality: int = 95


def sample_params(
    config: AugmentConfig, rng: np.random.Generator, width: int, height: int
) -> CopyParams:
    """Sample the parameters of one copy of a picture of ``width`` × ``height`` pixels.

    Every number is sampled, used or not, and those of the occluders come last. So with the same
    ``rng``, another configuration changes only what it sets, and not the other random choices.
    """
    (
        flip, rotate, scale, shift_x, shift_y, brightness, contrast, saturation, hue, grey,
        blurs, sigma, quality, cuts, count,
    ) = rng.random(_SINGLE_DRAWS).tolist()  # fmt: skip
    cutout, *rectangles = rng.random((1 + config.rectangles, _RECTANGLE_DRAWS)).tolist()
    occluders = [
        _rectangle(numbers, config.rectangle_size, width, height)
        for numbers in rectangles[: _whole(0, config.rectangles, count)]
    ]
    if cuts < config.cutout:
        occluders.append(_cutout(cutout, config.cutout_size, width, height))
    low, high = config.scale
    return CopyParams(
        flip=flip < config.flip,
        rotate=_between(config.rotate, rotate),
        scale=low * (high / low) ** scale,
        shift_xy=(config.shift * (2 * shift_x - 1), config.shift * (2 * shift_y - 1)),
        brightness=_between(config.brightness, brightness),
        contrast=_between(config.contrast, contrast),
        saturation=0.0 if grey < config.grey else _between(config.saturation, saturation),
        hue=_between(config.hue, hue),
        blur_sigma=_between(config.blur_sigma, sigma) if blurs < config.blur else 0.0,
        rectangles=tuple(occluders),
        jpeg_quality=_whole(*config.jpeg_quality, quality),
    )


def params_affine(params: CopyParams, width: int, height: int) -> Affine:
    """(2, 3) affine from a picture to its copy of the same size.

    It flips, then rotates and scales about the centre, then shifts.
    """
    shift_x, shift_y = params.shift_xy
    turned = transform.about(
        (width / 2, height / 2),
        params.scale * transform.rotation(params.rotate),
        (width * shift_x, height * shift_y),
    )
    return transform.compose(turned, transform.flip(width)) if params.flip else turned


def occlude(instance: Instance, rectangles: Collection[Rectangle]) -> Instance:
    """``instance`` with its visible keypoints under a rectangle set to occluded (v = 1)."""
    if not rectangles:
        return instance
    hidden = [
        row
        for row, (x, y, visibility) in enumerate(instance.keypoints.tolist())
        if visibility == VISIBLE
        and any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1, _ in rectangles)
    ]
    if not hidden:
        return instance
    keypoints = instance.keypoints.copy()
    keypoints[hidden, 2] = OCCLUDED
    return replace(instance, keypoints=keypoints)


def _between(ends: Range, fraction: float) -> float:
    low, high = ends
    return low + (high - low) * fraction


def _whole(low: int, high: int, fraction: float) -> int:
    return low + int((high - low + 1) * fraction)


def _rectangle(numbers: Sequence[float], sizes: Range, width: int, height: int) -> Rectangle:
    x, y, across, down, *rgb = numbers
    red, green, blue = (_whole(0, 255, channel) for channel in rgb)
    size = _between(sizes, across) * width, _between(sizes, down) * height
    return _clipped(x * width, y * height, size, width, height, (red, green, blue))


def _cutout(numbers: Sequence[float], sizes: Range, width: int, height: int) -> Rectangle:
    x, y, side = numbers[:3]
    pixels = _between(sizes, side) * min(width, height)
    return _clipped(x * width, y * height, (pixels, pixels), width, height, _BLACK)


def _clipped(
    x: float, y: float, size: Range, width: int, height: int, rgb: tuple[int, int, int]
) -> Rectangle:
    """The rectangle of this size around (x, y), clipped to the picture; at least one pixel."""
    across, down = size[0] / 2, size[1] / 2
    return Rectangle(
        max(0, math.floor(x - across)),
        max(0, math.floor(y - down)),
        min(width, math.ceil(x + across)),
        min(height, math.ceil(y + down)),
        rgb,
    )
