"""The batches of a training run. They are deterministic, and each can be made alone.

A batch is a dict of arrays: ``image`` (B, P, P, 3) uint8, the crops with their border,
``keypoints`` (B, K, 3) in its pixels, and the random parameters of
:mod:`kpdata.train.ops.augment`, applied on the device. The same batches feed every backend; on
TensorFlow they go through ``tf.data``.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from kpdata.core.augment import AugmentConfig
from kpdata.storage.parallel import ahead
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.ops.augment import BatchParams, sample_batch

Batch = dict[str, npt.NDArray[Any]]

_SHUFFLE = 0
_FILL = 1
_AHEAD = 4
_WORKERS = 2


@dataclass(frozen=True)
class Batches:
    """The batches of a training split: full ones only, each epoch in an order of its own.

    What a batch holds follows from seed, epoch and step alone, so that a resumed run goes on
    exactly. Where the split does not fill its last batch, samples of the same epoch fill it up.

    Attributes:
        crops: whose side is the model's input size.
        augment: the ranges of the random changes.
        batch_size: B.
        seed: of the order and of the random changes.
    """

    crops: LabelledCrops
    augment: AugmentConfig
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return -(-len(self.crops) // self.batch_size)

    def indices(self, epoch: int, step: int) -> npt.NDArray[np.int64]:
        """(B,) indices of the crops of a step."""
        order = _order(self.seed, epoch, len(self.crops), self.steps * self.batch_size)
        return order[step * self.batch_size :][: self.batch_size]

    def keys(self, epoch: int, step: int) -> list[str]:
        """(B,) keys of the source images of a step."""
        return [self.crops.keys[i] for i in self.indices(epoch, step)]

    def params(self, epoch: int, step: int) -> BatchParams:
        """The augmentation parameters of a batch."""
        chosen = self.indices(epoch, step)
        crops, side = [self.crops.without_border] * len(chosen), self.crops.side
        return sample_batch(self.augment, self.seed, epoch, chosen.tolist(), crops, side)

    def batch(self, epoch: int, step: int) -> Batch:
        """One batch."""
        chosen = self.indices(epoch, step)
        return {
            "image": self.crops.images[chosen],
            "keypoints": self.crops.shown_keypoints[chosen],
            **self.params(epoch, step),
        }

    def epoch(self, epoch: int) -> Batch:
        """``index`` (steps, B) and the params (steps, B, …) of all batches of an epoch."""
        steps = range(self.steps)
        params = [self.params(epoch, step) for step in steps]
        index = np.stack([self.indices(epoch, step) for step in steps])
        return {"index": index} | {name: np.stack([p[name] for p in params]) for name in params[0]}

    def forever(self, first_epoch: int = 0) -> Iterator[tuple[Batch]]:
        """All batches from the first of an epoch on, as ``model.fit`` takes them, made ahead."""

        def all_steps() -> Iterator[tuple[int, int]]:
            epoch = first_epoch
            while True:
                yield from ((epoch, step) for step in range(self.steps))
                epoch += 1

        return ((batch,) for batch in made_ahead(lambda step: self.batch(*step), all_steps()))

    def dataset(self, first_epoch: int = 0) -> Any:
        """:meth:`forever` as the backend likes it: on TensorFlow a ``tf.data.Dataset``."""
        if keras.backend.backend() != "tensorflow":
            return self.forever(first_epoch)
        import tensorflow as tf

        example = self.batch(first_epoch, 0)
        specs = {name: tf.TensorSpec(a.shape, a.dtype) for name, a in example.items()}
        made = tf.data.Dataset.from_generator(
            lambda: self.forever(first_epoch), output_signature=(specs,)
        )
        return made.prefetch(tf.data.AUTOTUNE)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int, wanted: int) -> npt.NDArray[np.int64]:
    """(wanted,) indices: every crop once, then some crops again to fill the last batch."""
    order = np.random.default_rng([seed, epoch, _SHUFFLE]).permutation(count)
    fill = np.random.default_rng([seed, epoch, _FILL]).integers(0, count, wanted - count)
    return np.concatenate([order, fill])


def made_ahead(make: Callable[[Any], Batch], items: Iterable[Any]) -> Iterator[Batch]:
    """``map(make, items)`` in order; threads make a few items ahead."""
    return (result() for _, result in ahead(make, items, _AHEAD, _WORKERS))
