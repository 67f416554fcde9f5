from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpdata.core.errors import SchemaError
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import LSP14
from kpdata.metrics import (
    Poses,
    auc,
    distances,
    epe,
    nme,
    pck,
    pckh,
    pckh_stretched,
    pcp,
    reference_lengths,
)

BOAT = Skeleton(
    name="boat",
    keypoints=("bow", "stern", "left_rail", "right_rail"),
    edges=(("bow", "stern"), ("bow", "left_rail"), ("bow", "right_rail")),
    torso=("bow", "stern"),
    head=("left_rail", "right_rail"),
)
METRICS = (pck, pckh, pckh_stretched, auc, nme, epe, pcp)


def value(measure):
    return measure.score(np.random.default_rng(0), resamples=1).value


def parts(measure):
    return measure.score(np.random.default_rng(0), resamples=1).parts


def boat(offsets, visibility=(2, 2, 2, 2), **optional):
    """One boat: torso bow–stern is 10 long, head left_rail–right_rail 5; errors are ``offsets``."""
    xy = np.array([[0, 0], [10, 0], [3, 0], [3, 5]], float)
    truth = np.column_stack([xy, visibility])
    predicted = np.column_stack([xy + offsets, np.ones(4)])
    return Poses(BOAT, truth[None], predicted[None], **optional)


def together(*poses):
    truth, predicted = (np.concatenate([getattr(p, key) for p in poses]) for key in KEYS)
    return Poses(BOAT, truth, predicted)


KEYS = ("truth", "predicted")
ERRORS = [[0, 0], [0, 2], [2, 1], [3, 4]]
"""Distances 0, 2, √5 = 2.236, 5."""


@st.composite
def people(draw):
    """Integer coordinates: moving by integers and scaling by powers of 2 is then exact."""
    n = draw(st.integers(1, 5))
    whole = st.integers(0, 200).map(float)
    xy = draw(arrays(np.float64, (n, 14, 2), elements=whole))
    visibility = draw(arrays(np.float64, (n, 14, 1), elements=st.sampled_from([0.0, 1.0, 2.0])))
    error = draw(arrays(np.float64, (n, 14, 2), elements=st.integers(-30, 30).map(float)))
    scores = np.ones((n, 14, 1))
    size = draw(arrays(np.float64, (n, 2), elements=st.sampled_from([64.0, 128.0, 512.0])))
    truth = np.concatenate([xy, visibility], axis=2)
    return Poses(LSP14, truth, np.concatenate([xy + error, scores], axis=2), image_size=size)


def test_pck_counts_errors_up_to_the_threshold_times_the_torso():
    # 0.2 × 10 = 2: distances 0 and 2 pass (the border belongs to it), 2.236 and 5 do not.
    measure = pck(boat(ERRORS))
    assert parts(measure) == {"bow": 1, "stern": 1, "left_rail": 0, "right_rail": 0}
    assert value(measure) == 2 / 4
    assert (measure.n, measure.units) == (4, 1)


def test_pck_by_box_uses_the_longer_side():
    # Longer side 24: 0.1 × 24 = 2.4 lets 2.236 pass; by the shorter side 11, 1.1 would not.
    measure = pck(boat(ERRORS, bbox_xyxy=[[1, 2, 12, 26]]), "bbox", 0.1)
    assert value(measure) == 3 / 4


def test_pck_by_a_pair_of_names():
    # left_rail–right_rail is 5: 0.45 × 5 = 2.25 passes 0, 2 and 2.236.
    measure = pck(boat(ERRORS), ("left_rail", "right_rail"), 0.45)
    assert value(measure) == 3 / 4
    assert measure.name == "PCK@0.45 (left_rail–right_rail)"


def test_pckh_takes_the_head_pair_or_the_size_that_the_source_states():
    # Pair: 0.5 × 5 = 2.5 passes three. Stated size 3.8: 1.9 passes only the exact one.
    assert value(pckh(boat(ERRORS))) == 3 / 4
    stated = pckh(boat(ERRORS, head_size=[3.8]))
    assert value(stated) == 1 / 4
    assert "as the source states it" in stated.definition
    assert value(pckh(boat(ERRORS, head_size=[np.nan]))) == 3 / 4


