"""Scores with bootstrap intervals, and paired comparisons of two models.

A bootstrap resample of N instances is a vector of N counts. A :class:`Measure` computes its metric
from such weights, so that resampling needs no coordinates. Two models are compared by giving both
the same weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from kpdata.core.errors import SchemaError
from kpdata.core.sample import FloatArray

Interval = tuple[float, float]

RESAMPLES = 1000
_CHUNK = 1 << 18
"""The number of weights in memory at once, which bounds it for any number of instances."""


class Score(msgspec.Struct, frozen=True):
    """The value of a metric, with its definition, count and uncertainty.

    Attributes:
        name: short, for a table: ``PCK@0.2 (torso)``.
        value: the metric over everything that counts; None if nothing does.
        unit: ``fraction`` (of 1), ``px`` or ``reference lengths``.
        definition: normaliser, pair, threshold, and which keypoints count.
        n: number of keypoints, limbs or instances that entered the value.
        counted: what n counts: ``keypoints``, ``limbs`` or ``instances``.
        left_out: reason → number of those that did not enter.
        parts: name → value of each keypoint, limb or OKS threshold alone.
        averaged: ``parts`` with each left/right pair replaced by its mean.
        interval: bootstrap 95 % interval of ``value`` over the instances.
        baseline: the same metric of the mean pose on the same instances; None until set.
    """

    name: str
    value: float | None
    unit: str
    definition: str
    n: int
    counted: str
    left_out: dict[str, int]
    parts: dict[str, float | None]
    averaged: dict[str, float | None]
    interval: Interval | None
    baseline: float | None = None

    def with_baseline(self, baseline: "Score") -> "Score":
        """This score, with the mean pose's value as its ``baseline``.

        Raises:
            SchemaError: ``baseline`` is another metric, or counted another number of instances.
        """
        _require_same("baseline", self, baseline, ("name", "definition", "n"))
        return msgspec.structs.replace(self, baseline=baseline.value)


class Delta(msgspec.Struct, frozen=True):
    """Two values, second − first, and the paired bootstrap 95 % interval of that difference."""

    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None


class Difference(msgspec.Struct, frozen=True):
    """Two models on the same instances; the fields are named as in :class:`Score`."""

    name: str
    unit: str
    definition: str
    n: int
    counted: str
    overall: Delta
    parts: dict[str, Delta]
    averaged: dict[str, Delta]


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric of given predictions, for any weights of the instances.

    Attributes:
        name, unit, definition, n, counted, left_out: as in :class:`Score`.
        units: number of units that the bootstrap resamples: instances, or images for AP.
        parts: P names, each with a value of its own.
        groups: name → indices in ``parts`` to average.
        estimate: function from weights (B, units) to values (B, 1 + P), the overall value first;
            NaN where nothing counts.
    """

    name: str
    unit: str
    definition: str
    n: int
    counted: str
    left_out: dict[str, int]
    units: int
    parts: tuple[str, ...]
    groups: dict[str, tuple[int, ...]]
    estimate: Callable[[FloatArray], FloatArray]

    @property
    def value(self) -> float:
        """The overall value; NaN if nothing counts."""
        return float(self.estimate(np.ones((1, self.units)))[0, 0])

    def score(self, rng: np.random.Generator, resamples: int = RESAMPLES) -> Score:
        """Compute the value and its percentile bootstrap interval; ``rng`` resamples."""
        values = self.estimate(np.ones((1, self.units)))[0]  # (1 + P,)
        draws = [self.estimate(weights)[:, 0] for weights in _resampled(self.units, rng, resamples)]
        return Score(
            name=self.name,
            value=_or_none(values[0]),
            unit=self.unit,
            definition=self.definition,
            n=self.n,
            counted=self.counted,
            left_out=self.left_out,
            parts=_named(self.parts, values[1:]),
            averaged=_named(self.groups, _averaged(values[None, 1:], self.groups)[0]),
            interval=_interval(np.concatenate(draws)),
        )


