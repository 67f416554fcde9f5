"""Encode keypoints as heatmaps, offset maps and coordinates, and decode them again.

Keypoints are (B, K, 3): x, y in continuous pixels of the square input of side ``size``, and
visibility. Pixel (i, j) of a heatmap (B, h, h, K) has its centre at (j + 0.5, i + 0.5) · size / h,
so that the mirror image of a heatmap is the heatmap of the mirror image.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from kpdata.train.ops.losses import Tensor, labelled

RADIUS = 0.0546875
"""Of UDP's discs, in units of the heatmap's side (Huang 2020)."""

_USUAL_SIGMA = 1.5
_BLUR_SIGMA = 1.0
_VOTE_SIGMA = 1.0
_HIGH = 0.6
_TIE = 0.01
_PEAK_TO_KEYPOINT = 0.5**0.5
"""Heatmap pixels: the furthest that a keypoint lies from the centre of its own pixel."""

_LEAST = 1e-10


def normalise(image: Tensor) -> Tensor:
    """Pixels 0 … 255 of any type → float32 in [-1, 1], what a model takes."""
    return ops.cast(image, "float32") / 127.5 - 1.0


def normalise_xy(keypoints: Tensor, size: int) -> Tensor:
    """(B, K, 3) keypoints → (B, K, 2) ``xy_norm``."""
    return ops.cast(keypoints[..., :2], "float32") / size


def heatmaps(keypoints: Tensor, size: int, heatmap_size: int, sigma: float) -> Tensor:
    """A Gaussian of height 1 around each keypoint's exact position, (B, h, h, K).

    It is empty for a keypoint that is not labelled, or that lies outside the input.

    Args:
        keypoints: (B, K, 3).
        size: the input's side.
        heatmap_size: h.
        sigma: of the Gaussian, in heatmap pixels.
    """
    along_x, along_y, present = _distances(keypoints, size, heatmap_size)
    across, down = (ops.exp(ops.square(d) / (-2 * sigma**2)) for d in (along_x, along_y))
    return (down * present)[:, :, None, :] * across[:, None, :, :]


def discs(keypoints: Tensor, size: int, heatmap_size: int) -> Tensor:
    """(B, h, h, K): 1 within UDP's radius of a keypoint, 0 elsewhere."""
    along_x, along_y, present = _distances(keypoints, size, heatmap_size)
    squares = ops.square(along_y)[:, :, None, :] + ops.square(along_x)[:, None, :, :]
    near = ops.cast(squares <= (RADIUS * heatmap_size) ** 2, "float32")
    return near * present[:, :, None, :]


def offsets(keypoints: Tensor, size: int, heatmap_size: int) -> Tensor:
    """UDP's offset maps (B, h, h, 2K): from a pixel to the keypoint, in units of the radius.

    The first K maps are x and the last K are y; outside :func:`discs` they are 0.
    """
    along_x, along_y, _ = _distances(keypoints, size, heatmap_size)
    near = discs(keypoints, size, heatmap_size)
    both = near * along_x[:, None, :, :], near * along_y[:, :, None, :]
    return ops.concatenate(both, axis=-1) / (RADIUS * heatmap_size)


def decode_argmax(maps: Tensor, size: int) -> Tensor:
    """(B, K, 3): the centre of each heatmap's highest pixel in input pixels, and its height."""
    return _decoded(maps, _peaks(_flat(maps), maps.shape[2]), size)


def decode_quadratic(maps: Tensor, size: int, blur_sigma: float = _BLUR_SIGMA) -> Tensor:
    """(B, K, 3): the tops of parabolas along x and y through the blurred heatmap's peak.

    Right to 0.05 heatmap pixels for Gaussians of sigma 1 or more; as :func:`decode_argmax`, to 0.5,
    within a heatmap pixel of the edge, where a parabola lacks its third point.

    Args:
        maps: (B, h, w, K).
        size: the input's side.
        blur_sigma: of the blur, in heatmap pixels; 0 for none.
    """
    return _refined(maps, size, blur_sigma, _parabolas)


def decode_dark(maps: Tensor, size: int, blur_sigma: float = _BLUR_SIGMA) -> Tensor:
    """(B, K, 3): as DARK (Zhang 2020), one Newton step on the logarithm of the blurred heatmap.

    Right to 0.025 heatmap pixels for Gaussians, up to the very edge. Arguments as
    :func:`decode_quadratic`'s.
    """
    return _refined(maps, size, blur_sigma, _newton)


