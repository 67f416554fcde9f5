"""Whole epochs on the device: JAX on a GPU, with crops that fit in its memory.

Then Python is asked once an epoch instead of once a step, and only the params cross to the device.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kpdata.train.data.batches import Batch, Batches, made_ahead
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.loop.learner import Learner

_MEMORY_SHARE = 0.3
_ARRAYS = ("image", "keypoints")


class ScannedLearner(Learner):
    """A learner whose batch is an epoch: all crops, and ``index`` and params (steps, B, …)."""

    def train_step(self, state: Any, data: Any) -> Any:
        """The steps of an epoch, one after the other; the logs are the last one's."""
        import jax

        (epoch,) = data
        crops = {name: epoch[name] for name in _ARRAYS}
        steps = {name: value for name, value in epoch.items() if name not in _ARRAYS}

        def step(state: Any, params: dict[str, Any]) -> tuple[Any, Any]:
            params = dict(params)
            index = params.pop("index")
            batch = {name: value[index] for name, value in crops.items()} | params
            logs, state = super(ScannedLearner, self).train_step(state, (batch,))
            return state, logs

        state, logs = jax.lax.scan(step, state, steps)
        return {name: values[-1] for name, values in logs.items()}, state


def can_scan(crops: LabelledCrops) -> bool:
    """Whether these crops can live on the one device that trains."""
    if keras.backend.backend() != "jax" or not isinstance(crops.images, np.ndarray):
        return False
    if keras.distribution.distribution() is not None:  # it would cut the epoch up, not the batches
        return False
    import jax

    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    return device.platform == "gpu" and crops.images.nbytes < _MEMORY_SHARE * limit


def epochs(batches: Batches, first_epoch: int) -> Iterator[tuple[Batch]]:
    """Every epoch from ``first_epoch`` on; the crops go to the device once."""
    import jax

    crops = batches.crops
    resident = {
        "image": jax.device_put(np.asarray(crops.images)),
        "keypoints": jax.device_put(crops.shown_keypoints),
    }
    numbers = iter(range(first_epoch, 1 << 62))
    return ((resident | params,) for params in made_ahead(batches.epoch, numbers))
