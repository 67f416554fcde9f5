"""Coordinates from any Keras Applications backbone, ImageNet weights or none, and three heads."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers

from kpdata.core.errors import KpdataError, first_line
from kpdata.train.models.layers import (
    BATCH_NORM_MEMORY,
    ChannelAffine,
    SpatialExpectation,
    SpatialSoftmax,
)
from kpdata.train.models.regression import BACKBONES, FAMILIES, check_file, check_names

# The pixels a family was trained on, from [-1, 1]: its own preprocess_input after (x + 1) * 127.5.
_IMAGENET_BGR = (103.939, 116.779, 123.68)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PIXELS: dict[str, dict[str, Any]] = {
    "unit": {"scale": (1.0,) * 3, "offset": (0.0,) * 3},
    "bytes": {"scale": (127.5,) * 3, "offset": (127.5,) * 3},
    "bgr": {
        "scale": (127.5,) * 3,
        "offset": tuple(127.5 - mean for mean in _IMAGENET_BGR),
        "bgr": True,
    },
    "standard": {
        "scale": tuple(0.5 / std for std in _IMAGENET_STD),
        "offset": tuple(
            (0.5 - mean) / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)
        ),
    },
}


def regression(
    num_keypoints: int,
    input_size: int = 256,
    backbone: str = "mobilenet_v2",
    weights: str = "none",
    head: str = "dense",
    dropout: float = 0.2,
) -> keras.Model:
    """A regression model for crops (B, S, S, 3) in [-1, 1]; its outputs are float32.

    ``xy_norm`` (B, K, 2), not clipped; ``visibility`` (B, K), logits. Head ``dense``: global
    average, dropout, dense. Head ``rle``: the same, and ``sigma`` (B, K, 2) in (0, 1), in parts of
    the crop's side. Head ``softargmax`` (DSNT, arXiv 1801.07372): ``heatmap`` (B, h, w, K),
    probabilities on a grid of about S/8, whose expected position is ``xy_norm``.

    Args:
        num_keypoints: K.
        input_size: S.
        backbone: a name in BACKBONES or FAMILIES; what it wants of its pixels is done inside.
        weights: ``none``, ``imagenet``, or the path of a file of weights without the top:
            ``.weights.h5``, or ``.h5`` as Keras distributes them.
        head: a name in HEAD_NAMES.
        dropout: of the features before the dense layers.

    Raises:
        KpdataError: an unknown name, an input too small for the backbone, or weights that are not
            there or do not fit.
    """
    check_names(backbone, weights, head)
    backbone = FAMILIES.get(backbone, backbone)
    image = keras.Input((input_size, input_size, 3), name="image")
    pixels = ChannelAffine(**_PIXELS[BACKBONES[backbone][1]], name="pixels", dtype="float32")
    features = _backbone(backbone, input_size, weights)(pixels(image))
    pooled = layers.GlobalAveragePooling2D(name="average", dtype="float32")(features)
    pooled = layers.Dropout(dropout, name="dropout", dtype="float32")(pooled)
    outputs = HEADS[head](features, pooled, input_size, num_keypoints)
    outputs["visibility"] = _dense(pooled, num_keypoints, "visibility")
    return keras.Model(image, outputs, name=f"regression_{backbone}_{head}")


def backbone_of(model: keras.Model) -> keras.Model:
    """The backbone inside a regression model.

    ``backbone_of(model).trainable = False`` freezes it, batch statistics included; its ``.layers``
    can be thawed one by one. Compile the model afterwards.

    Raises:
        KpdataError: the model has none.
    """
    inside = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(inside) != 1:
        raise KpdataError(f"model {model.name!r} has no backbone; only a regression model has")
    return inside[0]


def _backbone(name: str, input_size: int, weights: str) -> keras.Model:
    build = getattr(keras.applications, BACKBONES[name][0])
    options = {"include_top": False, "input_shape": (input_size, input_size, 3)}
    if weights == "imagenet":
        return _from_imagenet(build, name, options)
    try:
        model = build(weights=None, **options)
    except ValueError as error:
        raise KpdataError(f"{name} at input size {input_size}: {error}") from error
    if weights != "none":
        load_backbone(model, name, Path(weights))
    return _quick_to_forget(model)


def _from_imagenet(build: Callable[..., keras.Model], name: str, options: Any) -> keras.Model:
    try:
        return _quick_to_forget(build(weights="imagenet", **options))
    except Exception as error:  # Keras raises a plain Exception where a download fails
        raise KpdataError(
            f"no ImageNet weights for {name}: {first_line(error)}. Without internet access, "
            "download that file (the one without the top) elsewhere and give its path as `weights`"
        ) from error


def _quick_to_forget(model: keras.Model) -> keras.Model:
    """Make the model's batch statistics follow a short run; return it."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MEMORY
    return model


