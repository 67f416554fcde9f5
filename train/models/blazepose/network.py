"""BlazePose (arXiv 2006.10204): heatmaps teach the features, a regression encoder reads them.

An encoder halves the input five times; a light decoder adds the stages up again to a quarter of
the input's side, where 1×1 convolutions give heatmaps and offsets. A second encoder takes the
decoder's features and, as skips, those of the first encoder's stages, all with stopped gradients:
coordinates never disturb what the heatmaps have taught.

Trainable parameters, in millions, at 33 keypoints: lite 1.3, full 3.4, heavy 11. Every layer is a
convolution or a pooling, so that the weights fit every ``input_size``: train small, finish large.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kpdata.core.errors import KpdataError
from kpdata.train.models.blazepose import SIZES, Size
from kpdata.train.models.layers import (
    BATCH_NORM_MEMORY,
    SpatialExpectation,
    SpatialSoftmax,
    StopGradient,
)

STAGES = ("heatmap", "regression", "both")


def blazepose(
    num_keypoints: int, input_size: int = 256, size: str = "full", offsets: bool = False
) -> keras.Model:
    """A BlazePose for crops (B, S, S, 3) in [-1, 1]; its outputs are float32.

    ``heatmap`` (B, S/4, S/4, K), raw; with ``offsets`` also ``offset`` (B, S/4, S/4, 2K), UDP's
    combined form; ``xy_norm`` (B, K, 2); ``visibility`` (B, K), logits.

    Args:
        num_keypoints: K.
        input_size: S, a multiple of 32.
        size: a name in SIZES.
        offsets: whether to add offset maps.

    Raises:
        KpdataError: an unknown size, or an input size that does not fit.
    """
    if size not in SIZES:
        raise KpdataError(f"blazepose size {size!r} is unknown; known: {', '.join(SIZES)}")
    if input_size < 32 or input_size % 32:
        raise KpdataError(f"input size {input_size} must be a multiple of 32, for example 256")
    spec = SIZES[size]
    image = keras.Input((input_size, input_size, 3), name="image")
    stages = _encode(image, spec)
    decoded = _decode(stages, spec)
    outputs = {"heatmap": _maps(decoded, num_keypoints, "heatmap")}
    if offsets:
        outputs["offset"] = _maps(decoded, 2 * num_keypoints, "offset")
    outputs |= _regress(stages, decoded, spec, num_keypoints)
    return keras.Model(image, outputs, name=f"blazepose_{size}")


def shared_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that the heatmap and offset outputs stand on, those outputs' own included.

    They are read off the graph, so that no name or order of layers can mislead.

    Raises:
        KpdataError: the model is no BlazePose.
    """
    outputs = model.output
    is_blazepose = any(isinstance(layer, StopGradient) for layer in model.layers)
    if not isinstance(outputs, dict) or not is_blazepose:
        raise KpdataError(f"model {model.name!r} has no stages; only blazepose has")
    maps = [outputs[name] for name in ("heatmap", "heatmap_logit", "offset") if name in outputs]
    return list(keras.Model(model.inputs, maps).layers)


def stage_layers(model: keras.Model, stage: str) -> list[keras.layers.Layer]:
    """The layers that learn in a stage.

    ``heatmap``: encoder, decoder, heatmap and offset outputs. ``regression``: all others, which are
    the regression encoder and both of its outputs. ``both``: every layer.

    Raises:
        KpdataError: the model is no BlazePose, or the stage is unknown.
    """
    if stage not in STAGES:
        raise KpdataError(f"stage {stage!r} is unknown; known: {', '.join(STAGES)}")
    shared = shared_layers(model)
    if stage == "heatmap":
        return shared
    own = {id(layer) for layer in shared} if stage == "regression" else set()
    return [layer for layer in model.layers if id(layer) not in own]


def set_stage(model: keras.Model, stage: str) -> None:
    """Let the layers of a stage learn and freeze the others, their batch statistics included.

    Compile the model afterwards: Keras fixes what learns when it compiles.

    Raises:
        KpdataError: as ``stage_layers``.
    """
    learning = {id(layer) for layer in stage_layers(model, stage)}
    for layer in model.layers:
        layer.trainable = id(layer) in learning


def _encode(image: Any, spec: Size) -> list[Any]:
    """Features at 1/2 … 1/32 of the input's side."""
    x = _convolve(image, spec.widths[0], "stem", kernel=3, stride=2)
    stages = [_blocks(x, spec.depths[0], "encoder_2")]
    for level in range(1, 5):
        name = f"encoder_{2 << level}"
        x = _residual(stages[-1], spec.widths[level], f"{name}_down", stride=2)
        stages.append(_blocks(x, spec.depths[level] - 1, name))
    return stages