def test_stated_head_sizes_are_never_mixed_with_the_pair():
    poses = together(boat(ERRORS), boat(ERRORS))
    measure = pckh(replace(poses, head_size=[3.8, np.nan]))
    assert measure.n == 4
    assert measure.left_out["instances without a head reference"] == 1


def test_seed_metric_compares_squares_on_the_stretched_image():
    # The image is 512 × 128: x shrinks by 2, y grows by 2. Head 5 along y becomes 10, h² = 100, so
    # d² ≤ 50. Errors (0, 0); (0, 3.5) → 7² = 49 passes; (0, 3.6) → 7.2² = 51.84 fails;
    # (14, 0) → 7² passes, though 14 > 0.707 × 5 in the image itself.
    errors = [[0, 0], [0, 3.5], [0, 3.6], [14, 0]]
    measure = pckh_stretched(boat(errors, image_size=[[512, 128]]))
    assert measure.name == "pckh@0.707 (stretched)"
    assert parts(measure) == {"bow": 1, "stern": 1, "left_rail": 0, "right_rail": 1}


def test_seed_metric_ignores_a_stated_head_size():
    sized = boat(ERRORS, head_size=[1.0], image_size=[[256, 256]])
    assert value(pckh_stretched(sized)) == 3 / 4  # h² / 2 = 12.5: 0, 4 and 5 pass, 25 does not


def test_auc_averages_21_thresholds_zero_included():
    # Errors over the torso: 0 passes 21 of 21; 0.1 passes 0.10 … 0.20, 11 of 21; 0.25 none;
    # 0.2 passes only the last.
    measure = auc(boat([[0, 0], [0, 1], [2.5, 0], [0, 2]]))
    assert list(parts(measure).values()) == pytest.approx([1, 11 / 21, 0, 1 / 21])
    assert value(measure) == pytest.approx(33 / 84)


def test_epe_and_nme():
    # (0 + 2 + √5 + 5) / 4 = 2.309 px; over the torso of 10: 0.2309.
    expected = (7 + 5**0.5) / 4
    assert value(epe(boat(ERRORS))) == pytest.approx(expected)
    assert value(nme(boat(ERRORS))) == pytest.approx(expected / 10)
    assert epe(boat(ERRORS)).unit == "px"


def test_pcp_wants_both_ends_within_half_the_limb():
    # bow–stern is 10 → 5: errors 0 and 2 pass. bow–left_rail is 3 → 1.5: 2.236 fails.
    # bow–right_rail is √34 → 2.915: 5 fails.
    measure = pcp(boat(ERRORS))
    expected = {"bow–stern": 1, "bow–left_rail": 0, "bow–right_rail": 0}
    assert parts(measure) == expected
    score = measure.score(np.random.default_rng(0))
    assert score.averaged == {"bow–stern": 1, "bow–rail": 0}
    assert (score.n, score.counted) == (3, "limbs")
    # A mean of the two ends' errors would pass: (0 + 5.2) / 2 < 5; strict PCP does not.
    assert value(pcp(boat([[0, 0], [0, 5.2], [0, 0], [0, 0]]), [("bow", "stern")])) == 0


def test_pcp_counts_a_limb_once_whichever_way_round_it_is_given():
    limbs = [("bow", "stern"), ("stern", "bow"), ("bow", "stern")]
    measure = pcp(boat(ERRORS), limbs)
    assert (measure.n, measure.parts) == (1, ("bow–stern",))


def test_left_out_is_counted():
    no_torso = boat(ERRORS, (0, 2, 2, 2))
    flat = boat(ERRORS)
    flat.truth[0, 1] = flat.truth[0, 0]
    partial = boat(ERRORS, (2, 1, 0, 2))
    measure = pck(together(no_torso, flat, partial))
    assert measure.left_out == {
        "instances without a torso reference": 1,
        "instances with torso length 0": 1,
        "keypoints not labelled": 1,
    }
    assert measure.n == 3
    assert value(measure) == 2 / 3  # bow and stern; right_rail is 5 off
    limbs = pcp(together(no_torso, flat, partial))
    assert limbs.left_out == {"limbs with an end not labelled": 3 + 1, "limbs of length 0": 1}
    assert limbs.n == 9 - 5


