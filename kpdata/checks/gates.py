"""Checks before a long run: are the labels what they should be, and can the model learn?

Each check, a *gate*, is a pure function of arrays and takes well under a second. The comments at
the limits give the numbers measured on LSP, COCO and rendered data.
"""

from dataclasses import dataclass

import numpy as np

from kpdata.checks.placement import FEW, coordinate_faults, share_outside
from kpdata.checks.sides import (
    PairAgreement,
    PoseGroup,
    best_agreement,
    disagreeing_pair,
    orientation_groups,
)
from kpdata.core.sample import NOT_LABELLED, OCCLUDED, VISIBLE, FloatArray
from kpdata.core.skeleton import Skeleton

VISIBILITY, SIDES, COORDINATES = "visibility", "left and right", "coordinates"
OVERFIT, VARIETY = "overfit", "variety"

MOST_INSTANCES = 2000
"""Of a larger dataset, this many instances are checked, evenly spread."""

MOST_OCCLUDED = 0.6
"""Share of occluded keypoints: LSP 7 %, COCO 13 %, rendered scenes 31 %; inverted 93, 87, 69 %."""

SURELY_INVERTED = 0.85
"""CrowdPose, whose labels are sound, has 64 %: between these two, whole instances decide."""

FEW_SEEN = 5
"""Instances that are visible as a whole: fewer are no evidence that a flag is sound."""

_HIDDEN_PER_SEEN = 4
"""Of sound labels, instances seen whole are not that much rarer than those hidden whole."""

_CHANCE, _CERTAIN = 0.1, 4.0
"""How far a share must be from 50 %, and in how many standard deviations, not to be chance.

LSP shows 72 % of its people from the front; with left and right swapped in half of its samples, the
share is 50 ± 2 %."""

_ONE_SIDED = 0.97

_ENOUGH = 200
"""The least number of clear poses to judge sides by."""

OVERFIT_BAR, OVERFIT_WITHIN = 0.8, 0.05
"""The share of keypoints that must be found, and within which distance, in crop sides."""

LEAST_VARIETY = 0.1
"""The least spread of predictions between crops, in units of the truth's spread."""

_LEAST_SPREAD = 0.01
"""In units of the crop's side; a truth that spreads less is one pose plus noise."""

_GO_ON = "To train nevertheless: `skip_checks`."


@dataclass(frozen=True)
class Verdict:
    """The result of a gate.

    Attributes:
        gate: its name.
        passed: whether training may start.
        explanation: the measured numbers; for a failed gate also the likely cause, the fix, and how
            to skip the check.
    """

    gate: str
    passed: bool
    explanation: str


def check_data(
    truth: FloatArray, source_size: FloatArray, bbox_xyxy: FloatArray | None, skeleton: Skeleton
) -> list[Verdict]:
    """Check the labels of a training split; returns a verdict for each gate.

    Args:
        truth: (N, K, 3) x and y in source pixels, visibility 0, 1 or 2. Leave augmented copies out:
            a mirrored one swaps left and right.
        source_size: (N, 2) width and height of the source images.
        bbox_xyxy: (N, 4) in source pixels, NaN where there is none; None for none at all.
        skeleton: names the K keypoints; without flip pairs, sides are not judged.
    """
    some = np.unique(np.linspace(0, len(truth) - 1, MOST_INSTANCES).round().astype(int))
    if len(truth) > MOST_INSTANCES:
        truth, source_size = truth[some], source_size[some]
        bbox_xyxy = None if bbox_xyxy is None else bbox_xyxy[some]
    return [
        judge_visibility(truth[..., 2]),
        judge_sides(truth, skeleton),
        judge_coordinates(truth, source_size, bbox_xyxy),
    ]


def judge_visibility(visibility: FloatArray) -> Verdict:
    """Whether the visibility flag is inverted: most labelled keypoints should be visible.

    Args:
        visibility: (N, K) 0, 1 or 2.
    """
    labelled = int(np.count_nonzero(visibility != NOT_LABELLED))
    if labelled < FEW:
        return Verdict(VISIBILITY, True, f"not judged: only {labelled} labelled keypoints")
    occluded = int(np.count_nonzero(visibility == OCCLUDED))
    share = occluded / labelled
    numbers = f"{occluded:,} of {labelled:,} labelled keypoints ({share:.0%}) are occluded"
    if share <= MOST_OCCLUDED:
        return Verdict(VISIBILITY, True, numbers)
    hidden, seen = (
        int(((visibility == value) | (visibility == NOT_LABELLED)).all(axis=1).sum())
        for value in (OCCLUDED, VISIBLE)
    )
    is_crowd = seen >= FEW_SEEN and hidden <= _HIDDEN_PER_SEEN * seen
    if share <= SURELY_INVERTED and is_crowd:
        return Verdict(
            VISIBILITY,
            True,
            f"{numbers}, which is a lot; but {seen:,} instances are visible as a whole and "
            f"{hidden:,} occluded, as in pictures of crowds",
        )
    cause = "the flag is probably inverted"
    if occluded == labelled:
        cause = "the source's flag probably says what is labelled, not what is seen"
    return _failed(
        VISIBILITY,
        f"{numbers} (v = 1) and {labelled - occluded:,} visible (v = 2); LSP has 7 %, COCO 13 % "
        f"occluded. Likely cause: {cause}. COCO says 2 = visible, 1 = occluded; in LSP's "
        "joints.mat a 1 means occluded, in LSP extended a 1 means labelled. Fix: correct the flag "
        "in the annotations and convert again.",
    )


