"""A race: a model fed by the trainer's input, and by one batch over and over."""

import importlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any

import click
import keras
import msgspec
import numpy as np

from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropRule
from kpdata.shards.dataset import Dataset
from kpdata.train.data.batches import Batch, Batches
from kpdata.train.data.crops import LabelledCrops, load
from kpdata.train.loop.learner import Learner
from kpdata.train.loop.optimisers import make_optimiser
from kpdata.train.loop.scanned import ScannedLearner, can_scan, epochs
from kpdata.train.models.base import Phase
from kpdata.train.ops.device import compiles_steps
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.defaults import default_config

NO_AUGMENTATION = AugmentConfig(
    flip=0.0, rotate=(0, 0), scale=(1, 1), shift=0.0, brightness=(0, 0), contrast=(1, 1),
    saturation=(1, 1), hue=(0, 0), grey=0.0, blur=0.0, rectangles=0, cutout=0.0,
)  # fmt: skip

_SETTLING = 1
_FEWEST_CALLS = 3


@dataclass(frozen=True)
class Case:
    """A model at one input size, in its first phase of all variables."""

    name: str
    model: str
    options: dict[str, str]
    trains: str
    side: int

    def config(self, dataset: Dataset, augmented: bool, batch_size: int) -> TrainConfig:
        """How ``kpdata train`` would train it by default on these shards and this machine."""
        config = default_config(dataset, self.model, self.options)
        return msgspec.structs.replace(
            config,
            phases=(Phase(self.trains, 1, self.side, 1e-3),),
            batch_size=batch_size,
            augment=config.augment if augmented else NO_AUGMENTATION,
        )


CASES = [
    Case(f"blazepose {size}, {side} px", "blazepose", {"size": size}, "heatmap", side)
    for size in ("lite", "full")
    for side in (128, 256)
]
CASES.append(Case("mobilenet_v2, 224 px", "regression", {}, "all", 224))


@dataclass(frozen=True)
class Lap:
    """One turn: crops a second, and seconds of CPU time a crop, of all threads together."""

    rate: float
    cpu: float


@dataclass(frozen=True)
class Laps:
    """All turns of a case, by round.

    Attributes:
        fit: from the trainer's input; ``constant`` from one batch.
        input_alone: crops a second of the input without a model.
    """

    input_alone: float
    fit: list[Lap] = field(default_factory=list)
    constant: list[Lap] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """The rate of fit over that of constant, by round."""
        return [ours.rate / bound.rate for ours, bound in zip(self.fit, self.constant, strict=True)]

    @property
    def cpu_ratios(self) -> list[float]:
        """The CPU time of constant over that of fit, by round."""
        return [bound.cpu / ours.cpu for ours, bound in zip(self.fit, self.constant, strict=True)]


class Clock(keras.callbacks.Callback):
    """Notes when each step is done, as the trainer does: by reading its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[float, float]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Wait for the loss."""
        float(logs["loss"])
        self.ends.append((time.perf_counter(), time.process_time()))


@dataclass(frozen=True)
class Contender:
    """A compiled step, or epoch, and what feeds it.

    Attributes:
        learner: is called by ``model.fit``.
        feed: starts its input anew.
        crops: that one call takes.
    """

    learner: Learner
    feed: Callable[[], Any]
    crops: int

    def lap(self, calls: int) -> Lap:
        """``model.fit``, once it is under way."""
        clock, calls = Clock(), _SETTLING + calls
        self.learner.fit(
            self.feed(), steps_per_epoch=calls, shuffle=False, verbose=0, callbacks=[clock]
        )
        seconds, cpu = np.subtract(clock.ends[-1], clock.ends[_SETTLING - 1]).tolist()
        crops = (calls - _SETTLING) * self.crops
        return Lap(crops / seconds, cpu / crops)

    def calls(self, rate: float, seconds: float) -> int:
        """How many take about so many seconds."""
        return max(_FEWEST_CALLS, math.ceil(seconds * rate / self.crops))


def race(config: TrainConfig, crops: LabelledCrops, rounds: int, seconds: float) -> Laps:
    """Let both train in turn, each round beginning with the other one.

    Args:
        config: of one phase.
        crops: to train on.
        rounds: how often.
        seconds: that one turn takes, about.
    """
    keras.config.set_dtype_policy(config.precision)
    batches = Batches(crops, config.augment, config.batch_size, config.seed)
    contenders = ours, bound = both(config, batches)
    speeds = [contender.lap(_FEWEST_CALLS).rate for contender in contenders]
    calls = [each.calls(speed, seconds) for each, speed in zip(contenders, speeds, strict=True)]
    click.echo(f"measuring: {rounds} × {' + '.join(map(str, calls))} calls", err=True)
    laps = Laps(input_alone(batches, seconds / 2))
    turns = [(laps.fit, ours, calls[0]), (laps.constant, bound, calls[1])]
    for _ in range(rounds):
        for found, contender, count in turns:
            found.append(contender.lap(count))
        turns.reverse()
    keras.backend.clear_session()
    return laps


def both(config: TrainConfig, batches: Batches) -> tuple[Contender, Contender]:
    """What the trainer does, and one batch over and over.

    They share a compiled step, unless the trainer compiles whole epochs.
    """
    learner = compiled_learner(Learner, config, batches)
    bound = Contender(learner, partial(constant, batches.batch(0, 0)), config.batch_size)
    if not can_scan(batches.crops):
        return Contender(learner, batches.dataset, config.batch_size), bound
    scanned = compiled_learner(ScannedLearner, config, batches)
    epoch = batches.steps * config.batch_size
    return Contender(scanned, partial(epochs, batches, 0), epoch), bound


def compiled_learner(kind: type[Learner], config: TrainConfig, batches: Batches) -> Learner:
    """The model with its losses and optimiser, as a run compiles it."""
    phase, skeleton = config.phases[0], batches.crops.skeleton
    net = config.build(len(skeleton), phase.input_size)
    learner = kind(net, config, phase, skeleton)
    optimiser = make_optimiser(config, phase, batches.steps)
    optimiser.build(learner.trainable_variables)
    learner.compile(optimiser, jit_compile=compiles_steps())
    return learner


def constant(batch: Batch) -> Any:
    """One batch for ever: on the device already where the backend can hold it there."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensors((batch,)).repeat()
    on_device = {name: keras.ops.convert_to_tensor(array) for name, array in batch.items()}
    return (each for each in repeat((on_device,)))


def input_alone(batches: Batches, seconds: float) -> float:
    """Crops a second that the input gives when nothing waits for it."""
    feed: Iterator[Any] = iter(batches.dataset())
    next(feed)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(feed)
        count += 1
    return count * batches.batch_size / (time.perf_counter() - started)


def crops_of(dataset: Dataset, config: TrainConfig) -> LabelledCrops:
    """The training split in memory, as a run reads it."""
    crop_rule = CropRule(config.crop_from, config.margin)
    return load(dataset, "train", crop_rule, config.input_size, copies=True)


def backend() -> str:
    """Keras's backend, and its version."""
    name = keras.backend.backend()
    return f"{name} {importlib.import_module(name).__version__}"


def device() -> str:
    """What computes."""
    found = keras.distribution.list_devices("gpu")
    if not found:
        return "CPU"
    if keras.backend.backend() == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    gpu = tf.config.list_physical_devices("GPU")[0]
    return str(tf.config.experimental.get_device_details(gpu).get("device_name", found[0]))
