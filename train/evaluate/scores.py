"""All scores that can be computed from truth and predictions, and why others cannot.

They are pure functions of arrays, so an evaluation can be recomputed from its files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from kpdata import metrics
from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.flip_pairs import Pair
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.metrics import Measure, Poses, Score
from kpdata.metrics.measure import RESAMPLES
from kpdata.metrics.poses import Reference, pair_lengths, reference_lengths
from kpdata.train.infer.predictions import Predictions, Truth

CURVE_THRESHOLDS = np.arange(51) / 100
"""0, 0.01 … 0.5 reference lengths."""

BASELINE = (
    "the mean pose of the training crops, placed in each crop; for visibility, every keypoint "
    "called visible"
)

_USUAL = 0.5
"""The share of instances that a reference length must be there for, to be preferred."""

Measures = dict[str, Measure]
Reasons = dict[str, str]


@dataclass(frozen=True)
class Scores:
    """All scores of one model on one set of instances.

    Attributes:
        heads: head → its scores, each with the baseline's value; the same metrics for all.
        visibility: the visibility's scores; empty where the model does not tell it.
        baseline: the mean pose's own scores, in full.
        not_computed: metric → why there is no such score.
    """

    heads: dict[str, tuple[Score, ...]]
    visibility: tuple[Score, ...]
    baseline: tuple[Score, ...]
    not_computed: Reasons


def score_all(
    skeleton: Skeleton,
    truth: Truth,
    predictions: Predictions,
    baseline: FloatArray,
    reference: Reference | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scores:
    """Score every head, the visibility and the baseline.

    Args:
        skeleton: names the K keypoints.
        truth: of N instances.
        predictions: of the same, in the same order.
        baseline: (N, K, 3) the mean pose in the same crops.
        reference: what PCK, AUC and NME divide by; None takes :func:`chosen_reference`.
        seed: of the bootstrap; each metric begins anew with it.
        resamples: of the bootstrap.

    Raises:
        SchemaError: an array of the wrong shape, or a prediction that is not finite.
    """

    def scored(measures: Measures) -> tuple[Score, ...]:
        return tuple(m.score(np.random.default_rng(seed), resamples) for m in measures.values())

    mean_pose = truth.poses(skeleton, baseline)
    measures, reasons = localisation_measures(mean_pose, truth, reference)
    baselines = scored(measures)
    heads = {}
    for head, keypoints in predictions.keypoints.items():
        poses = truth.poses(skeleton, keypoints)
        measures, _ = localisation_measures(poses, truth, reference)
        heads[head] = _with_baselines(scored(measures), baselines)
    measures, more_reasons = visibility_measures(mean_pose, predictions.visibility)
    called_visible, _ = visibility_measures(mean_pose, np.ones(mean_pose.labelled.shape))
    visibility = _with_baselines(scored(measures), scored(called_visible)) if measures else ()
    return Scores(heads, visibility, baselines, reasons | more_reasons)


def localisation_measures(
    poses: Poses, truth: Truth, reference: Reference | None = None
) -> tuple[Measures, Reasons]:
    """The localisation metrics, and the reasons for those that cannot be computed.

    Args:
        poses: truth and predictions.
        truth: the same labels, and for AP what else is in their images.
        reference: what PCK, AUC and NME divide by; None takes :func:`chosen_reference`.
    """
    return _possible(
        {
            "PCK@0.2": lambda: metrics.pck(poses, reference or _usual_reference(poses)),
            "PCKh@0.5": lambda: metrics.pckh(poses),
            "pckh@0.707 (stretched)": lambda: metrics.pckh_stretched(poses),
            "PCP@0.5": lambda: metrics.pcp(poses),
            "AUC@0.2": lambda: metrics.auc(poses, reference or _usual_reference(poses)),
            "EPE": lambda: metrics.epe(poses),
            "NME": lambda: metrics.nme(poses, reference or _usual_reference(poses)),
            "OKS AP": lambda: metrics.average_precision(poses, truth.source_id, truth.unpredicted),
        }
    )


def visibility_measures(poses: Poses, probability: FloatArray | None) -> tuple[Measures, Reasons]:
    """The metrics of a visibility's probability (N, K), and the reasons for missing ones."""
    functions = {
        "visibility accuracy": metrics.visibility_accuracy,
        "visibility ROC AUC": metrics.visibility_roc_auc,
    }
    if probability is None:
        return {}, dict.fromkeys(functions, "the model does not predict visibility")
    return _possible({name: partial(f, poses, probability) for name, f in functions.items()})