def compare(
    first: Measure, second: Measure, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Difference:
    """second − first, with paired bootstrap intervals: both get the same resamples.

    Both must have the same instances in the same order.

    Raises:
        SchemaError: the two are different metrics or counted different numbers of instances.
    """
    _require_same("comparison", first, second, ("name", "definition", "n", "units"))

    def both(weights: FloatArray) -> FloatArray:  # (B, units) → (2, B, 1 + P + groups)
        values = [measure.estimate(weights) for measure in (first, second)]
        return np.stack([np.hstack([v, _averaged(v[:, 1:], first.groups)]) for v in values])

    observed = both(np.ones((1, first.units)))[:, 0]  # (2, 1 + P + groups)
    draws = np.concatenate(
        [np.diff(both(weights), axis=0)[0] for weights in _resampled(first.units, rng, resamples)]
    )  # (resamples, 1 + P + groups)
    deltas = [
        Delta(_or_none(a), _or_none(b), _or_none(b - a), _interval(column))
        for (a, b), column in zip(observed.T, draws.T, strict=True)
    ]
    split = 1 + len(first.parts)
    return Difference(
        name=first.name,
        unit=first.unit,
        definition=first.definition,
        n=first.n,
        counted=first.counted,
        overall=deltas[0],
        parts=dict(zip(first.parts, deltas[1:split], strict=True)),
        averaged=dict(zip(first.groups, deltas[split:], strict=True)),
    )


def ratio_of_sums(
    total: npt.NDArray[Any], count: npt.NDArray[Any]
) -> Callable[[FloatArray], FloatArray]:
    """``Measure.estimate`` of a metric that is Σ total / Σ count.

    Args:
        total: (N, P) what each instance adds to the numerator of each part; 0 where not counted.
        count: (N, P) what it adds to the denominator.
    """
    parts = total.shape[1]
    sums = np.hstack([total, count]).astype(np.float64)  # (N, 2 P)

    def estimate(weights: FloatArray) -> FloatArray:
        summed = weights @ sums  # (B, 2 P)
        numerator, denominator = summed[:, :parts], summed[:, parts:]
        numerator = np.column_stack([numerator.sum(axis=1), numerator])
        denominator = np.column_stack([denominator.sum(axis=1), denominator])
        empty = np.full_like(numerator, np.nan)
        return np.divide(numerator, denominator, out=empty, where=denominator > 0)

    return estimate


def _resampled(units: int, rng: np.random.Generator, resamples: int) -> Iterator[FloatArray]:
    """Yield (B, units) resampling counts, in blocks of rows, ``resamples`` rows in all."""
    rows = max(1, _CHUNK // units)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * units)
        yield counts.reshape(size, units).astype(np.float64)


def _averaged(parts: FloatArray, groups: dict[str, tuple[int, ...]]) -> FloatArray:
    """(B, P) → (B, groups): the mean of each group's parts, without those that are NaN."""
    averaged = np.full((len(parts), len(groups)), np.nan)
    for column, group in enumerate(groups.values()):
        values = parts[:, list(group)]
        known = np.isfinite(values)
        count = known.sum(axis=1)
        total = np.where(known, values, 0).sum(axis=1)
        np.divide(total, count, out=averaged[:, column], where=count > 0)
    return averaged


def _interval(draws: FloatArray) -> Interval | None:
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return None
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return low, high


def _named(names: object, values: FloatArray) -> dict[str, float | None]:
    return dict(zip(names, map(_or_none, values), strict=True))  # type: ignore[call-overload]


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _require_same(
    what: str, first: Score | Measure, second: Score | Measure, keys: tuple[str, ...]
) -> None:
    for key in keys:
        ours, theirs = getattr(first, key), getattr(second, key)
        if ours != theirs:
            raise SchemaError(
                f"{what} of {first.name}: {key} is {ours!r} in one and {theirs!r} in the other; "
                "measure both with the same metric on the same instances"
            )