def decode_udp(maps: Tensor, offset_maps: Tensor, size: int) -> Tensor:
    """(B, K, 3): the mean of the positions that the pixels around the peak vote for, by height.

    Offsets are trained only within a disc around the keypoint. So a pixel counts if it is so near
    the peak that it surely lies in the disc, and has at least 0.6 of the heatmap's maximum. UDP
    blurs heatmap and offsets and reads one pixel; a mean of positions is right up to the disc's
    edge.

    Args:
        maps: (B, h, w, K), trained on :func:`discs` or on :func:`heatmaps`.
        offset_maps: (B, h, w, 2K), as :func:`offsets`.
        size: the input's side.
    """
    height, width = maps.shape[1:3]
    heights = ops.maximum(ops.cast(maps, "float32"), _LEAST)
    is_high = heights >= _HIGH * ops.max(heights, (1, 2), keepdims=True)
    weights = ops.where(is_high, heights, 0.0)
    votes = _blur(weights, _VOTE_SIGMA)
    grids = _centres(width)[:, None], _centres(height)[:, None, None]

    def squares(peaks: tuple[Tensor, Tensor]) -> Tensor:
        """(B, h, w, K): of the distances from a pixel for each keypoint."""
        along = zip(grids, peaks, strict=True)
        return sum(ops.square(grid - peak[:, None, None, :]) for grid, peak in along)

    beside = squares(_peaks(_flat(votes), width)) <= 2  # the blur's hill leans away from edges
    peaks = _peaks(_flat(ops.where(beside, weights + _TIE * votes, 0.0)), width)
    sure = max(RADIUS * height - _PEAK_TO_KEYPOINT, 0.0)
    weights = ops.where(squares(peaks) <= sure**2 + _LEAST, weights, 0.0)
    votes = _blur(weights, _VOTE_SIGMA)
    positions = []
    for grid, offset in zip(grids, ops.split(offset_maps, 2, axis=-1), strict=True):
        voted = weights * (grid + RADIUS * height * ops.cast(offset, "float32"))
        mean = _blur(voted, _VOTE_SIGMA) / votes
        positions.append(_at(_flat(mean), _index(peaks, width)))
    return _decoded(maps, (positions[0], positions[1]), size)


DECODERS: dict[str, Callable[[dict[str, Tensor], int], Tensor]] = {
    "dark": lambda outputs, size: decode_dark(outputs["heatmap"], size),
    "udp": lambda outputs, size: decode_udp(outputs["heatmap"], outputs["offset"], size),
    "quadratic": lambda outputs, size: decode_quadratic(outputs["heatmap"], size),
    "argmax": lambda outputs, size: decode_argmax(outputs["heatmap"], size),
}
"""How keypoints (B, K, 3) are read from a network's outputs, by name; the usual one first."""


def peaks_of(logits: Tensor) -> Tensor:
    """Probabilities of the cells (B, h, w, K), so large that a Gaussian of sigma 1.5 peaks at 1.

    As scores they are then like those of a heatmap that was trained on Gaussians.
    """
    logits = ops.cast(logits, "float32")
    log_sum = ops.logsumexp(logits, axis=(1, 2), keepdims=True)
    return ops.exp(logits - log_sum) * (2 * math.pi * _USUAL_SIGMA**2)


def flip_back(outputs: dict[str, Tensor], flip_index: npt.NDArray[np.intp]) -> dict[str, Tensor]:
    """A network's outputs for the mirror image, as for the image itself: for the flip test.

    Args:
        outputs: by name: ``heatmap`` (B, h, w, K), ``offset`` (B, h, w, 2K), ``xy_norm`` (B, K, 2);
            all others are (B, K, ...) and only exchange keypoints.
        flip_index: (K,), the skeleton's.
    """
    return {name: _flip_output(name, value, flip_index) for name, value in outputs.items()}


def _flip_output(name: str, value: Tensor, flip_index: npt.NDArray[np.intp]) -> Tensor:
    if name in ("heatmap", "heatmap_logit"):
        return ops.flip(ops.take(value, flip_index, axis=-1), axis=2)
    if name == "offset":
        x, y = (_flip_output("heatmap", v, flip_index) for v in ops.split(value, 2, axis=-1))
        return ops.concatenate([-x, y], axis=-1)
    swapped = ops.take(value, flip_index, axis=1)
    if name == "xy_norm":
        return ops.stack([1 - swapped[..., 0], swapped[..., 1]], axis=-1)
    return swapped


