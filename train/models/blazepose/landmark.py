"""MediaPipe's BlazePose landmark network in trainable layers, and how it starts from its files.

An encoder of inverted residuals halves the input five times. A decoder adds its stages up again to
a quarter of the input's side, where one convolution gives heatmaps; from there on a segmentation
branch, which is left out here. A tower of residual blocks reads the landmarks off 2 × 2 cells. The
files have no batch normalisation: it is folded into their convolutions.

Layers are made in the order in which the files hold their convolutions, so that weights go from one
list to the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers

from kpdata.core.errors import KpdataError
from kpdata.core.mapping import Mapping, map_by_name
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import BLAZEPOSE33
from kpdata.train.models.blazepose import FULL_SIDE, LEAST_SIDE
from kpdata.train.models.layers import ChannelAffine, StopGradient
from kpdata.train.models.tflite_file import Convolution

NUM_LANDMARKS = 39
"""The 33 of the skeleton, and six that only MediaPipe's tracking uses."""


@dataclass(frozen=True)
class Stage:
    """Inverted residuals at one scale.

    Attributes:
        kernel: of its depthwise convolutions.
        width: channels.
        blocks: how often the input is widened in each of its residual blocks.
        stride: 2 where it begins by halving the side.
    """

    kernel: int
    width: int
    blocks: tuple[int, ...]
    stride: int = 2


@dataclass(frozen=True)
class Size:
    """One of the published networks.

    Attributes:
        stem: channels at half the input's side, after the stem and after its projection.
        stages: of the encoder; the last one's features are widened once more.
        lateral: channels of the decoder.
        tower: (channels, residual blocks) at each halving. The last two levels go on from the
            encoder's last features; those before them begin at the decoder's, and take the
            encoder's stages in.
    """

    stem: tuple[int, int]
    stages: tuple[Stage, ...]
    lateral: int
    tower: tuple[tuple[int, int], ...]


SIZES = {
    "lite": Size(
        stem=(24, 8),
        stages=(
            Stage(3, 16, (6,)), Stage(5, 24, (6,)), Stage(3, 40, (6, 6)),
            Stage(5, 56, (6, 6), stride=1), Stage(5, 96, (6, 6, 6)),
        ),
        lateral=32,
        tower=((192, 2), (192, 3)),
    ),
    "full": Size(
        stem=(24, 16),
        stages=(
            Stage(3, 24, (6,)), Stage(5, 32, (6,)), Stage(3, 64, (6, 6)),
            Stage(5, 88, (6, 6), stride=1), Stage(5, 144, (6, 6, 6)),
        ),
        lateral=48,
        tower=((288, 4), (288, 5)),
    ),
    "heavy": Size(
        stem=(24, 24),
        stages=(
            Stage(3, 32, (4, 6, 6)), Stage(5, 56, (6,) * 3), Stage(3, 112, (6,) * 5),
            Stage(5, 160, (6,) * 5, stride=1), Stage(5, 272, (6,) * 7),
        ),
        lateral=48,
        tower=((96, 6), (192, 7), (288, 7), (288, 7), (288, 7)),
    ),
}  # fmt: skip


_FINE = 8
"""Channels of the mask's branch."""