def chosen_reference(poses: Poses) -> str:
    """``torso`` where at least half of the instances have one, else ``bbox`` where they do.

    Where neither is had by half of them, the one that more have.

    Raises:
        SchemaError: no instance has either.
    """
    shares = _shares(poses)
    usual = [name for name, share in shares.items() if share >= _USUAL]
    chosen = usual[0] if usual else max(shares, key=lambda name: shares[name])
    if shares[chosen]:
        return chosen
    torso = "has no instance with both of its torso" if poses.skeleton.torso else "names no torso"
    raise SchemaError(
        f"no reference length: skeleton {poses.skeleton.name} {torso} pair, and no instance has a "
        "bounding box"
    )


def longest_pair(poses: Poses) -> Pair | None:
    """The edge with the longest median; of a skeleton without edges, the pair of keypoints.

    One that less than half of the instances have labelled is taken only if all are such. None
    where no instance has two keypoints apart.
    """
    skeleton = poses.skeleton
    pairs = skeleton.edges or tuple(combinations(skeleton.keypoints, 2))
    best, best_rank = None, (False, 0.0)
    for pair in pairs:
        lengths = pair_lengths(poses, pair)
        lengths = lengths[lengths > 0]
        if len(lengths):
            rank = (len(lengths) >= _USUAL * len(poses), float(np.median(lengths)))
            if rank > best_rank:
                best, best_rank = pair, rank
    return best


def _usual_reference(poses: Poses) -> str:
    try:
        return chosen_reference(poses)
    except SchemaError as error:
        raise SchemaError(
            f"{error}: name two keypoints to measure by, in training (the setting reference="
            """["NAME", "NAME"]) or as "torso": ["NAME", "NAME"] in the skeleton's JSON file, """
            "and convert the shards with it as `to_skeleton`"
        ) from error


def reference_note(poses: Poses) -> str | None:
    """A note on :func:`chosen_reference`, where some instances have a torso, but not most."""
    share = _shares(poses)["torso"]
    if not 0 < share < _USUAL:
        return None
    return (
        f"the reference length is {chosen_reference(poses)}: {share:.0%} of {len(poses):,} "
        "instances have both of the torso pair labelled"
    )


def _shares(poses: Poses) -> dict[str, float]:
    """Reference → the share of instances that have one, by preference."""
    given = {"torso": poses.skeleton.torso, "bbox": poses.bbox_xyxy}
    return {
        name: 0.0 if value is None else float(reference_lengths(poses, name).usable.mean())
        for name, value in given.items()
    }


def pck_curve(poses: Poses, reference: Reference) -> FloatArray:
    """(51,) PCK at each of ``CURVE_THRESHOLDS``; NaN where nothing counts.

    Raises:
        SchemaError: the poses have no such reference.
    """
    return np.array([metrics.pck(poses, reference, t).value for t in CURVE_THRESHOLDS])


def _possible(tried: Mapping[str, Callable[[], Measure]]) -> tuple[Measures, Reasons]:
    """The measures that have a value; for the others, the reason why they have none."""
    measures, reasons = {}, {}
    for name, make in tried.items():
        try:
            measure = make()
        except KpdataError as error:
            reasons[name] = str(error)
            continue
        if np.isfinite(measure.value):
            measures[name] = measure
        else:
            left_out = "; ".join(f"{n} {what}" for what, n in measure.left_out.items() if n)
            reasons[name] = (
                f"nothing to measure: {measure.definition} ({left_out or 'none left out'})"
            )
    return measures, reasons


def _with_baselines(scores: tuple[Score, ...], baselines: tuple[Score, ...]) -> tuple[Score, ...]:
    return tuple(
        score.with_baseline(baseline) for score, baseline in zip(scores, baselines, strict=True)
    )
