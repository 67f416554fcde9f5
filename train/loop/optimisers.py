"""Optimisers, their learning rates, and the average of the weights that they keep."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import EpochRecord

_OPTIMISERS = {
    "adamw": keras.optimizers.AdamW,
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
}
_FORGETTING = 10
"""How often the average must be able to renew itself within a phase."""

_PLATEAU_FACTOR = 0.5


def make_optimiser(
    config: TrainConfig, phase: Phase, steps: int, net: keras.Model | None = None
) -> Any:
    """The phase's optimiser; adamw alone decays weights, but no biases or normalisation layers.

    Args:
        config: the run's.
        phase: the phase.
        steps: batches an epoch.
        net: what a phase with a ``trunk_rate`` is for: its last layers learn at the full rate.
    """
    kind = _OPTIMISERS[config.optimizer]
    if phase.trunk_rate < 1:
        assert net is not None, "its heads have a rate of their own"
        kind = _with_trunk_rate(kind, phase.trunk_rate, _paths_of_heads(net))
    decay = config.weight_decay if config.optimizer == "adamw" else 0.0
    optimiser = kind(
        learning_rate=_rate(config, phase, steps),
        weight_decay=decay,
        global_clipnorm=config.clip_norm or None,
        use_ema=config.ema > 0,
        ema_momentum=_momentum(config.ema, phase.epochs * steps),
    )
    if decay:
        optimiser.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimiser


def _with_trunk_rate(kind: type, factor: float, heads: frozenset[str]) -> type:
    """An optimiser whose rate is smaller for all variables but those of ``heads``, by path."""

    class TrunkRate(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            path = self._trainable_variables[self._get_variable_index(variable)].path
            rate = learning_rate if path in heads else learning_rate * factor
            super().update_step(gradient, variable, rate)

    return TrunkRate


def _paths_of_heads(net: keras.Model) -> frozenset[str]:
    """The variables of the last layer with weights before each output."""
    paths: set[str] = set()
    for output in net.output.values():
        operation = output._keras_history.operation
        while not operation.weights:
            operation = operation.input._keras_history.operation
        paths.update(variable.path for variable in operation.weights)
    return frozenset(paths)


def _rate(config: TrainConfig, phase: Phase, steps: int) -> Any:
    if config.schedule == "plateau":
        return plateau_rate(config, phase, ())
    warmup = round(phase.warmup * steps)
    return keras.optimizers.schedules.CosineDecay(
        phase.learning_rate / 100 if warmup else phase.learning_rate,
        max(1, phase.epochs * steps - warmup),
        alpha=phase.final_rate,
        warmup_target=phase.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def _momentum(ema: float, steps: int) -> float:
    """``ema``, or less in a phase too short to forget its first weights."""
    return min(ema, max(0.5, 1 - _FORGETTING / steps))


def plateau_rate(config: TrainConfig, phase: Phase, records: Sequence[EpochRecord]) -> float:
    """The rate after these epochs of a phase: halved each time the score has not risen for long.

    The warm-up goes in steps of an epoch. All follows from the history alone, so that a resumed run
    has it again.
    """
    rate, best, waited = phase.learning_rate, -math.inf, 0
    for record in records:
        if record.area is None:
            continue
        best, waited = (record.area, 0) if record.area > best else (best, waited + 1)
        if waited >= config.plateau_patience:
            rate, waited = rate * _PLATEAU_FACTOR, 0
    warm = min(1.0, (len(records) + 1) / (phase.warmup + 1))
    return warm * max(rate, phase.learning_rate * phase.final_rate)


def epochs_since_best(scores: Sequence[float]) -> int:
    """The number of scores since the first highest one; 0 without scores."""
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


@contextlib.contextmanager
def averaged_weights(learner: keras.Model, optimiser: Any) -> Iterator[None]:
    """Swap in the moving average of the trained variables, if the optimiser keeps one."""
    if not optimiser.use_ema:
        yield
        return
    variables = learner.trainable_variables
    own = [keras.ops.convert_to_numpy(variable) for variable in variables]
    optimiser.finalize_variable_values(variables)
    for variable in variables:  # on JAX predicting uses up what it is given: let that be a copy
        variable.assign(keras.ops.copy(variable))
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