class Network:
    """The network as Keras tensors, and its convolutions in the order of the files.

    Attributes:
        features: (B, S/4, S/4, lateral), which the heatmaps stand on.
        cells: (B, 2, 2, C), which the landmarks stand on.
        convolutions: the layers that have weights.
        heads: output → the position of its convolution among them.
        outputs: the files' own. ``heatmap`` (B, S/4, S/4, 39), logits; ``landmarks`` (B, 39 · 5),
            x, y and z in input pixels, and the logits of visibility and presence; ``world``
            (B, 39 · 3) in metres; ``presence`` (B, 1) of a person; ``mask`` (B, S, S, 1), logits.
    """

    def __init__(self, size: Size, image: Any):
        """Build it for ``image`` (B, S, S, 3) in [0, 1]."""
        self.convolutions: list[keras.layers.Layer] = []
        early, late = size.tower[:-2], size.tower[-2:]
        sides: list[Any] = []
        tower_sides: list[Any] = []
        x = self._convolve(layers.ZeroPadding2D(1)(image), size.stem[0], 3, 2, "valid")
        x = self._convolve(self._depthwise(x), size.stem[1], activation=None)
        for number, stage in enumerate(size.stages):
            wide = self._convolve(x, (6 if number else 4) * x.shape[-1])
            if stage.stride > 1:
                sides.append(self._separable(x, size.lateral if number else _FINE))
            if stage.stride > 1 and early and len(sides) > 2:
                tower_sides.append(self._separable(x, early[len(tower_sides)][0]))
            x = self._narrow(wide, stage, stage.stride)
            for times in stage.blocks:
                wide = self._convolve(x, times * x.shape[-1])
                x = layers.Add()([self._narrow(wide, stage), x])
        last = self._depthwise(self._convolve(x, 6 * x.shape[-1]))
        x = self._separable(last, size.lateral)
        for side in sides[:0:-1]:
            x = layers.Add()([_doubled(x), side])
        self.features = x

        x = StopGradient()(x)
        last = StopGradient()(last)
        tower_sides = [StopGradient()(side) for side in tower_sides]
        if early:
            x = self._halve(x, early[0][0])
        mask = self._mask(self.features, sides[0])
        for level, (width, blocks) in enumerate(early):
            x = self._halve(x, width) if level else x
            x = self._residuals(x, blocks)
            if level < len(tower_sides):
                x = layers.Add()([x, tower_sides[level]])
        heatmap = self._convolve(self.features, NUM_LANDMARKS, activation=None)
        self.heads = {"heatmap": len(self.convolutions) - 1}
        side = self._separable(last, late[0][0])
        x = layers.Add()([x, side]) if early else side
        for width, blocks in late:
            x = self._residuals(self._halve(x, width), blocks)
        self.cells = x
        self.heads["landmarks"] = len(self.convolutions)
        flat = layers.Flatten()
        self.outputs = {
            "heatmap": heatmap,
            "mask": mask,
            "landmarks": flat(self._convolve(x, 5 * NUM_LANDMARKS, 2, 1, "valid", None)),
            "world": flat(self._convolve(x, 3 * NUM_LANDMARKS, 2, 1, "valid", None)),
            "presence": flat(self._convolve(x, 1, 2, 1, "valid", "sigmoid")),
        }

    def _mask(self, x: Any, side: Any) -> Any:
        x = layers.Add()([_doubled(self._separable(x, _FINE)), side])
        x = self._residuals(_doubled(self._residuals(x, 2)), 2)
        return self._convolve(x, 1, 3, activation=None)

    def _narrow(self, wide: Any, stage: Stage, stride: int = 1) -> Any:
        """The second half of an inverted residual: depthwise, and back to the stage's width."""
        if stride > 1:
            wide = layers.ZeroPadding2D(stage.kernel // 2)(wide)
        padding = "valid" if stride > 1 else "same"
        x = self._depthwise(wide, stage.kernel, stride, padding)
        return self._convolve(x, stage.width, activation=None)

    def _halve(self, x: Any, width: int) -> Any:
        """A residual block of half the side; its input is pooled, and new channels are zeros."""
        y = self._convolve(self._depthwise(x, 3, 2), width, activation=None)
        x = layers.MaxPooling2D(2, padding="same")(x)
        if (more := width - x.shape[-1]) > 0:
            x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, more)))
        return layers.ReLU(6)(layers.Add()([x, y]))

    def _residuals(self, x: Any, count: int) -> Any:
        for _ in range(count):
            x = self._separable(x, x.shape[-1])
        return x

    def _separable(self, x: Any, width: int) -> Any:
        """Depthwise and pointwise; a residual where the width stays."""
        y = self._depthwise(x)
        if width != x.shape[-1]:
            return self._convolve(y, width)
        y = self._convolve(y, width, activation=None)
        return layers.ReLU(6)(layers.Add()([x, y]))

    def _convolve(
        self,
        x: Any,
        width: int,
        kernel: int = 1,
        stride: int = 1,
        padding: str = "same",
        activation: str | None = "relu6",
    ) -> Any:
        name = f"landmark_{len(self.convolutions):03d}"
        layer = layers.Conv2D(width, kernel, stride, padding, activation=activation, name=name)
        self.convolutions.append(layer)
        return layer(x)

    def _depthwise(self, x: Any, kernel: int = 3, stride: int = 1, padding: str = "same") -> Any:
        name = f"landmark_{len(self.convolutions):03d}"
        layer = layers.DepthwiseConv2D(kernel, stride, padding, activation="relu6", name=name)
        self.convolutions.append(layer)
        return layer(x)


def _doubled(x: Any) -> Any:
    return layers.UpSampling2D(interpolation="bilinear")(x)


