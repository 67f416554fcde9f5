"""Losses: pure functions of arrays that return one float32 number.

Each takes ``weights`` (B, K), made by :func:`labelled` and nowhere else. Where a weight is 0,
neither the target nor the prediction is read: whatever stands there, the loss is the same and its
gradient is exactly 0. Coordinates are ``xy_norm``, in units of the input's side.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kpdata.core.sample import NOT_LABELLED, VISIBLE

Tensor = Any
"""An array of the backend, or of NumPy."""

_TINY = 1e-12
_LEAST_SIGMA = 1e-3
_FLOW_REACH = 10.0


def labelled(keypoints: Tensor, importance: Tensor | None = None) -> Tensor:
    """(B, K) weight of each keypoint: 0 where it is not labelled.

    Args:
        keypoints: (B, K, 3).
        importance: (K,) factors, to weight some keypoints more than others; 1 without.
    """
    counted = ops.cast(keypoints[..., 2] > NOT_LABELLED, "float32")
    return counted if importance is None else counted * ops.cast(importance, "float32")


def mse(true: Tensor, predicted: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of coordinates.

    Args:
        true, predicted: (B, K, 2).
        weights: (B, K); with ``labelled(keypoints, importance)`` it is the weighted MSE.
    """
    return _mean_error(ops.square, true, predicted, weights)