def test_occluded_keypoints_count():
    assert value(pck(boat(ERRORS, (1, 1, 1, 1)))) == value(pck(boat(ERRORS)))


def test_left_and_right_are_averaged_each_with_the_same_weight():
    # left_rail is found in one of two boats, right_rail in the only one that labels it: the mean
    # of 0.5 and 1, not 2 of 3.
    first, second = boat([[0, 0]] * 4), boat([[0, 0], [0, 0], [9, 0], [0, 0]], (2, 2, 2, 0))
    score = pck(together(first, second)).score(np.random.default_rng(0))
    assert score.parts["left_rail"] == 0.5
    assert score.averaged == {"bow": 1, "stern": 1, "rail": 0.75}


def test_lsp_tables_have_the_published_rows():
    poses = Poses(LSP14, np.ones((1, 14, 3)), np.ones((1, 14, 3)))
    rows = ["ankle", "knee", "hip", "wrist", "elbow", "shoulder", "neck", "head_top"]
    assert list(epe(poses).groups) == rows
    assert list(pcp(poses).groups)[:3] == ["ankle–knee", "knee–hip", "right_hip–left_hip"]


def test_averaged_names_never_collide():
    face = Skeleton(name="face", keypoints=("mouth", "mouth_left", "mouth_right", "lEye", "rEye"))
    face = replace_pairs(face, (("mouth_left", "mouth_right"), ("lEye", "rEye")))
    poses = Poses(face, np.ones((1, 5, 3)), np.ones((1, 5, 3)))
    groups = epe(poses).groups
    assert groups == {"mouth": (0,), "mouth_left/mouth_right": (1, 2), "lEye/rEye": (3, 4)}


def replace_pairs(skeleton, pairs):
    return Skeleton(name=skeleton.name, keypoints=skeleton.keypoints, flip_pairs=pairs)


@given(
    people(), st.tuples(st.integers(-99, 99), st.integers(-99, 99)), st.sampled_from([0.5, 2, 8])
)
def test_normalised_metrics_do_not_depend_on_place_or_scale(poses, shift, scale):
    def moved(keypoints):
        return np.concatenate([keypoints[..., :2] * scale + shift, keypoints[..., 2:]], axis=2)

    other = replace(poses, truth=moved(poses.truth), predicted=moved(poses.predicted))
    for metric in (pck, pckh, auc, pcp, nme):
        assert value(metric(other)) == value(metric(poses))
    if value(epe(poses)) is not None:
        assert value(epe(other)) == pytest.approx(scale * value(epe(poses)))


@given(people())
def test_perfect_predictions_are_perfect(poses):
    exact = replace(poses, predicted=poses.truth)
    for metric in METRICS:
        best = 0 if metric in (nme, epe) else 1
        assert value(metric(exact)) in (best, None)
        assert (value(metric(exact)) is None) == (metric(exact).n == 0)


@given(people(), st.randoms())
def test_order_of_instances_means_nothing(poses, random):
    order = random.sample(range(len(poses)), len(poses))
    names = ("truth", "predicted", "image_size")
    other = replace(poses, **{name: getattr(poses, name)[order] for name in names})
    for metric in METRICS:
        assert parts(metric(other)) == pytest.approx(parts(metric(poses)))
        assert metric(other).left_out == metric(poses).left_out


@given(people(), st.floats(-1e6, 1e6))
def test_unlabelled_keypoints_have_no_influence(poses, junk):
    unlabelled = ~poses.labelled[..., None]
    keep = np.array([1, 1, 0], bool)
    truth = np.where(unlabelled & keep, junk, poses.truth)
    other = replace(poses, truth=truth, predicted=np.where(unlabelled, -junk, poses.predicted))
    for metric in METRICS:
        one, two = metric(poses), metric(other)
        assert (value(one), parts(one), one.n) == (value(two), parts(two), two.n)