def _distances(keypoints: Tensor, size: int, heatmap_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """From pixel centres to keypoints along x and y, (B, h, K), and which there are, (B, 1, K).

    An absent keypoint stands at 0, so that whatever its coordinates hold goes no further.
    """
    xy = ops.cast(keypoints[..., :2], "float32")
    inside = ops.all((xy >= 0) & (xy < size), axis=-1)
    present = inside & (labelled(keypoints) > 0)  # (B, K)
    positions = ops.where(present[..., None], xy, 0.0) * (heatmap_size / size)
    centres = _centres(heatmap_size)[:, None]
    along_x, along_y = (positions[:, None, :, axis] - centres for axis in (0, 1))
    return along_x, along_y, ops.cast(present, "float32")[:, None, :]


def _centres(side: int) -> npt.NDArray[np.float32]:
    return np.arange(side, dtype=np.float32) + np.float32(0.5)


def _flat(maps: Tensor) -> Tensor:
    """(B, h, w, K) → (B, h·w, K) float32."""
    _, height, width, count = maps.shape
    return ops.reshape(ops.cast(maps, "float32"), (-1, height * width, count))


def _peaks(flat: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Centres x, y (B, K) of the highest pixels, in heatmap pixels; of equals, the first.

    Spelled out, for ``ops.argmax`` makes operations that TFLite lacks. NaN gives the last pixel.
    """
    cells = np.arange(flat.shape[1], dtype=np.int32)[:, None]
    is_highest = flat == ops.max(flat, axis=1, keepdims=True)
    best = ops.min(ops.where(is_highest, cells, cells[-1]), axis=1)
    x, y = best % width, best // width
    return ops.cast(x, "float32") + 0.5, ops.cast(y, "float32") + 0.5


def _index(centres: tuple[Tensor, Tensor], width: int) -> Tensor:
    x, y = (ops.cast(ops.floor(c), "int32") for c in centres)
    return y * width + x


def _at(flat: Tensor, index: Tensor) -> Tensor:
    """(B, h·w, K) maps at (B, K) pixels → (B, K)."""
    return ops.take_along_axis(flat, index[:, None, :], axis=1)[:, 0]


def _decoded(maps: Tensor, positions: tuple[Tensor, Tensor], size: int) -> Tensor:
    x, y = positions
    height, width = maps.shape[1:3]
    score = ops.max(_flat(maps), axis=1)
    return ops.stack([x * (size / width), y * (size / height), score], axis=-1)


def _refined(
    maps: Tensor, size: int, blur_sigma: float, step: Callable[[Any], tuple[Tensor, Tensor]]
) -> Tensor:
    """Move each peak by the ``step`` computed from the 3 × 3 pixels around it, at most a pixel."""
    height, width = maps.shape[1:3]
    flat = _smoothed(maps, blur_sigma) if blur_sigma else _flat(maps)
    x, y = _peaks(flat, width)
    inner_x, inner_y = ops.clip(x, 1.5, width - 1.5), ops.clip(y, 1.5, height - 1.5)
    middle = _index((inner_x, inner_y), width)
    around = [[_at(flat, middle + i * width + j) for j in (-1, 0, 1)] for i in (-1, 0, 1)]
    step_x, step_y = step(around)
    positions = _near(x, inner_x + step_x, width), _near(y, inner_y + step_y, height)
    return _decoded(maps, positions, size)


def _near(peak: Tensor, position: Tensor, side: int) -> Tensor:
    """``position``, but no further from the peak than a pixel, and not beyond the edges."""
    return ops.clip(position, ops.maximum(peak - 1, 0.0), ops.minimum(peak + 1, float(side)))


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Blurred heatmaps, (B, h·w, K), but for those that peak within 3 sigma of the edge.

    What the edge cuts off is missing from the blur, which would pull such a peak by up to a pixel.
    """
    height, width = maps.shape[1:3]
    sharp = _flat(maps)
    x, y = _peaks(sharp, width)
    margin = ops.minimum(ops.minimum(x, width - x), ops.minimum(y, height - y))
    return ops.where(margin[:, None, :] > 3 * sigma, _flat(_blur(maps, sigma)), sharp)


def _parabolas(around: Any) -> tuple[Tensor, Tensor]:
    """Steps along x and y to the tops of two parabolas."""
    (_, up, _), (left, middle, right), (_, down, _) = around
    return _top(left, middle, right), _top(up, middle, down)


def _top(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """From the middle to the parabola's top, or to the higher neighbour where that is no top."""
    bend = 2 * middle - before - after
    top = (after - before) / (2 * ops.where(bend > 0, bend, 1.0))
    return ops.where(middle >= ops.maximum(before, after), top, ops.sign(after - before))


def _newton(around: Any) -> tuple[Tensor, Tensor]:
    """−H⁻¹ · g of the logarithm; 0 where the heatmap has no top nearby."""
    logs = [[ops.log(ops.maximum(value, _LEAST)) for value in row] for row in around]
    (a, up, b), (left, middle, right), (c, down, d) = logs
    g_x, g_y = (right - left) / 2, (down - up) / 2
    h_xx, h_yy = left - 2 * middle + right, up - 2 * middle + down
    h_xy = (a - b - c + d) / 4
    determinant = h_xx * h_yy - h_xy * h_xy
    is_top = (h_xx < 0) & (determinant > _LEAST)
    divisor = ops.where(is_top, determinant, 1.0)
    steps = (h_xy * g_y - h_yy * g_x) / divisor, (h_xy * g_x - h_xx * g_y) / divisor
    return ops.where(is_top, steps[0], 0.0), ops.where(is_top, steps[1], 0.0)


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, h, w, K), as two small matrix products."""
    _, height, width, _ = maps.shape
    down, across = _blur_matrix(height, sigma), _blur_matrix(width, sigma)
    return ops.einsum("ij,bjwk,xw->bixk", down, ops.cast(maps, "float32"), across)


@cache
def _blur_matrix(side: int, sigma: float) -> npt.NDArray[np.float32]:
    """(side, side) whose product blurs; each pixel is a mean of those within the edges."""
    apart = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(apart**2 / (-2 * sigma**2))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
