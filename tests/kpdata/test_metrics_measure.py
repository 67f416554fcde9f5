import time

import msgspec
import numpy as np
import pytest

from kpdata.core.errors import SchemaError
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.metrics import (
    Poses,
    Score,
    auc,
    average_precision,
    compare,
    epe,
    nme,
    pck,
    pckh,
    pckh_stretched,
    pcp,
    visibility_accuracy,
    visibility_roc_auc,
)

DOT = Skeleton(name="dot", keypoints=("dot",))


def random_poses(skeleton, count, noise=10.0, seed=0):
    """Truth depends on ``seed`` alone, so that two noises give two models on the same instances."""
    rng = np.random.default_rng(seed)
    k = len(skeleton)
    xy = rng.uniform(0, 200, (count, k, 2))
    visibility = rng.choice([0, 1, 2], (count, k, 1), p=[0.1, 0.2, 0.7])
    error, score = rng.normal(0, 1, (count, k, 2)), rng.uniform(0, 1, (count, k, 1))
    return Poses(
        skeleton,
        np.concatenate([xy, visibility], axis=2),
        np.concatenate([xy + noise * error, score], axis=2),
        area=rng.uniform(5e3, 2e4, count),
        image_size=rng.uniform(100, 300, (count, 2)),
    )


def repeated(poses, counts):
    def repeat(array):
        return np.repeat(array, counts, axis=0)

    return Poses(
        poses.skeleton,
        *(repeat(array) for array in (poses.truth, poses.predicted, poses.area)),
        image_size=repeat(poses.image_size),
    )


def dots(right):
    """N instances of one keypoint, 5 px off where not ``right``; EPE is then 5 × share wrong."""
    truth = np.tile([0.0, 0.0, 2.0], (len(right), 1, 1))
    predicted = truth.copy()
    predicted[~np.asarray(right), 0, 0] = 5
    return Poses(DOT, truth, predicted)


@pytest.mark.parametrize(
    "metric", [pck, pckh, pckh_stretched, auc, nme, epe, pcp, visibility_accuracy,
               visibility_roc_auc, average_precision]
)  # fmt: skip
def test_weighting_an_instance_is_repeating_it(metric):
    skeleton = COCO17 if metric is average_precision else LSP14
    poses = random_poses(skeleton, 12)
    counts = np.array([0, 1, 2, 3, 1, 0, 4, 1, 1, 0, 2, 1])
    probability = np.round(np.random.default_rng(1).uniform(0, 1, poses.labelled.shape), 1)
    extra = (probability,) if "visibility" in metric.__name__ else ()
    weighted = metric(poses, *extra).estimate(counts[None].astype(float))
    copies = metric(repeated(poses, counts), *(np.repeat(e, counts, axis=0) for e in extra))
    direct = copies.estimate(np.ones((1, copies.units)))
    assert np.isfinite(direct[0, 0])
    np.testing.assert_allclose(weighted, direct, rtol=1e-12)


def test_interval_is_that_of_a_coin():
    # 400 instances, half of them 5 px off: the mean error has standard deviation
    # 5 × √(0.25 / 400) = 0.125, so 95 % lie within 2.5 ± 1.96 × 0.125 = 2.255 … 2.745.
    poses = dots(np.arange(400) % 2 == 0)
    score = epe(poses).score(np.random.default_rng(0), resamples=4000)
    assert score.value == 2.5
    assert score.interval == pytest.approx((2.255, 2.745), abs=0.03)


def test_same_seed_same_interval():
    measure = pck(random_poses(LSP14, 30))
    intervals = [measure.score(np.random.default_rng(seed)).interval for seed in (1, 1, 2)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_a_thousand_resamples_are_fast():
    measure = pck(random_poses(LSP14, 1000))
    measure.score(np.random.default_rng(0))
    start = time.perf_counter()
    measure.score(np.random.default_rng(0), resamples=1000)
    assert time.perf_counter() - start < 0.3


def test_a_score_survives_json():
    score = pck(random_poses(LSP14, 5)).score(np.random.default_rng(0))
    assert msgspec.json.decode(msgspec.json.encode(score), type=Score) == score
    assert score.baseline is None


def test_a_baseline_stands_beside_its_score():
    rng = np.random.default_rng(0)
    model, mean = (epe(dots(right)).score(rng) for right in ([True, True], [True, False]))
    assert model.with_baseline(mean).baseline == 2.5
    assert model.with_baseline(mean).value == 0


def test_a_baseline_of_something_else_is_refused():
    rng = np.random.default_rng(0)
    score = epe(dots([True, False])).score(rng)
    with pytest.raises(SchemaError, match="baseline of EPE: n is 2 in one and 3 in the other"):
        score.with_baseline(epe(dots([True, False, True])).score(rng))
    torso = pck(random_poses(LSP14, 3)).score(rng)
    with pytest.raises(SchemaError, match="name is"):
        torso.with_baseline(pckh(random_poses(LSP14, 3)).score(rng))


def test_difference_is_second_minus_first():
    # Means 2.5 and 1.25 px.
    first, second = dots([True, True, False, False]), dots([True, True, True, False])
    delta = compare(epe(first), epe(second), np.random.default_rng(0))
    assert (delta.overall.first, delta.overall.second) == (2.5, 1.25)
    assert delta.overall.difference == -1.25
    assert delta.parts["dot"] == delta.overall


def test_pairing_removes_what_the_models_share():
    # Both fail on the same half; the second is 1 px off on top, everywhere: always exactly +1.
    first = dots(np.arange(100) % 2 == 0)
    second = Poses(DOT, first.truth, first.predicted + np.array([1, 0, 0]))
    delta = compare(epe(first), epe(second), np.random.default_rng(0))
    assert delta.overall.interval == pytest.approx((1, 1))
    low, high = epe(first).score(np.random.default_rng(0)).interval
    assert high - low > 0.5


def test_paired_interval_is_that_of_a_loop():
    first, second = random_poses(LSP14, 60, noise=12), random_poses(LSP14, 60, noise=10)
    delta = compare(pck(first), pck(second), np.random.default_rng(0), resamples=2000)
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(1000):
        chosen = rng.integers(0, 60, 60)
        values = []
        for poses in (first, second):
            picked = Poses(LSP14, poses.truth[chosen], poses.predicted[chosen])
            measure = pck(picked)
            values.append(measure.estimate(np.ones((1, 60)))[0, 0])
        draws.append(values[1] - values[0])
    expected = np.percentile(draws, [2.5, 97.5])
    assert delta.overall.interval == pytest.approx(expected, abs=0.01)
    assert delta.overall.difference > 0
    assert set(delta.averaged) == set(pck(first).groups)
    mean = (delta.parts["left_hip"].difference + delta.parts["right_hip"].difference) / 2
    assert delta.averaged["hip"].difference == pytest.approx(mean)


def test_a_model_does_not_differ_from_itself():
    measure = average_precision(random_poses(COCO17, 20))
    delta = compare(measure, measure, np.random.default_rng(0), resamples=50).overall
    assert (delta.difference, delta.interval) == (0, (0, 0))


def test_different_metrics_are_not_compared():
    poses = random_poses(LSP14, 3)
    with pytest.raises(SchemaError, match=r"comparison of PCK@0\.2 \(torso\): name is"):
        compare(pck(poses), auc(poses), np.random.default_rng(0))


def test_many_instances_are_resampled_in_bounded_memory():
    # More instances than the weights held at a time: one resample per chunk.
    score = epe(dots(np.arange(300_000) % 2 == 0)).score(np.random.default_rng(0), resamples=3)
    assert score.interval == pytest.approx((2.5, 2.5), abs=0.05)