def _decode(stages: Sequence[Any], spec: Size) -> Any:
    """Features at 1/4, each stage's projection added on the way up from 1/32."""
    width = spec.widths[1]
    x = _convolve(stages[4], width, "decoder_32")
    for level in (3, 2, 1):
        name = f"decoder_{2 << level}"
        x = layers.UpSampling2D(interpolation="bilinear", name=f"{name}_up")(x)
        x = layers.Add(name=f"{name}_skip")([x, _convolve(stages[level], width, f"{name}_lateral")])
        x = _residual(x, width, f"{name}_block")
    return x


def _regress(stages: Sequence[Any], decoded: Any, spec: Size, count: int) -> dict[str, Any]:
    """Coordinates and visibility, behind stopped gradients.

    Dense layers on a global average have to carry every coordinate through one vector that has
    forgotten where anything was; a flattened map keeps the places but ties the weights to one
    input size. So the deepest stages (1/64, 1/128) give their global average as context, the cells
    at 1/32 take it in, and each cell votes for each keypoint: with a weight (softmax over the
    cells) and an offset from its own centre. The coordinates are the weighted mean of the votes,
    which lies anywhere in the crop or outside it, and starts at the input's middle.
    """
    x = StopGradient(name="regression_stop_decoder")(decoded)
    for level in (2, 3, 4):
        name = f"regression_{2 << level}"
        x = _residual(x, spec.widths[level], f"{name}_down", stride=2)
        skip = StopGradient(name=f"{name}_stop")(stages[level])
        x = layers.Add(name=f"{name}_skip")([x, skip])
        x = _blocks(x, spec.depths[level] - 1, name)
    deep = x
    for depth, name in zip(spec.deep, ("regression_64", "regression_128"), strict=True):
        deep = _residual(deep, spec.widths[4], f"{name}_down", stride=2)
        deep = _blocks(deep, depth - 1, name)
    context = layers.GlobalAveragePooling2D(name="context_average", dtype="float32")(deep)
    context = layers.LayerNormalization(name="context", dtype="float32")(context)
    cells = _with_context(x, context, spec.widths[4])
    weights = SpatialSoftmax(name="vote_weight", dtype="float32")(_maps(cells, count, "vote_logit"))
    votes = _maps(cells, 2 * count, "vote_offset")
    return {
        "xy_norm": SpatialExpectation(name="xy_norm", dtype="float32")([weights, votes]),
        "visibility": layers.Dense(count, name="visibility", dtype="float32")(context),
    }


def _with_context(x: Any, context: Any, width: int) -> Any:
    """Each cell of ``x`` (B, h, w, C) plus what the whole crop says (B, C)."""
    whole = layers.Dense(width, name="vote_context")(context)
    whole = layers.Reshape((1, 1, width), name="vote_context_cell")(whole)
    x = layers.Conv2D(width, 1, use_bias=False, name="vote_cell")(x)
    x = layers.Add(name="vote_sum")([x, whole])
    x = layers.BatchNormalization(momentum=BATCH_NORM_MEMORY, name="vote_norm")(x)
    return layers.ReLU(name="vote_relu")(x)


def _maps(x: Any, count: int, name: str) -> Any:
    """Float32 maps (B, h, w, count), near zero at the start."""
    small = keras.initializers.RandomNormal(stddev=0.001)
    return layers.Conv2D(count, 1, kernel_initializer=small, name=name, dtype="float32")(x)


def _convolve(x: Any, width: int, name: str, kernel: int = 1, stride: int = 1) -> Any:
    """Convolution, batch norm, ReLU."""
    conv = layers.Conv2D(width, kernel, stride, "same", use_bias=False, name=f"{name}_conv")
    x = layers.BatchNormalization(momentum=BATCH_NORM_MEMORY, name=f"{name}_norm")(conv(x))
    return layers.ReLU(name=f"{name}_relu")(x)


def _blocks(x: Any, depth: int, name: str) -> Any:
    for number in range(1, depth + 1):
        x = _residual(x, x.shape[-1], f"{name}_{number}")
    return x


def _residual(x: Any, width: int, name: str, stride: int = 1) -> Any:
    """Depthwise 3×3, pointwise, batch norm, added to the (pooled, projected) input, ReLU.

    BlazeFace's 5×5 kernels, tried beside these, take a quarter off a CPU's training images per
    second.
    """
    y = layers.DepthwiseConv2D(3, stride, "same", use_bias=False, name=f"{name}_depthwise")(x)
    y = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_pointwise")(y)
    y = layers.BatchNormalization(momentum=BATCH_NORM_MEMORY, name=f"{name}_norm")(y)
    if stride > 1:
        x = layers.MaxPooling2D(stride, padding="same", name=f"{name}_pool")(x)
    if x.shape[-1] != width:
        x = layers.Conv2D(width, 1, name=f"{name}_project")(x)
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_relu")(x)