def judge_sides(truth: FloatArray, skeleton: Skeleton) -> Verdict:
    """Whether left and right are consistent within a pose, and between samples.

    Within a pose, the flip pairs must agree on which side is left, unless the body is twisted. A
    single 2-D pose with left and right exchanged looks like the same pose seen from behind, so it
    cannot be detected. Over a dataset it can: most pictures show people from the front, and from
    behind no nose is visible. With exchanged names, sides depend on neither.

    Args:
        truth: (N, K, 3) x, y, visibility.
        skeleton: its flip pairs are judged.
    """
    pairs = skeleton.flip_pairs or ()
    if len(pairs) < 2:
        return Verdict(SIDES, True, "not judged: the skeleton has fewer than two flip pairs")
    if disagreeing := disagreeing_pair(truth, skeleton, _ENOUGH):
        return _failed(
            SIDES,
            f"{disagreeing.describe()}, and with no other pair more often; in LSP and COCO pairs "
            "agree in 80 to 100 %. Likely cause: the two names of one of these pairs are exchanged "
            "in the skeleton or in some samples. Fix: compare the order of the skeleton's "
            "names with the annotations', and look at some images.",
        )
    pairs_found = best_agreement(truth, skeleton)
    if pairs_found is None or pairs_found.agreeing < _ENOUGH:
        count = pairs_found.agreeing if pairs_found else 0
        return Verdict(
            SIDES, True, f"not judged: {count} poses show two pairs clearly apart, {_ENOUGH} needed"
        )
    return _judge_balance(truth, skeleton, pairs_found)


def _judge_balance(truth: FloatArray, skeleton: Skeleton, pairs_found: PairAgreement) -> Verdict:
    all_, *groups = orientation_groups(pairs_found, truth[..., 2] == VISIBLE, skeleton)
    numbers = f"{pairs_found.describe()}; {all_.describe()}"
    if _is_unbalanced(all_):
        if all_.share > _ONE_SIDED:
            numbers += ": never seen from the other side, or labelled as the image shows it"
        return Verdict(SIDES, True, numbers)
    if unbalanced := max(
        filter(_is_unbalanced, groups), key=lambda group: group.certainty, default=None
    ):
        return Verdict(SIDES, True, f"{numbers}, but {unbalanced.describe()}")
    return _failed(
        SIDES,
        f"{numbers}; what is visible does not tell the side either. Labels in order show people "
        "more often from the front: LSP does in 72 %. Likely cause: left and right are exchanged "
        "in about half of the samples: pictures were mirrored without exchanging the names, or "
        "sources were joined of which one names sides as the person sees them, and one as the "
        "image shows them. Fix: draw some samples (left is orange, right is blue), correct the "
        "source at fault and convert again. Objects that are really seen as often from behind "
        "pass this check once their visibility is labelled.",
    )


def _is_unbalanced(group: PoseGroup) -> bool:
    return group.certainty >= _CERTAIN and group.imbalance >= _CHANCE


def judge_coordinates(
    truth: FloatArray, source_size: FloatArray, bbox_xyxy: FloatArray | None
) -> Verdict:
    """Whether coordinates are pixels of these images: inside them, spread out, and in their boxes.

    Args:
        truth: (N, K, 3) x, y, visibility.
        source_size: (N, 2) width and height.
        bbox_xyxy: (N, 4), NaN where there is none; None for none at all.
    """
    labelled = truth[..., 2] != NOT_LABELLED  # (N, K)
    truth, source_size = truth[labelled.any(axis=1)], source_size[labelled.any(axis=1)]
    if len(truth) < FEW:
        return Verdict(COORDINATES, True, f"not judged: only {len(truth)} labelled poses")
    if bbox_xyxy is not None:
        bbox_xyxy = np.asarray(bbox_xyxy)[labelled.any(axis=1)]
    labelled = labelled[labelled.any(axis=1)]
    xy = np.asarray(truth[..., :2], np.float64)
    fault = next(coordinate_faults(xy, labelled, source_size, bbox_xyxy), None)
    if fault is not None:
        return _failed(COORDINATES, f"{fault} Then convert again.")
    outside = share_outside(xy, labelled, source_size)
    low, high = np.percentile((xy / source_size[:, None])[labelled], [1, 99], axis=0)
    return Verdict(
        COORDINATES,
        True,
        f"{outside:.2%} of {labelled.sum():,} labelled keypoints lie outside of their images; most "
        f"lie between {low[0]:.0%} and {high[0]:.0%} of the width, {low[1]:.0%} and {high[1]:.0%} "
        "of the height",
    )


