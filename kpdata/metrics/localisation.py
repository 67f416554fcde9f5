"""Metrics of the distance between predicted and true keypoints: PCK, PCP, AUC, EPE, NME."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import SchemaError
from kpdata.core.flip_pairs import Pair
from kpdata.core.sample import FloatArray
from kpdata.metrics.measure import Measure, ratio_of_sums
from kpdata.metrics.poses import (
    BoolArray,
    Lengths,
    Poses,
    Reference,
    distances,
    keypoint_groups,
    limb_groups,
    pair_lengths,
    reference_lengths,
    require_pair,
)

AUC_THRESHOLDS = np.arange(21) / 100
"""0, 0.01 … 0.2: both ends are included."""

STRETCHED_SIDE = 256
"""Side in pixels of the square that :func:`pckh_stretched` resizes images to."""

_WHICH = "all labelled keypoints count, occluded ones included"


def pck(poses: Poses, reference: Reference = "torso", threshold: float = 0.2) -> Measure:
    """PCK: the share of keypoints whose error is at most ``threshold`` reference lengths.

    Args:
        poses: truth and predictions.
        reference: ``torso``, ``head``, ``bbox`` (longer side), or a pair of keypoint names.
        threshold: in reference lengths.

    Raises:
        SchemaError: the poses have no such reference.
    """
    lengths = reference_lengths(poses, reference)
    errors = _normalised(distances(poses), lengths)
    name = "PCKh" if reference == "head" else "PCK"
    suffix = "" if reference == "head" else f" ({lengths.name})"
    definition = f"share of keypoints with error ≤ {threshold:g} × reference"
    return _share(poses, errors <= threshold, lengths, f"{name}@{threshold:g}{suffix}", definition)


def pckh(poses: Poses, threshold: float = 0.5) -> Measure:
    """PCKh: PCK by the source's head size, else by the skeleton's head pair."""
    return pck(poses, "head", threshold)


def pckh_stretched(poses: Poses) -> Measure:
    """``pckh@0.707 (stretched)``: d² ≤ 0.5 h² on images stretched to 256 × 256.

    h is the distance of the skeleton's head pair. A widespread reimplementation of BlazePose
    reports this as "PCK@0.5" on LSP: it compares squared distances, on images of a changed aspect
    ratio.

    Raises:
        SchemaError: no ``image_size``, or the skeleton has no head pair.
    """
    size = poses.require("image_size", "pckh@0.707 (stretched)")
    if not (np.isfinite(size) & (size > 0)).all():
        row = int(np.argwhere(~(np.isfinite(size) & (size > 0)))[0, 0])
        raise SchemaError(
            f"image_size: instance {row} has {size[row].tolist()}: expected width and height"
        )
    pair = require_pair(poses.skeleton, "head")
    scale = STRETCHED_SIDE / size  # (N, 2)
    definition = f"true distance {'–'.join(pair)}, on the image stretched to 256 × 256"
    lengths = Lengths(pair_lengths(poses, pair, scale), "head", definition)
    hits = distances(poses, scale) ** 2 <= 0.5 * lengths.values[:, None] ** 2
    name = "pckh@0.707 (stretched)"
    return _share(poses, hits, lengths, name, "share of keypoints with error² ≤ 0.5 × reference²")


def auc(poses: Poses, reference: Reference = "torso") -> Measure:
    """AUC: PCK averaged over the thresholds 0, 0.01 … 0.2, both ends included."""
    lengths = reference_lengths(poses, reference)
    errors = _normalised(distances(poses), lengths)
    passed = len(AUC_THRESHOLDS) - np.searchsorted(AUC_THRESHOLDS, errors, side="left")
    definition = "PCK averaged over the 21 thresholds 0, 0.01 … 0.2 (0 included) × reference"
    values = passed / len(AUC_THRESHOLDS)
    return _share(poses, values, lengths, f"AUC@0.2 ({lengths.name})", definition)


def pck_area(poses: Poses, reference: Reference = "torso", threshold: float = 0.2) -> Measure:
    """The exact area under PCK's curve from 0 to ``threshold``, as a share of the largest.

    A keypoint adds 1 - error / (threshold × reference), or 0 beyond it. Unlike PCK this still grows
    when every keypoint lies within the threshold. Arguments and errors as in :func:`pck`.
    """
    lengths = reference_lengths(poses, reference)
    errors = _normalised(distances(poses), lengths)
    values = np.clip(1 - errors / threshold, 0, 1)
    definition = f"area under the curve of PCK from 0 to {threshold:g} × reference, as a share"
    return _share(poses, values, lengths, f"PCK area@{threshold:g} ({lengths.name})", definition)


def nme(poses: Poses, reference: Reference = "torso") -> Measure:
    """NME: the mean error in reference lengths; arguments and errors as in :func:`pck`."""
    lengths = reference_lengths(poses, reference)
    errors = _normalised(distances(poses), lengths)
    name, definition = f"NME ({lengths.name})", "mean of error / reference"
    return _share(poses, errors, lengths, name, definition, unit="reference lengths")


def epe(poses: Poses) -> Measure:
    """EPE: the mean error in pixels of the source image."""
    return keypoint_mean(
        poses,
        distances(poses),
        poses.labelled,
        name="EPE",
        unit="px",
        definition=f"mean distance in pixels of the source image; {_WHICH}",
        left_out={"keypoints not labelled": int((~poses.labelled).sum())},
    )


def pcp(poses: Poses, limbs: Sequence[Pair] | None = None) -> Measure:
    """Strict PCP: limbs of which *both* ends lie within half the limb's true length.

    Args:
        poses: truth and predictions.
        limbs: pairs of keypoint names; a pair and its reverse count as one. None takes the
            skeleton's edges.

    Raises:
        SchemaError: no limb is given and the skeleton has no edges, or a name is unknown.
    """
    given = poses.skeleton.edges if limbs is None else limbs
    unique: dict[frozenset[str], Pair] = {}
    for limb in given:
        unique.setdefault(frozenset(limb), limb)
    limbs = tuple(unique.values())
    if not limbs:
        raise SchemaError(
            f"PCP needs limbs, and skeleton {poses.skeleton.name} has no edges: add edges to it"
        )
    ends = np.array([[poses.skeleton.index(name) for name in limb] for limb in limbs])  # (P, 2)
    lengths = np.stack([pair_lengths(poses, limb) for limb in limbs], axis=1)  # (N, P)
    hits = (distances(poses)[:, ends] <= 0.5 * lengths[..., None]).all(axis=2)
    counted = lengths > 0
    return Measure(
        name="PCP@0.5",
        unit="fraction",
        definition="share of limbs with both ends within 0.5 × the limb's true length (strict); "
        "limbs with both ends labelled count, occluded ones included",
        n=int(counted.sum()),
        counted="limbs",
        left_out={
            "limbs with an end not labelled": int(np.isnan(lengths).sum()),
            "limbs of length 0": int((lengths == 0).sum()),
        },
        units=len(poses),
        parts=tuple("–".join(limb) for limb in limbs),
        groups=limb_groups(poses.skeleton, limbs),
        estimate=ratio_of_sums(hits & counted, counted),
    )


def keypoint_mean(
    poses: Poses,
    values: npt.NDArray[Any],
    counted: BoolArray,
    *,
    name: str,
    unit: str,
    definition: str,
    left_out: dict[str, int],
) -> Measure:
    """Make a Measure: the mean of ``values`` (N, K) where ``counted`` (N, K) is True.

    The other arguments are fields of :class:`Measure`.
    """
    return Measure(
        name=name,
        unit=unit,
        definition=definition,
        n=int(counted.sum()),
        counted="keypoints",
        left_out=left_out,
        units=len(poses),
        parts=poses.skeleton.keypoints,
        groups=keypoint_groups(poses.skeleton),
        estimate=ratio_of_sums(np.where(counted, values, 0), counted),
    )


def _share(
    poses: Poses,
    values: npt.NDArray[Any],
    lengths: Lengths,
    name: str,
    definition: str,
    unit: str = "fraction",
) -> Measure:
    """The mean of ``values`` over the labelled keypoints of instances with a reference."""
    usable = lengths.usable[:, None]
    return keypoint_mean(
        poses,
        values,
        poses.labelled & usable,
        name=name,
        unit=unit,
        definition=f"{definition}; reference: {lengths.definition}; {_WHICH}",
        left_out=lengths.left_out
        | {"keypoints not labelled": int((~poses.labelled & usable).sum())},
    )


def _normalised(errors: FloatArray, lengths: Lengths) -> FloatArray:
    """(N, K) errors in reference lengths; NaN where the instance has no reference."""
    usable = np.where(lengths.usable, lengths.values, np.nan)
    return errors / usable[:, None]
