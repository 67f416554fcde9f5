"""A trained model as one compiled function: uint8 pictures in, keypoints out."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.core.transform import apply_affines
from kpdata.train.data.pictures import Views
from kpdata.train.infer.predictions import COORDINATES, HEATMAP, Decode, Predictions
from kpdata.train.ops import targets
from kpdata.train.ops.losses import Tensor
from kpdata.train.run.config import Trains

HEADS: dict[Trains, tuple[str, ...]] = {
    "heatmap": (HEATMAP,),
    "regression": (COORDINATES,),
    "both": (HEATMAP, COORDINATES),
    "head": (COORDINATES,),
    "all": (COORDINATES,),
}
"""What a phase teaches a model to say."""

_BATCH = 32


class PoseReader(keras.Model):
    """Pictures (B, S, S, 3) of any type, 0 … 255 → heads (B, K, 3) in input pixels.

    Args:
        net: a model of :mod:`kpdata.train.models`.
        skeleton: for its mirror image.
        heads: which of ``heatmap`` and ``coordinates`` to read.
        flip: average with what is seen in the mirror image.
        decode: how a heatmap gives a place.
        sees: whether ``net`` was taught visibility. Coordinates score by it; without it, by the
            heatmap's peak where that is read, else 1.
    """

    def __init__(
        self,
        net: keras.Model,
        skeleton: Skeleton,
        heads: tuple[str, ...],
        flip: bool = True,
        decode: Decode = "dark",
        sees: bool = True,
    ):
        super().__init__(name="reader", dtype="float32")
        wanted = {"heatmap", "offset"} if HEATMAP in heads else set()
        wanted |= {"xy_norm"} if COORDINATES in heads else set()
        wanted |= {"visibility"} if COORDINATES in heads and sees else set()
        outputs = {name: value for name, value in net.output.items() if name in wanted}
        self.net = keras.Model(net.inputs, outputs)
        self.size = net.inputs[0].shape[1]
        self.heads, self.flip, self.decode = heads, flip, decode
        self.flip_index = skeleton.flip_index
        self.built = True

    def call(self, image: Tensor) -> dict[str, Tensor]:
        """``heatmap`` and ``coordinates`` (B, K, 3), ``visibility`` (B, K) where it was taught.

        All scores are from 0 to 1: a heatmap's peak, which may lie beyond, is clipped.
        """
        seen = targets.normalise(image)
        outputs = self.net(seen, training=False)
        if self.flip:
            mirrored = targets.flip_back(
                self.net(ops.flip(seen, axis=2), training=False), self.flip_index
            )
            outputs = {name: (value + mirrored[name]) / 2 for name, value in outputs.items()}
        found = {}
        if HEATMAP in self.heads:
            found[HEATMAP] = self._decoded(outputs)
        if COORDINATES in self.heads:
            xy = outputs["xy_norm"] * self.size
            if "visibility" in outputs:
                found["visibility"] = ops.sigmoid(outputs["visibility"])
                score = found["visibility"][..., None]
            else:
                score = found[HEATMAP][..., 2:] if HEATMAP in found else ops.ones_like(xy[..., :1])
            found[COORDINATES] = ops.concatenate([xy, score], axis=-1)
        return found

    def _decoded(self, outputs: dict[str, Tensor]) -> Tensor:
        decoders: dict[str, Callable[..., Any]] = {
            "dark": targets.decode_dark,
            "quadratic": targets.decode_quadratic,
            "argmax": targets.decode_argmax,
        }
        maps = outputs["heatmap"]
        if self.decode == "udp":
            found = targets.decode_udp(maps, outputs["offset"], self.size)
        else:
            found = decoders[self.decode](maps, self.size)
        return ops.concatenate([found[..., :2], ops.clip(found[..., 2:], 0, 1)], axis=-1)


def read_pictures(
    reader: PoseReader,
    pictures: Views,
    on_done: Callable[[int], None] | None = None,
    batch_size: int = _BATCH,
) -> Predictions:
    """Every picture's keypoints; ``on_done`` is told how many pictures are done."""
    found: dict[str, list[npt.NDArray[Any]]] = {}
    count, batch_size = len(pictures), _shared_evenly(batch_size)
    for start in range(0, count, batch_size):
        chosen = np.arange(start, start + batch_size)
        images = pictures.images[np.minimum(chosen, count - 1)]  # full, so that nothing recompiles
        for name, value in reader.predict_on_batch(images).items():
            found.setdefault(name, []).append(value[: count - start])
        if on_done:
            on_done(min(count, start + batch_size))
    arrays = {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}
    visibility = arrays.pop("visibility", None)
    keypoints = {name: _in_source(value, pictures) for name, value in arrays.items()}
    return Predictions(keypoints, visibility, reader.heads[0])


def _shared_evenly(count: int) -> int:
    """``count``, or a few more where several devices share them."""
    distribution = keras.distribution.distribution()
    devices = distribution.device_mesh.devices.size if distribution else 1
    return -(-count // devices) * devices


def _in_source(keypoints: FloatArray, pictures: Views) -> FloatArray:
    xy = apply_affines(pictures.to_source, keypoints[..., :2])
    return np.concatenate([xy, keypoints[..., 2:]], axis=2)
