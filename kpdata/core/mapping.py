"""Map keypoints from one skeleton to another, by name.

Each target keypoint is *exact* (the source has that name), *derived* (the mean of named source
keypoints, by the table below) or *missing* (v = 0 everywhere).
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from kpdata.core.sample import NOT_LABELLED, FloatArray, Sample, with_keypoints
from kpdata.core.skeleton import Skeleton

DERIVED: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "pelvis": ((("left_hip", "right_hip"), "MPII's pelvis lies midway between the hips"),),
    "thorax": (
        (("left_shoulder", "right_shoulder"), "MPII's thorax lies midway between the shoulders"),
    ),
    "neck": (
        (("upper_neck",), "LSP marks the neck where MPII marks the upper neck, at the head's base"),
        (("left_shoulder", "right_shoulder"), "nearest labelled place, a little below LSP's neck"),
    ),
    "upper_neck": (
        (("neck",), "LSP marks the neck where MPII marks the upper neck, at the head's base"),
    ),
}
"""Target name → alternatives in order of preference: the sources to average, and why."""


class MappedKeypoint(msgspec.Struct, frozen=True):
    """Where one target keypoint comes from.

    Attributes:
        name: in the target skeleton.
        how: ``exact``, ``derived`` or ``missing``; see the module.
        sources: names in the source skeleton, to average.
        reason: why a derived keypoint may stand for ``name``.
    """

    name: str
    how: Literal["exact", "derived", "missing"]
    sources: tuple[str, ...] = ()
    reason: str = ""


class Mapping(msgspec.Struct, frozen=True, dict=True):
    """How the K keypoints of ``source`` become the K' keypoints of ``target``."""

    source: Skeleton
    target: Skeleton
    keypoints: tuple[MappedKeypoint, ...]

    @cached_property
    def weights(self) -> FloatArray:
        """(K', K) how much of each source keypoint is in a target keypoint; rows sum to 1 or 0."""
        weights = np.zeros((len(self.target), len(self.source)), np.float64)  # (K', K)
        for row, keypoint in zip(weights, self.keypoints, strict=True):
            for name in keypoint.sources:
                row[self.source.index(name)] = 1 / len(keypoint.sources)
        return weights

    @cached_property
    def _used(self) -> npt.NDArray[np.bool_]:
        """(K', K) whether a target keypoint is made of a source keypoint."""
        return self.weights > 0

    def apply(self, keypoints: FloatArray) -> FloatArray:
        """Map (K, 3) to (K', 3). A derived keypoint gets the lowest visibility of its sources."""
        visibility = np.where(self._used, keypoints[:, 2], np.inf).min(axis=1)
        visibility[~self._used.any(axis=1)] = NOT_LABELLED
        return np.column_stack([self.weights @ keypoints[:, :2], visibility]).astype(np.float32)


def map_by_name(source: Skeleton, target: Skeleton, derive: bool = True) -> Mapping:
    """Map the keypoints of ``source`` to ``target``; those without a source become missing.

    Without ``derive``, so do those that could be derived.
    """
    alternatives = DERIVED if derive else {}
    origins = (_origin(name, source, alternatives.get(name, ())) for name in target.keypoints)
    return Mapping(source, target, tuple(origins))


def _origin(
    name: str, source: Skeleton, alternatives: Iterable[tuple[tuple[str, ...], str]]
) -> MappedKeypoint:
    if name in source.keypoints:
        return MappedKeypoint(name, "exact", (name,))
    for sources, reason in alternatives:
        if all(part in source.keypoints for part in sources):
            return MappedKeypoint(name, "derived", sources, reason)
    return MappedKeypoint(name, "missing")


def map_sample(sample: Sample, mapping: Mapping) -> Sample:
    """``sample`` with every instance's keypoints in the mapping's target skeleton."""
    instances = tuple(
        with_keypoints(instance, mapping.apply(instance.keypoints)) for instance in sample.instances
    )
    return replace(sample, instances=instances)