def judge_overfit(
    truth: FloatArray,
    predicted: FloatArray,
    side: float,
    steps: int,
    bar: float = OVERFIT_BAR,
    within: float = OVERFIT_WITHIN,
) -> Verdict:
    """Whether a model has learnt a few crops by heart; a sound set-up always can.

    Args:
        truth: (N, K, 3) keypoints in crop pixels, visibility 0, 1 or 2.
        predicted: (N, K, 2 or more) x and y in the same pixels, for the same crops.
        side: of the crops, in pixels.
        steps: number of training steps it had.
        bar: the share of labelled keypoints that must be found.
        within: the largest error of a keypoint that is found, in units of ``side``.
    """
    labelled = np.asarray(truth[..., 2] != NOT_LABELLED)
    given = f"{len(truth)} training crops seen {steps:,} times, without augmentation"
    if not np.isfinite(predicted[..., :2]).all():
        return _failed(
            OVERFIT,
            f"After {given}, predictions are not finite numbers. Likely cause: a learning rate too "
            "high, or a loss that overflows. Fix: lower learning_rate, or keep clip_norm on.",
        )
    if not labelled.any():
        return Verdict(OVERFIT, True, f"not judged: nothing that counts is labelled in {given}")
    error = np.linalg.norm(predicted[..., :2] - truth[..., :2], axis=2)[labelled]
    found = float(np.mean(error <= within * side))
    numbers = (
        f"{found:.0%} of {error.size} keypoints are found within {within:.0%} of the crop's "
        f"side, the median error is {np.median(error) / side:.1%} of it ({given})"
    )
    if found >= bar:
        return Verdict(OVERFIT, True, numbers)
    return _failed(
        OVERFIT,
        f"{numbers}; {bar:.0%} are expected of any model that can learn. Likely cause: labels that "
        "do not belong to their images, a learning rate too low or too high, or frozen variables. "
        "Fix: look at the images with their keypoints, then try another learning_rate.",
    )


def judge_variety(
    truth: FloatArray, predicted: FloatArray, side: float, least: float = LEAST_VARIETY
) -> Verdict:
    """Whether predictions differ between crops, rather than being the same pose for all.

    Args:
        truth: (N, K, 3) keypoints in crop pixels, visibility 0, 1 or 2.
        predicted: (N, K, 2 or more) x and y in the same pixels: not in source pixels, where one
            pose looks different in each crop.
        side: of the crops, in pixels.
        least: the expected spread in units of the truth's.
    """
    labelled = np.asarray(truth[..., 2:] != NOT_LABELLED)
    spread_true = _spread(np.where(labelled, truth[..., :2], np.nan))
    spread_predicted = _spread(np.where(labelled, predicted[..., :2], np.nan))
    if spread_true < _LEAST_SPREAD * side:
        return Verdict(
            VARIETY, True, f"not judged: the truth of {len(truth)} crops is nearly one pose"
        )
    numbers = (
        f"from crop to crop predictions move by {spread_predicted:.1f} pixels and the truth "
        f"by {spread_true:.1f} (root mean square over {len(truth)} crops)"
    )
    if spread_predicted >= least * spread_true:
        return Verdict(VARIETY, True, numbers)
    return _failed(
        VARIETY,
        f"{numbers}: the model answers every crop with nearly the same pose. Likely cause: it "
        "cannot see the crops (all black, wrongly normalised), or its activations have died. "
        "Fix: look at the crops, or lower learning_rate.",
    )


def _spread(xy: FloatArray) -> float:
    """Root mean square distance of each keypoint from its mean over the crops."""
    count = np.isfinite(xy).sum(axis=0, keepdims=True)
    mean = np.nansum(xy, axis=0, keepdims=True) / np.maximum(count, 1)
    return float(np.sqrt(np.nansum((xy - mean) ** 2) / max(1, count.sum() / 2)))


def _failed(gate: str, explanation: str) -> Verdict:
    return Verdict(gate, False, f"{explanation} {_GO_ON}")
