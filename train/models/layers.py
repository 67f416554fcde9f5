"""Layers that Keras lacks; registered, so that a saved model loads in safe mode."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

BATCH_NORM_MEMORY = 0.95
"""Twenty steps: the statistics of a short run follow its weights. Keras's backbones
remember a thousand, so that their statistics would still be those of the first epochs."""

_registered = keras.saving.register_keras_serializable(package="kpdata")


@_registered
class StopGradient(keras.layers.Layer):
    """The identity forwards, nothing backwards."""

    def call(self, inputs: Any) -> Any:
        """Features of any shape, as they are."""
        return ops.stop_gradient(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the features."""
        return input_shape


@_registered
class SpatialSoftmax(keras.layers.Layer):
    """Logits (B, h, w, K) → probabilities (B, h, w, K) that sum to 1 over the h × w cells."""

    def call(self, inputs: Any) -> Any:
        """Softmax over all cells of each map."""
        _, h, w, maps = inputs.shape
        flat = ops.reshape(inputs, (-1, h * w, maps))
        return ops.reshape(ops.softmax(flat, axis=1), (-1, h, w, maps))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the logits."""
        return input_shape


@_registered
class SpatialExpectation(keras.layers.Layer):
    """Probabilities (B, h, w, K) → the expected position (B, K, 2), x and y as ``xy_norm``.

    Cell (i, j) stands for its centre, ((j + 0.5) / w, (i + 0.5) / h). Called on a list of
    probabilities and offsets (B, h, w, 2K), it stands for its centre plus its own offset: the first
    K offset maps are x, the last K are y, in parts of the input's side.
    """

    def call(self, inputs: Any) -> Any:
        """The mean of the cells' positions under each keypoint's probabilities."""
        probabilities, offsets = inputs if isinstance(inputs, list | tuple) else (inputs, None)
        _, h, w, count = probabilities.shape
        x = (np.arange(w, dtype="float32") + 0.5)[:, None] / w  # (w, 1)
        y = (np.arange(h, dtype="float32") + 0.5)[:, None, None] / h  # (h, 1, 1)
        if offsets is not None:
            x, y = x + offsets[..., :count], y + offsets[..., count:]  # (B, h, w, K)
        means = [ops.sum(probabilities * position, axis=(1, 2)) for position in (x, y)]
        return ops.stack(means, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B, K, 2)."""
        probabilities = input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape
        return (probabilities[0], probabilities[-1], 2)


@_registered
class ChannelAffine(keras.layers.Layer):
    """``scale * x + offset`` for each channel, after turning RGB into BGR where asked.

    Args:
        scale: three numbers, in the order of the output's channels.
        offset: likewise.
        bgr: reverse the channels first.
    """

    def __init__(
        self, scale: Sequence[float], offset: Sequence[float], bgr: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.scale, self.offset, self.bgr = tuple(scale), tuple(offset), bgr

    def call(self, inputs: Any) -> Any:
        """Crops (B, H, W, 3) → the same (B, H, W, 3)."""
        pictures = ops.flip(inputs, axis=-1) if self.bgr else inputs
        scale, offset = (ops.cast(v, pictures.dtype) for v in (self.scale, self.offset))
        return pictures * scale + offset

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What ``__init__`` takes."""
        own = {"scale": self.scale, "offset": self.offset, "bgr": self.bgr}
        return {**super().get_config(), **own}