@given(people())
def test_agrees_with_loops(poses):
    assert value(pck(poses)) == pytest.approx(loop_pck(poses, 0.2))
    assert value(pcp(poses)) == pytest.approx(loop_pcp(poses))
    curve = [loop_pck(poses, step / 100) for step in range(21)]
    assert value(auc(poses)) == (None if None in curve else pytest.approx(sum(curve) / 21))


def gap(a, b):
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))  # rounded alike, so that ties fall alike


def loop_pck(poses, threshold):
    right = counted = 0
    for truth, predicted in zip(poses.truth.tolist(), poses.predicted.tolist(), strict=True):
        shoulder = truth[LSP14.keypoints.index("left_shoulder")]
        hip = truth[LSP14.keypoints.index("right_hip")]
        if not shoulder[2] or not hip[2] or gap(shoulder, hip) == 0:
            continue
        for true, guess in zip(truth, predicted, strict=True):
            if true[2]:
                counted += 1
                right += gap(true, guess) / gap(shoulder, hip) <= threshold
    return right / counted if counted else None


def loop_pcp(poses):
    right = counted = 0
    for truth, predicted in zip(poses.truth.tolist(), poses.predicted.tolist(), strict=True):
        for a, b in LSP14.edges:
            i, j = LSP14.keypoints.index(a), LSP14.keypoints.index(b)
            length = gap(truth[i], truth[j])
            if truth[i][2] and truth[j][2] and length:
                counted += 1
                errors = gap(truth[i], predicted[i]), gap(truth[j], predicted[j])
                right += max(errors) <= length / 2
    return right / counted if counted else None


def test_distances_are_nan_where_not_labelled():
    d = distances(boat(ERRORS, (2, 0, 1, 2)))
    assert np.isnan(d[0]).tolist() == [False, True, False, False]
    assert d[0, 3] == 5


def test_nothing_to_count_is_no_value():
    score = pck(boat(ERRORS, (0, 0, 0, 0))).score(np.random.default_rng(0))
    assert (score.value, score.n, score.interval) == (None, 0, None)
    assert score.parts["bow"] is None


PLAIN = Skeleton(name="plain", keypoints=("a", "b"))
plain = Poses(PLAIN, np.ones((1, 2, 3)), np.ones((1, 2, 3)))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda: pck(plain), "skeleton plain names no torso pair"),
        (lambda: pckh(plain), "skeleton plain names no head pair"),
        (lambda: pck(plain, "bbox"), "the reference 'bbox' needs bbox_xyxy"),
        (lambda: pck(plain, "foot"), "no reference 'foot': give torso, head, bbox or a pair"),
        (lambda: pck(plain, ("a", "c")), "plain has no keypoint 'c'"),
        (lambda: pckh_stretched(plain), r"pckh@0.707 \(stretched\) needs image_size"),
        (lambda: pckh_stretched(boat(ERRORS, image_size=[[0, 4]])), "instance 0 has"),
        (lambda: pcp(plain), "skeleton plain has no edges"),
    ],
)
def test_what_is_missing_is_named(metric, message):
    with pytest.raises(SchemaError, match=message):
        metric()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.ones((1, 3, 3))}, r"predicted has shape \(1, 3, 3\): expected \(1, 4, 3"),
        ({"area": np.ones(2)}, r"area has shape \(2,\): expected \(1,\)"),
        ({"truth": np.full((1, 4, 3), 3.0)}, "instance 0, bow is .*expected visibility 0, 1 or 2"),
        ({"predicted": np.full((1, 4, 3), np.nan)}, "predicted: instance 0, bow is .nan"),
        ({"truth": np.tile([np.inf, 0.0, 2.0], (1, 4, 1))}, "expected finite coordinates where"),
        ({"truth": np.ones((0, 4, 3)), "predicted": np.ones((0, 4, 3))}, "no instance"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    with pytest.raises(SchemaError, match=message):
        replace(boat(ERRORS), **change)


def test_reference_lengths_say_what_they_are():
    lengths = reference_lengths(boat(ERRORS), "torso")
    assert lengths.values.tolist() == [10]
    assert lengths.definition == "true distance bow–stern"
