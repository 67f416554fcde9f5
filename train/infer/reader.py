"""A trained network as one compiled function: uint8 crops in, keypoints out."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.core.transform import apply_affines
from kpdata.train.data.crops import Crops
from kpdata.train.infer.predictions import Decode, Predictions
from kpdata.train.models.parts import Head
from kpdata.train.ops import targets
from kpdata.train.ops.losses import Tensor

VISIBILITY = "visibility"

_BATCH, _FULL_SIDE = 32, 256
"""Crops that are shown to the network at once, and the largest side at which so many are."""


class PoseReader(keras.Model):
    """Crops (B, S, S, 3) of any type, 0 … 255 → heads (B, K, 3) in input pixels.

    Args:
        net: a network whose outputs are named as in :mod:`kpdata.train.models.parts`.
        skeleton: for its mirror image.
        heads: which of the model's heads to read, the primary one first.
        flip: average with what is found in the mirror image.
        decode: how a heatmap is decoded.
        with_visibility: whether ``net`` was trained to tell it. Heads without scores of their own
            score by it; without it, by the first head that has scores, else 1.

    Attributes:
        batch_size: of the last batch that :func:`predict_crops` showed it; 0 before the first.
    """

    def __init__(
        self,
        net: keras.Model,
        skeleton: Skeleton,
        heads: tuple[Head, ...],
        flip: bool = True,
        decode: Decode = "dark",
        with_visibility: bool = True,
    ):
        super().__init__(name="reader", dtype="float32")
        wanted = {name for head in heads for name in head.outputs}
        if with_visibility and not all(head.scores for head in heads):
            wanted.add(VISIBILITY)
        outputs = {name: value for name, value in net.output.items() if name in wanted}
        self.net = keras.Model(net.inputs, outputs)
        self.size = net.inputs[0].shape[1]
        self.heads, self.flip, self.decode = heads, flip, decode
        self.flip_index = skeleton.flip_index
        self.batch_size = 0
        self.built = True

    def call(self, image: Tensor) -> dict[str, Tensor]:
        """Each head (B, K, 3), and ``visibility`` (B, K) where it was trained.

        All scores are from 0 to 1.
        """
        crops = targets.normalise(image)
        outputs = self.net(crops, training=False)
        if self.flip:
            mirrored = targets.flip_back(
                self.net(ops.flip(crops, axis=2), training=False), self.flip_index
            )
            outputs = {name: (value + mirrored[name]) / 2 for name, value in outputs.items()}
        answers = {head.name: head.read(outputs, self.size, self.decode) for head in self.heads}
        scores = [answers[head.name][..., 2:] for head in self.heads if head.scores]
        if VISIBILITY in outputs:
            answers[VISIBILITY] = ops.sigmoid(outputs[VISIBILITY])
            scores = [answers[VISIBILITY][..., None]]
        for head in self.heads:
            if not head.scores:
                xy = answers[head.name]
                score = scores[0] if scores else ops.ones_like(xy[..., :1])
                answers[head.name] = ops.concatenate([xy, score], axis=-1)
        return answers


def predict_crops(
    reader: PoseReader, crops: Crops, progress: Progress = SILENT, batch_size: int | None = None
) -> Predictions:
    """Every crop's keypoints in source pixels.

    Args:
        reader: the network.
        crops: of its input size.
        progress: hears how many crops are done.
        batch_size: crops that are shown at once; None chooses, by :func:`_batch_size`.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    count = len(crops)
    batch_size = reader.batch_size = _shared_evenly(batch_size or _batch_size(reader, count))
    for start in range(0, count, batch_size):
        chosen = np.arange(start, start + batch_size)
        images = crops.images[np.minimum(chosen, count - 1)]  # full, so that nothing recompiles
        for name, value in reader.predict_on_batch(images).items():
            parts.setdefault(name, []).append(value[: count - start])
        progress.reach(min(count, start + batch_size))
    arrays = {name: np.concatenate(each).astype(np.float64) for name, each in parts.items()}
    visibility = arrays.pop(VISIBILITY, None)
    keypoints = {head.name: in_source(arrays[head.name], crops) for head in reader.heads}
    primary = reader.heads[0]
    return Predictions(
        keypoints, visibility, primary.name, visibility is not None and not primary.scores
    )


def _batch_size(reader: PoseReader, count: int) -> int:
    """How many of ``count`` crops to show at once: a power of two, and fewer of larger crops.

    Memory grows with the pixels of a batch. An earlier batch's size is kept if it suffices: the
    network is compiled anew for another one.
    """
    most = max(1, int(_BATCH * min(1.0, (_FULL_SIDE / reader.size) ** 2)))
    return max(reader.batch_size, min(most, 1 << (count - 1).bit_length()))


def _shared_evenly(count: int) -> int:
    """``count``, or a few more where several devices share them."""
    distribution = keras.distribution.distribution()
    devices = distribution.device_mesh.devices.size if distribution else 1
    return -(-count // devices) * devices


def in_source(keypoints: FloatArray, crops: Crops) -> FloatArray:
    """Keypoints (N, K, 3) x, y, score in crop pixels, with x and y in pixels of the source."""
    xy = apply_affines(crops.to_source, keypoints[..., :2])
    return np.concatenate([xy, keypoints[..., 2:]], axis=2)