def landmark_network(num_keypoints: int, input_size: int, size: str) -> keras.Model:
    """The network for K keypoints of any skeleton, with random weights.

    It takes crops (B, S, S, 3) in [-1, 1]. ``heatmap_logit`` (B, S/4, S/4, K); ``xy_norm``
    (B, K, 2) and ``visibility`` (B, K), logits, stand on the tower, behind stopped gradients.

    Args:
        num_keypoints: K.
        input_size: S, a multiple of 32 from LEAST_SIDE to FULL_SIDE.
        size: a name in SIZES.

    Raises:
        KpdataError: an input size that does not fit.
    """
    if input_size % 32 or not LEAST_SIDE <= input_size <= FULL_SIDE:
        raise KpdataError(
            f"input_size is {input_size}: a network with BlazePose's weights takes multiples of 32 "
            f"from {LEAST_SIDE} to {FULL_SIDE}"
        )
    image = keras.Input((input_size, input_size, 3), name="image")
    unit = ChannelAffine((0.5,) * 3, (0.5,) * 3, name="unit", dtype="float32")(image)
    network = Network(SIZES[size], unit)
    small = keras.initializers.RandomNormal(stddev=0.001)
    maps = layers.Conv2D(
        num_keypoints, 1, kernel_initializer=small, name="heatmap_logit", dtype="float32"
    )
    middle = keras.initializers.Constant(0.5)
    places = layers.Conv2D(
        2 * num_keypoints, 2, kernel_initializer=small, bias_initializer=middle, name="coordinates",
        dtype="float32",
    )(network.cells)  # fmt: skip
    seen = layers.Conv2D(
        num_keypoints, 2, kernel_initializer=small, name="visible", dtype="float32"
    )(network.cells)
    outputs = {
        "heatmap_logit": maps(network.features),
        "xy_norm": layers.Reshape((num_keypoints, 2), name="xy_norm", dtype="float32")(places),
        "visibility": layers.Reshape((num_keypoints,), name="visibility", dtype="float32")(seen),
    }
    return keras.Model(image, outputs, name=f"blazepose_landmark_{size}")


def size_of(convolutions: Sequence[Convolution]) -> str | None:
    """The name in SIZES of the network that has these convolutions; None where none has."""
    shapes = [given.kernel.shape for given in convolutions]
    return next((name for name in SIZES if _layout(name)[0] == shapes), None)


@cache
def _layout(size: str) -> tuple[list[tuple[int, ...]], dict[str, int]]:
    """The kernels' shapes of a published network, and which of them its heads have."""
    network = Network(SIZES[size], keras.Input((FULL_SIDE, FULL_SIDE, 3)))
    return [tuple(layer.kernel.shape) for layer in network.convolutions], network.heads


def start_from(
    model: keras.Model, convolutions: Sequence[Convolution], size: str, skeleton: Skeleton
) -> Mapping:
    """Give a landmark network the weights of a file, and its heads those of the same names.

    A derived keypoint, such as LSP's neck, starts with the mean of the weights of those that it is
    derived from; one that is missing keeps its random ones.

    Args:
        model: of :func:`landmark_network`.
        convolutions: of the file.
        size: whose network it holds.
        skeleton: names the model's keypoints.

    Returns:
        Which of BlazePose's keypoints each one starts from.
    """
    inner = {layer.name: layer for layer in model.layers}
    for number, weights in enumerate(convolutions):
        if layer := inner.get(f"landmark_{number:03d}"):
            layer.set_weights(list(weights))
    mapping = map_by_name(BLAZEPOSE33, skeleton)
    _, heads = _layout(size)
    heatmap, landmarks = (convolutions[heads[name]] for name in ("heatmap", "landmarks"))
    values = [array.reshape(*array.shape[:-1], NUM_LANDMARKS, 5) for array in landmarks]
    _start_head(inner["heatmap_logit"], [array[..., None] for array in heatmap], mapping)
    _start_head(inner["coordinates"], [array[..., :2] / FULL_SIDE for array in values], mapping)
    _start_head(inner["visible"], [array[..., 3:4] for array in values], mapping)
    return mapping


def _start_head(layer: keras.layers.Layer, trained: list[Any], mapping: Mapping) -> None:
    """Weights (…, landmarks, D) become those of a layer whose last axis is K · D."""
    found = np.array([keypoint.how != "missing" for keypoint in mapping.keypoints])
    own = layer.get_weights()
    for number, array in enumerate(trained):
        mixed = np.einsum("...ld,kl->...kd", array[..., : len(BLAZEPOSE33), :], mapping.weights)
        random = own[number].reshape(mixed.shape)
        own[number] = np.where(found[:, None], mixed, random).reshape(own[number].shape)
    layer.set_weights(own)
