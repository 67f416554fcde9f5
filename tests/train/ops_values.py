"""Run in a process of its own, whose KERAS_BACKEND it tests: saves what the functions give.

Targets, losses, their gradients, and the augmentation of fixed inputs go into the .npz file named
by the first argument.
"""

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kpdata.core import transform
from kpdata.core.augment import AugmentConfig
from kpdata.core.skeletons import LSP14
from kpdata.train.models.layers import SpatialExpectation, SpatialSoftmax
from kpdata.train.ops import augment, losses, targets

B, K, SIZE, SIDE = 3, 14, 64, 16
RNG = np.random.default_rng(0)
VISIBILITY = RNG.integers(0, 3, (B, K, 1))
KEYPOINTS = np.concatenate([RNG.uniform(1, 63, (B, K, 2)), VISIBILITY], -1).astype(np.float32)
IMAGE = RNG.integers(0, 256, (B, 48, 80, 3), np.uint8)


def random(*shape: int) -> np.ndarray:
    return RNG.uniform(0.05, 0.95, (B, *shape)).astype(np.float32)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under XLA: what a GPU runs, and much faster than one operation at a time."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def gradients(function: Callable[[Any], Any], inputs: dict[str, Any]) -> dict[str, Any]:
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(inputs)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(inputs)
    return tape.gradient(value, inputs)


def targets_and_decoders(keypoints: Any) -> dict[str, Any]:
    maps = targets.heatmaps(keypoints, SIZE, SIDE, 1.5)
    ways = targets.offsets(keypoints, SIZE, SIDE)
    decoded = {
        "argmax": targets.decode_argmax(maps, SIZE),
        "quadratic": targets.decode_quadratic(maps, SIZE),
        "dark": targets.decode_dark(maps, SIZE),
        "udp": targets.decode_udp(maps, ways, SIZE),
    }
    flipped = {"heatmap": maps, "offset": ways, "xy_norm": keypoints[..., :2]}
    flipped = targets.flip_back(flipped, LSP14.flip_index)
    seen = losses.labelled(keypoints)[..., None]  # an empty heatmap has its peak anywhere
    return {
        "heatmaps": maps,
        "offsets": ways,
        "soft_argmax": SpatialExpectation()(SpatialSoftmax()(10 * maps)),
        **{name: value * seen for name, value in decoded.items()},
        **{f"flip_{name}": value for name, value in flipped.items()},
    }


FLOW = losses.Flow(2, 8)
PREDICTIONS = {
    **{name: random(K, 2) for name in (*losses.COORDINATE_LOSSES, "rle", "sigma", "limb_length")},
    "bce": random(K),
    "heatmap_mse": random(SIDE, SIDE, K),
    "heatmap_divergence": np.abs(random(SIDE, SIDE, K)) / SIDE**2,
    "spatial_cross_entropy": random(SIDE, SIDE, K),
    "offset_l1": random(SIDE, SIDE, 2 * K),
}


def all_losses(p: dict[str, Any]) -> dict[str, Any]:
    """The losses by name, of one prediction each but for RLE's two."""
    true, weights = KEYPOINTS[..., :2] / SIZE, losses.labelled(KEYPOINTS)
    maps = targets.heatmaps(KEYPOINTS, SIZE, SIDE, 1.5)
    ways = targets.offsets(KEYPOINTS, SIZE, SIDE)
    near = targets.discs(KEYPOINTS, SIZE, SIDE)
    found = {name: loss(true, p[name], weights) for name, loss in losses.COORDINATE_LOSSES.items()}
    return found | {
        "rle": losses.rle(true, p["rle"], p["sigma"], weights, FLOW),
        "limb_length": losses.limb_length(true, p["limb_length"], weights, LSP14.edge_index),
        "bce": losses.visibility_bce(KEYPOINTS, p["bce"], weights),
        "heatmap_mse": losses.heatmap_mse(maps, p["heatmap_mse"], weights),
        "heatmap_divergence": losses.heatmap_divergence(maps, p["heatmap_divergence"], weights),
        "spatial_cross_entropy": losses.spatial_cross_entropy(
            maps, p["spatial_cross_entropy"], weights
        ),
        "offset_l1": losses.offset_l1(ways, p["offset_l1"], near, weights),
    }


def losses_and_gradients(predictions: dict[str, Any]) -> dict[str, Any]:
    slopes = gradients(lambda p: sum(all_losses(p).values()), predictions)
    return {f"loss_{name}": value for name, value in all_losses(predictions).items()} | {
        f"gradient_{name}": value for name, value in slopes.items()
    }


def augmented(image: Any, keypoints: Any, params: Any) -> dict[str, Any]:
    seen, moved = augment.apply(image, keypoints, params, SIZE, LSP14.flip_index)
    return {"augmented_image": seen, "augmented_keypoints": moved}


if __name__ == "__main__":
    FLOW.build((None, 2))
    FLOW.set_weights([0.4 * RNG.standard_normal(w.shape) for w in FLOW.get_weights()])
    crops = [transform.resize_affine(80, 48, SIZE)] * B
    params = augment.sample_batch(AugmentConfig(blur=0.5), 0, 0, range(B), crops, SIZE)
    values = {
        **compiled(targets_and_decoders)(keras.ops.convert_to_tensor(KEYPOINTS)),
        **compiled(losses_and_gradients)(
            {name: keras.ops.convert_to_tensor(p) for name, p in PREDICTIONS.items()}
        ),
        **compiled(augmented)(IMAGE, KEYPOINTS, params),
    }
    as_numpy = {name: keras.ops.convert_to_numpy(value) for name, value in values.items()}
    np.savez(sys.argv[1], backend=keras.backend.backend(), **as_numpy)
