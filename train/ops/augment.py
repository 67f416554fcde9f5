"""Augmentation inside the compiled step: sampled on the host, applied on the device.

Parameters are sampled by :func:`kpdata.core.augment.sample_params` in the frame of the input: the
trainer's changes mean what a copy's do (core/augment.py names them all). A batch's parameters are a
dict of small float32 arrays; what it lacks is not done, and costs nothing:

    affine      (B, 2, 3)   crop → input, mirrored where the crop is flipped
    colour      (B, 3, 4)   affine in RGB 0 … 255
    rectangles  (B, R, 4)   x0, y0, x1, y1 in input pixels, painted in their order; empty ones pad
    rgb         (B, R, 3)   their colours, 0 … 255
    blur        (B, 2r + 1) weights of the pixels from r before to r after; only if the
                            configuration blurs, as it costs more than all the rest
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from keras import ops

from kpdata.core import transform
from kpdata.core.augment import AugmentConfig, CopyParams, params_affine, sample_params
from kpdata.core.transform import Affine
from kpdata.images.photometric import colour_matrix
from kpdata.train.ops.losses import Tensor, labelled
from kpdata.train.ops.targets import normalise

BatchParams = dict[str, npt.NDArray[np.float32]]


def only_crops(crops: Sequence[Affine]) -> BatchParams:
    """Parameters without augmentation: each crop is only resampled by its affine.

    Args:
        crops: B affines (2, 3), crop → input;
            :func:`kpdata.core.transform.resize_affine` shows the whole crop.
    """
    return {"affine": np.stack(crops).astype(np.float32)}


def reach(config: AugmentConfig) -> float:
    """How far beyond a crop its changes can look, in sides of the crop."""
    turn = math.radians(min(45, max(map(abs, config.rotate))))
    widest = (0.5 + config.shift) * (math.cos(turn) + math.sin(turn)) / config.scale[0]
    return max(0.0, widest - 0.5)


def sample_batch(
    config: AugmentConfig,
    seed: int,
    epoch: int,
    indices: Sequence[int],
    crops: Sequence[Affine],
    size: int,
) -> BatchParams:
    """Sample a batch's parameters, which follow from seed, epoch and each sample's index alone.

    Args:
        config: the ranges; ``jpeg_quality`` has no meaning here.
        seed, epoch: not negative.
        indices: B positions in the split, not negative.
        crops: B affines (2, 3), crop → input, as without augmentation.
        size: of the input, pixels.
    """
    sampled = [
        sample_params(config, np.random.default_rng([seed, epoch, int(index)]), size, size)
        for index in indices
    ]
    affines = [
        transform.compose(params_affine(one, size, size), crop)
        for one, crop in zip(sampled, crops, strict=True)
    ]
    colours = [colour_matrix(d.brightness, d.contrast, d.saturation, d.hue) for d in sampled]
    arrays = {"affine": np.stack(affines), "colour": np.stack(colours)}
    count = config.rectangles + (config.cutout > 0)
    if count:
        arrays["rectangles"], arrays["rgb"] = _rectangles(sampled, count)
    if config.blur > 0:
        radius = math.ceil(3 * config.blur_sigma[1])
        arrays["blur"] = np.stack([_kernel(one.blur_sigma, radius) for one in sampled])
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def apply(
    image: Tensor,
    keypoints: Tensor,
    params: dict[str, Tensor],
    size: int,
    flip_index: npt.NDArray[np.intp],
) -> tuple[Tensor, Tensor]:
    """Augment crops and labels for the model. Pixels are resampled once.

    Args:
        image: (B, H, W, 3) RGB, uint8.
        keypoints: (B, K, 3) in the crops' pixels.
        params: as :func:`sample_batch` or :func:`only_crops` gives them.
        size: S.
        flip_index: (K,), the skeleton's.

    Returns:
        (B, S, S, 3) float32 in [-1, 1]; (B, K, 3) float32, (0, 0, 0) where it is not labelled or
        has left the frame, v = 1 under a rectangle.
    """
    pixels = warp(image, params["affine"], size)
    if "rectangles" in params:
        pixels = cover(pixels, params["rectangles"], params["rgb"])
    if "colour" in params:
        pixels = recolour(pixels, params["colour"])
    if "blur" in params:
        pixels = blur(pixels, params["blur"])
    moved = move(keypoints, params["affine"], size, flip_index)
    if "rectangles" in params:
        moved = occlude(moved, params["rectangles"])
    return normalise(pixels), moved


def warp(image: Tensor, affine: Tensor, size: int) -> Tensor:
    """Resample (B, H, W, 3) bilinearly into (B, S, S, 3) float32, black beyond the edges.

    Gathers, rather than Keras's ``affine_transform``: that one runs at the crop's size only and
    not under XLA, which makes this five times as fast.
    """
    height, width = image.shape[1:3]
    framed = ops.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    left, fraction_x, top, fraction_y = _sources(affine, size, width, height)
    stride = width + 2
    first = ops.arange(ops.shape(image)[0], dtype="int32")[:, None, None] * (stride * (height + 2))
    index = first + (top + 1) * stride + left + 1  # (B, S, S)
    table = ops.reshape(framed, (-1, 3))
    corners = (index, index + 1, index + stride, index + stride + 1)
    a, b, c, d = (ops.cast(ops.take(table, corner, axis=0), "float32") for corner in corners)
    upper, lower = a + (b - a) * fraction_x, c + (d - c) * fraction_x
    return upper + (lower - upper) * fraction_y


def cover(pixels: Tensor, rectangles: Tensor, rgb: Tensor) -> Tensor:
    """Paint rectangles (B, R, 4) in colours (B, R, 3) on (B, S, S, 3), in their order."""
    centres = np.arange(pixels.shape[1], dtype=np.float32) + np.float32(0.5)
    in_x = (rectangles[..., :1] <= centres) & (centres < rectangles[..., 2:3])  # (B, R, S)
    in_y = (rectangles[..., 1:2] <= centres) & (centres < rectangles[..., 3:4])
    for number in range(rectangles.shape[1]):
        inside = in_y[:, number, :, None, None] & in_x[:, number, None, :, None]
        pixels = ops.where(inside, rgb[:, number, None, None, :], pixels)
    return pixels


def recolour(pixels: Tensor, matrix: Tensor) -> Tensor:
    """(B, S, S, 3) through colour matrices (B, 3, 4), saturated at 0 and 255."""
    mixed = matrix[:, None, None, :, 3]
    for channel in range(3):
        mixed = mixed + pixels[..., channel : channel + 1] * matrix[:, None, None, :, channel]
    return ops.clip(mixed, 0.0, 255.0)


def blur(pixels: Tensor, kernels: Tensor) -> Tensor:
    """Blur each of (B, S, S, 3) along both axes by its own kernel (B, 2r + 1), mirrored beyond."""
    size, taps = pixels.shape[1], kernels.shape[1]
    ends = (taps // 2, taps // 2)
    rows = ops.pad(pixels, ((0, 0), ends, (0, 0), (0, 0)), "reflect")
    weights = [kernels[:, tap, None, None, None] for tap in range(taps)]
    pixels = sum(rows[:, tap : tap + size] * weight for tap, weight in enumerate(weights))
    columns = ops.pad(pixels, ((0, 0), (0, 0), ends, (0, 0)), "reflect")
    return sum(columns[:, :, tap : tap + size] * weight for tap, weight in enumerate(weights))


def move(keypoints: Tensor, affine: Tensor, size: int, flip_index: npt.NDArray[np.intp]) -> Tensor:
    """(B, K, 3) through affines (B, 2, 3): as :func:`kpdata.core.transform.move_instance` does."""
    keypoints = ops.cast(keypoints, "float32")
    mirrors = affine[:, 0, 0] * affine[:, 1, 1] < affine[:, 0, 1] * affine[:, 1, 0]
    swapped = ops.take(keypoints, flip_index, axis=1)
    keypoints = ops.where(mirrors[:, None, None], swapped, keypoints)
    x, y = keypoints[..., 0], keypoints[..., 1]
    matrix = affine[:, None]  # (B, 1, 2, 3)
    moved_x, moved_y = (
        matrix[..., row, 0] * x + matrix[..., row, 1] * y + matrix[..., row, 2] for row in (0, 1)
    )
    inside = (moved_x >= 0) & (moved_y >= 0) & (moved_x < size) & (moved_y < size)
    kept = inside & (labelled(keypoints) > 0)
    moved = ops.stack([moved_x, moved_y, keypoints[..., 2]], axis=-1)
    return ops.where(kept[..., None], moved, 0.0)


def occlude(keypoints: Tensor, rectangles: Tensor) -> Tensor:
    """(B, K, 3) with v = 1 for those visible before that lie under one of (B, R, 4)."""
    x, y, visibility = keypoints[..., :1], keypoints[..., 1:2], keypoints[..., 2]
    x0, y0, x1, y1 = (rectangles[:, None, :, side] for side in range(4))  # (B, 1, R)
    covered = ops.any((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1), axis=-1)  # (B, K)
    hidden = ops.where(covered, ops.minimum(visibility, 1.0), visibility)
    return ops.concatenate([x, y, hidden[..., None]], axis=-1)


def _sources(affine: Tensor, size: int, width: int, height: int) -> tuple[Tensor, ...]:
    """Where the input's pixels come from.

    Returns:
        The column of the upper left of four pixels (B, S, S) int32, how far past its centre
        (B, S, S, 1) float32; the same for the row. One pixel beyond an edge is black.
    """
    a, b, shift_x = (affine[:, 0, column, None, None] for column in range(3))
    c, d, shift_y = (affine[:, 1, column, None, None] for column in range(3))
    determinant = a * d - b * c
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x, y = centres - shift_x, centres[:, None] - shift_y  # (B, 1, S), (B, S, 1)
    positions = (d * x - b * y) / determinant, (a * y - c * x) / determinant
    found: list[Tensor] = []
    for position, side in zip(positions, (width, height), strict=True):
        index = ops.clip(position - 0.5, -1.0, side)
        whole = ops.minimum(ops.floor(index), side - 1.0)
        found += [ops.cast(whole, "int32"), (index - whole)[..., None]]
    return tuple(found)


def _rectangles(
    sampled: Sequence[CopyParams], count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    boxes, rgb = np.zeros((len(sampled), count, 4)), np.zeros((len(sampled), count, 3))
    for number, one in enumerate(sampled):
        for position, rectangle in enumerate(one.rectangles):
            boxes[number, position], rgb[number, position] = rectangle[:4], rectangle.rgb
    return boxes, rgb


def _kernel(sigma: float, radius: int) -> npt.NDArray[np.float64]:
    """(2 · radius + 1,) Gaussian weights that sum to 1; sigma 0 leaves a crop as it is."""
    apart = np.arange(-radius, radius + 1)
    weights = np.exp(apart**2 / (-2 * sigma**2)) if sigma else np.equal(apart, 0).astype(np.float64)
    return weights / weights.sum()
