"""Metrics of predicted visibility: how well it separates visible from occluded keypoints.

Only labelled keypoints count, since the truth of the others is unknown.
"""

from collections.abc import Callable

import numpy as np

from kpdata.core.errors import SchemaError
from kpdata.core.sample import VISIBLE, FloatArray
from kpdata.metrics.localisation import keypoint_mean
from kpdata.metrics.measure import Measure
from kpdata.metrics.poses import BoolArray, Poses, keypoint_groups

_WHICH = "labelled keypoints count, true class visible (v = 2) or occluded (v = 1)"


def visibility_accuracy(poses: Poses, probability: FloatArray, threshold: float = 0.5) -> Measure:
    """The share of labelled keypoints that are classified correctly as visible or occluded.

    Args:
        poses: the truth.
        probability: (N, K) predicted probability of being visible.
        threshold: a keypoint counts as predicted visible from this probability on.
    """
    called = _checked(poses, probability) >= threshold
    return keypoint_mean(
        poses,
        called == _visible(poses),
        poses.labelled,
        name="visibility accuracy",
        unit="fraction",
        definition=f"share called rightly, visible from probability {threshold:g}; {_WHICH}",
        left_out=_not_labelled(poses),
    )


def visibility_roc_auc(poses: Poses, probability: FloatArray) -> Measure:
    """The chance that a visible keypoint gets a higher probability than an occluded one.

    It is the area under the ROC curve (Mann–Whitney's U); None where a class is absent.

    Args:
        poses: the truth.
        probability: (N, K) predicted probability of being visible.
    """
    probability = _checked(poses, probability)
    visible, labelled = _visible(poses), poses.labelled
    one_by_one = [
        _roc_auc(probability[:, [k]], visible[:, [k]], labelled[:, [k]])
        for k in range(len(poses.skeleton))
    ]
    estimates = [_roc_auc(probability, visible, labelled), *one_by_one]
    return Measure(
        name="visibility ROC AUC",
        unit="fraction",
        definition="probability that a visible keypoint scores above an occluded one, "
        f"ties count half; {_WHICH}",
        n=int(labelled.sum()),
        counted="keypoints",
        left_out=_not_labelled(poses),
        units=len(poses),
        parts=poses.skeleton.keypoints,
        groups=keypoint_groups(poses.skeleton),
        estimate=lambda weights: np.column_stack([estimate(weights) for estimate in estimates]),
    )


def _roc_auc(
    probability: FloatArray, positive: BoolArray, counted: BoolArray
) -> Callable[[FloatArray], FloatArray]:
    """A function from weights (B, N) to (B,) areas under the ROC curve of (N, P) values."""
    instance = np.nonzero(counted)[0]
    order = np.argsort(probability[counted], kind="stable")
    instance, values = instance[order], probability[counted][order]
    is_positive = positive[counted][order]
    levels = np.flatnonzero(np.diff(values, prepend=-np.inf))  # where each distinct value begins

    def estimate(weights: FloatArray) -> FloatArray:
        if not len(values):
            return np.full(len(weights), np.nan)
        each = weights[:, instance]
        good = np.add.reduceat(each * is_positive, levels, axis=1)  # (B, levels)
        bad = np.add.reduceat(each, levels, axis=1) - good
        below = np.cumsum(bad, axis=1) - bad
        wins = (good * (below + bad / 2)).sum(axis=1)
        pairs = good.sum(axis=1) * bad.sum(axis=1)
        return np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0)

    return estimate


def _visible(poses: Poses) -> BoolArray:
    return poses.truth[..., 2] == VISIBLE


def _not_labelled(poses: Poses) -> dict[str, int]:
    return {"keypoints not labelled": int((~poses.labelled).sum())}


def _checked(poses: Poses, probability: FloatArray) -> FloatArray:
    values = np.asarray(probability, np.float64)
    if values.shape != poses.labelled.shape:
        raise SchemaError(
            f"visibility probability has shape {values.shape}: expected {poses.labelled.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        bad = values[~((values >= 0) & (values <= 1))][0]
        raise SchemaError(f"visibility probability {bad}: expected 0 to 1 (logits need a sigmoid)")
    return values