def load_backbone(model: keras.Model, name: str, path: Path) -> None:
    """Load weights into a backbone: arrays by position; nothing in the file is ever executed.

    Raises:
        KpdataError: no such file, not HDF5, or it does not fit; the message names the layer.
    """
    check_file(path)
    for variable in model.variables:  # what is still NaN afterwards, the file does not hold
        variable.assign(keras.ops.full_like(variable, math.nan))
    try:
        model.load_weights(path)
        missing = [v.path for v in model.variables if keras.ops.any(keras.ops.isnan(v))]
        if missing:
            raise ValueError(f"{len(missing)} weights are missing or NaN, first {missing[0]}")
    except (ValueError, KeyError, OSError) as error:
        raise KpdataError(
            f"weights {path} do not fit {name} without its top: {first_line(error)}. "
            "Give the file of the same backbone, 'notop'"
        ) from error


def _dense_head(features: Any, pooled: Any, input_size: int, count: int) -> dict[str, Any]:
    middle = keras.initializers.Constant(0.5)
    flat = _dense(pooled, 2 * count, "coordinates", bias_initializer=middle)
    return {"xy_norm": layers.Reshape((count, 2), name="xy_norm", dtype="float32")(flat)}


def _rle_head(features: Any, pooled: Any, input_size: int, count: int) -> dict[str, Any]:
    flat = _dense(pooled, 2 * count, "spread", activation="sigmoid")
    sigma = layers.Reshape((count, 2), name="sigma", dtype="float32")(flat)
    return {**_dense_head(features, pooled, input_size, count), "sigma": sigma}


def _softargmax_head(features: Any, pooled: Any, input_size: int, count: int) -> dict[str, Any]:
    """Maps at about S/8: where the backbone is coarser, doubled as often as it takes."""
    x = features
    doublings = round(math.log2(input_size / (8 * features.shape[1])))
    for number in range(1, doublings + 1):
        x = layers.UpSampling2D(interpolation="bilinear", name=f"up_{number}")(x)
        conv = layers.SeparableConv2D(256, 3, padding="same", use_bias=False, name=f"mix_{number}")
        norm = layers.BatchNormalization(momentum=BATCH_NORM_MEMORY, name=f"mix_{number}_norm")
        x = norm(conv(x))
        x = layers.ReLU(name=f"mix_{number}_relu")(x)
    logits = layers.Conv2D(count, 1, name="heatmap_logit", dtype="float32")(x)
    heatmap = SpatialSoftmax(name="heatmap", dtype="float32")(logits)
    return {
        "heatmap": heatmap,
        "xy_norm": SpatialExpectation(name="xy_norm", dtype="float32")(heatmap),
    }


def _dense(x: Any, units: int, name: str, **options: Any) -> Any:
    small = keras.initializers.RandomNormal(stddev=0.001)
    return layers.Dense(units, kernel_initializer=small, name=name, dtype="float32", **options)(x)


HEADS: dict[str, Callable[[Any, Any, int, int], dict[str, Any]]] = {
    "dense": _dense_head,
    "softargmax": _softargmax_head,
    "rle": _rle_head,
}