def l1(true: Tensor, predicted: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute error of coordinates (B, K, 2)."""
    return _mean_error(ops.abs, true, predicted, weights)


def smooth_l1(true: Tensor, predicted: Tensor, weights: Tensor, beta: float = 1 / 64) -> Tensor:
    """Quadratic below ``beta`` and as L1 above, less beta / 2 (Girshick 2015), on (B, K, 2)."""

    def error(difference: Tensor) -> Tensor:
        size = ops.abs(difference)
        near = ops.minimum(size, beta)
        return near * (near / (2 * beta)) + (size - near)

    return _mean_error(error, true, predicted, weights)


def wing(
    true: Tensor,
    predicted: Tensor,
    weights: Tensor,
    width: float = 10 / 256,
    curvature: float = 2 / 256,
) -> Tensor:
    """Wing loss (Feng 2018): logarithmic below ``width``, linear above, on (B, K, 2)."""

    def error(difference: Tensor) -> Tensor:
        size = ops.abs(difference)
        near = ops.minimum(size, width)
        return width * ops.log1p(near / curvature) + (size - near)

    return _mean_error(error, true, predicted, weights)


COORDINATE_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l1": l1,
    "smooth_l1": smooth_l1,
    "wing": wing,
}
"""The losses that need nothing but (true, predicted, weights)."""


def heatmap_mse(true: Tensor, predicted: Tensor, weights: Tensor) -> Tensor:
    """Squared error of heatmaps (B, h, w, K) over the squares of their targets.

    Both are summed over the pixels of each keypoint, then averaged over the keypoints by their
    weights. Empty predictions score 1 whatever the heatmap's size and sigma.
    """
    errors = ops.sum(ops.square(_differences(true, predicted, weights[:, None, None, :])), (1, 2))
    energies = ops.sum(ops.square(ops.cast(true, "float32")), (1, 2))  # (B, K)
    return _ratio(ops.sum(errors * weights), ops.sum(_where(weights, energies) * weights))


def spatial_cross_entropy(true: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy, in nats, of the softmax over all cells with where the keypoint is.

    The target's own entropy is taken off, so that a perfect prediction costs nothing. A keypoint
    whose target is empty, as it lies outside the input, does not count.

    Args:
        true: (B, h, w, K), not negative; each map is scaled to sum to 1.
        logits: (B, h, w, K).
        weights: (B, K).
    """
    true, masses = ops.cast(true, "float32"), ops.sum(ops.cast(true, "float32"), (1, 2))  # (B, K)
    counted = weights * ops.cast(masses > _TINY, "float32")
    target = true / ops.maximum(masses, _TINY)[:, None, None, :]
    found = _where(counted[:, None, None, :], ops.cast(logits, "float32"))
    found = found - ops.logsumexp(found, axis=(1, 2), keepdims=True)
    return _mean(ops.sum(target * (ops.log(target + _TINY) - found), (1, 2)), counted)


def heatmap_divergence(true: Tensor, predicted: Tensor, weights: Tensor) -> Tensor:
    """Jensen–Shannon divergence, in nats, of heatmaps read as probabilities (DSNT, Nibali 2018).

    A keypoint whose target is empty, as it lies outside the input, does not count.

    Args:
        true: (B, h, w, K), not negative; each map is scaled to sum to 1.
        predicted: (B, h, w, K), each map sums to 1.
        weights: (B, K).
    """
    true, masses = ops.cast(true, "float32"), ops.sum(ops.cast(true, "float32"), (1, 2))  # (B, K)
    counted = weights * ops.cast(masses > _TINY, "float32")
    target = true / ops.maximum(masses, _TINY)[:, None, None, :]
    found = ops.maximum(_where(counted[:, None, None, :], predicted), 0.0)
    middle = (target + found) / 2
    both = (ops.sum(p * ops.log((p + _TINY) / (middle + _TINY)), (1, 2)) for p in (target, found))
    return _mean(sum(both) / 2, counted)


def offset_l1(true: Tensor, predicted: Tensor, discs: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute error of offset maps inside their discs.

    Args:
        true, predicted: (B, h, w, 2K), as :func:`kpdata.train.ops.targets.offsets` gives them.
        discs: (B, h, w, K), 1 where an offset means something.
        weights: (B, K).
    """
    inside = discs * weights[:, None, None, :]  # (B, h, w, K)
    both = ops.concatenate([inside, inside], axis=-1)
    return _ratio(ops.sum(ops.abs(_differences(true, predicted, both)) * both), ops.sum(both))


def visibility_bce(keypoints: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of visible (v = 2) against occluded (v = 1).

    Args:
        keypoints: (B, K, 3).
        logits: (B, K), positive for visible.
        weights: (B, K).
    """
    logit = _where(weights, logits)
    visible = ops.cast(ops.equal(keypoints[..., 2], VISIBLE), "float32")
    costs = ops.relu(logit) - logit * visible + ops.log1p(ops.exp(-ops.abs(logit)))
    return _mean(costs, weights)


def limb_length(
    true: Tensor, predicted: Tensor, weights: Tensor, edge_index: npt.NDArray[np.intp]
) -> Tensor:
    """Mean absolute error of the limbs' lengths, over the limbs with both ends labelled.

    Args:
        true, predicted: (B, K, 2).
        weights: (B, K); a limb counts as the product of its ends.
        edge_index: (E, 2), the skeleton's.
    """
    mask = weights[..., None] > 0
    start, end = edge_index.T
    lengths = []
    for xy in (true, predicted):
        xy = ops.where(mask, ops.cast(xy, "float32"), 0.0)
        squares = ops.square(ops.take(xy, end, axis=1) - ops.take(xy, start, axis=1))
        lengths.append(ops.sqrt(ops.sum(squares, -1) + _TINY))  # (B, E)
    both = ops.take(weights, start, axis=1) * ops.take(weights, end, axis=1)
    return _mean(ops.abs(lengths[0] - lengths[1]), both)


@keras.saving.register_keras_serializable(package="kpdata")
class Flow(keras.layers.Layer):
    """RealNVP (Dinh 2017) on (N, 2): the density of residuals that :func:`rle` learns.

    It starts as the standard normal distribution.

    Args:
        couplings: how many times each of x and y is changed by the other.
        width: of the two hidden layers of each coupling.
    """

    def __init__(self, couplings: int = 3, width: int = 64, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.couplings, self.width = couplings, width
        self.changes = [_coupling(width) for _ in range(2 * couplings)]

    def build(self, input_shape: Any) -> None:
        """Build the couplings, each of which reads one coordinate."""
        for change in self.changes:
            change.build((None, 1))

    def call(self, inputs: Tensor) -> Tensor:
        """(N, 2) residuals → (N,) logarithms of their density."""
        kept, changed = inputs[:, :1], inputs[:, 1:]
        log_determinant = 0.0
        for change in self.changes:
            scale, shift = ops.split(change(kept), 2, axis=-1)
            scale = ops.tanh(scale)
            kept, changed = (changed - shift) * ops.exp(-scale), kept
            log_determinant = log_determinant - scale[:, 0]
        squares = ops.square(kept[:, 0]) + ops.square(changed[:, 0])
        return log_determinant - squares / 2 - math.log(2 * math.pi)

    def get_config(self) -> dict[str, Any]:
        """What ``__init__`` takes."""
        return {**super().get_config(), "couplings": self.couplings, "width": self.width}


def rle(true: Tensor, predicted: Tensor, sigma: Tensor, weights: Tensor, flow: Flow) -> Tensor:
    """Residual log-likelihood (Li 2021) of (predicted − true) / sigma, by Laplace and by ``flow``.

    Sigma counts as 0.001 at least, and the flow is given no residual beyond ±10 sigma, where
    Laplace alone pulls: a wrong label costs no more than with L1 and cannot blow the flow up.

    Args:
        true, predicted: (B, K, 2).
        sigma: (B, K, 2) in [0, 1], in units of the input's side.
        weights: (B, K).
        flow: trained beside the network.
    """
    scale = _LEAST_SIGMA + (1 - _LEAST_SIGMA) * _where(weights[..., None], sigma)
    residuals = _differences(true, predicted, weights[..., None]) / scale  # (B, K, 2)
    clipped = ops.clip(residuals, -_FLOW_REACH, _FLOW_REACH)
    density = ops.reshape(flow(ops.reshape(clipped, (-1, 2))), ops.shape(weights))
    costs = ops.sum(ops.abs(residuals) + math.log(2) + 2 * ops.log(scale), -1) - density
    return _mean(costs, weights)


def _coupling(width: int) -> keras.Sequential:
    hidden = [keras.layers.Dense(width, "leaky_relu", dtype="float32") for _ in range(2)]
    identity = keras.layers.Dense(2, kernel_initializer="zeros", dtype="float32")
    return keras.Sequential([*hidden, identity])


def _where(weights: Tensor, values: Tensor) -> Tensor:
    """``values`` as float32, 0 where the weight is."""
    return ops.where(weights > 0, ops.cast(values, "float32"), 0.0)


def _differences(true: Tensor, predicted: Tensor, weights: Tensor) -> Tensor:
    return _where(weights, predicted) - _where(weights, true)


def _mean_error(
    error: Callable[[Tensor], Tensor], true: Tensor, predicted: Tensor, weights: Tensor
) -> Tensor:
    errors = error(_differences(true, predicted, weights[..., None]))  # (B, K, 2)
    return _mean(ops.mean(errors, -1), weights)


def _mean(costs: Tensor, weights: Tensor) -> Tensor:
    """Mean of (…) costs by their weights; 0 where nothing has weight."""
    return _ratio(ops.sum(costs * weights), ops.sum(weights))


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    return total / ops.where(count > 0, count, 1.0)
