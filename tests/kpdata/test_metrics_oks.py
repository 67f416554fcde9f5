import builtins
import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.metrics import Poses, Unpredicted, average_precision, oks

COCO_ORIGIN = np.array([0.5, 0.5, 0])
"""COCO counts keypoints from the first pixel's centre."""

BALL = Skeleton(name="ball", keypoints=("top", "bottom"), sigmas={"top": 0.1, "bottom": 0.05})


def people(count, noise=6.0, seed=0, labelled=0.8):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 200, (count, 17, 2))
    visibility = np.where(rng.uniform(size=(count, 17, 1)) < labelled, 2, 0)
    visibility[:, 0] = 2
    predicted = xy + rng.normal(0, noise, xy.shape) * rng.uniform(0, 3, (count, 1, 1))
    return Poses(
        COCO17,
        np.concatenate([xy, visibility], axis=2),
        np.concatenate([predicted, rng.uniform(0, 1, (count, 17, 1))], axis=2),
        area=rng.uniform(2e3, 2e4, count),
    )


def coco_eval(poses, images, others=()):
    """pycocotools, told everything by hand, in COCO's pixels; ``others`` are annotations."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for i, image in enumerate(images):
        truth, predicted = poses.truth[i] - COCO_ORIGIN, poses.predicted[i] - COCO_ORIGIN
        common = {"image_id": image, "category_id": 1}
        box = [*truth[:, :2].min(axis=0), *np.ptp(truth[:, :2], axis=0)]
        annotations.append({
            **common, "id": i + 1, "iscrowd": 0, "area": poses.area[i], "bbox": box,
            "num_keypoints": int((truth[:, 2] > 0).sum()), "keypoints": truth.ravel().tolist(),
        })  # fmt: skip
        score = predicted[:, 2].mean()
        results.append({**common, "keypoints": predicted.ravel().tolist(), "score": score})
    for i, other in enumerate(others, len(annotations) + 1):
        annotations.append({"category_id": 1, "id": i, **other})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in {each["image_id"] for each in annotations}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_oks_by_hand():
    # area 100. top: d² = 4, 2 · 100 · 0.2² = 8 → e^−0.5; bottom: d² = 9, 2 · 100 · 0.1² = 2 →
    # e^−4.5. With the bottom unlabelled only the first counts.
    truth = np.array([[[10, 10, 2], [10, 20, 1]], [[10, 10, 2], [0, 0, 0]]])
    predicted = np.array([[[12, 10, 1], [10, 23, 1]], [[12, 10, 1], [99, 99, 1]]])
    values = oks(Poses(BALL, truth, predicted, area=[100, 100]))
    assert values == pytest.approx([(np.exp(-0.5) + np.exp(-4.5)) / 2, np.exp(-0.5)])


def test_oks_is_that_of_pycocotools():
    poses = people(40)
    evaluation = coco_eval(poses, list(range(1, 41)))
    theirs = [evaluation.computeOks(image, 1)[0, 0] for image in range(1, 41)]
    np.testing.assert_allclose(oks(poses), theirs, rtol=1e-12)


@pytest.mark.parametrize("per_image", [1, 3, 25])
def test_ap_is_that_of_pycocotools(per_image):
    poses = people(60, noise=9)
    images = [1 + i // per_image for i in range(60)]
    stats = coco_eval(poses, images).stats
    score = average_precision(poses, images).score(np.random.default_rng(0), resamples=20)
    assert score.value == pytest.approx(stats[0], abs=1e-9)
    assert 0.05 < score.value < 0.95
    assert score.parts["AP@0.50"] == pytest.approx(stats[1], abs=1e-9)
    assert score.parts["AP@0.75"] == pytest.approx(stats[2], abs=1e-9)
    low, high = score.interval
    assert low < score.value < high


@st.composite
def crowded_pictures(draw):
    """Poses in 4 images, and others around them: crowds, without keypoints, and missed ones.

    The predictions of some poses fit one of the others better than their own.
    """
    poses = people(draw(st.integers(2, 12)), noise=9, seed=draw(st.integers(0, 99)))
    images = [draw(st.integers(1, 4)) for _ in range(len(poses))]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    others = []
    for _ in range(draw(st.integers(1, 8))):
        near = draw(st.integers(0, len(poses) - 1))
        keypoints = poses.predicted[near] + rng.normal(0, 3, (17, 3))
        keypoints[:, 2] = 2 if draw(st.booleans()) else 0
        x0, y0 = keypoints[:, :2].min(axis=0)
        others.append({
            "image_id": draw(st.integers(1, 5)),
            "iscrowd": int(draw(st.booleans())),
            "num_keypoints": int((keypoints[:, 2] > 0).sum()),
            "keypoints": (keypoints - COCO_ORIGIN).ravel().tolist(),
            "area": draw(st.floats(100, 2e4)),
            "bbox": [x0, y0, *np.ptp(keypoints[:, :2], axis=0)],
        })  # fmt: skip
    return poses, images, others


@given(crowded_pictures())
def test_ap_is_that_of_pycocotools_with_crowds_unlabelled_and_missed_people(case):
    poses, images, others = case
    stats = coco_eval(poses, images, others).stats
    boxes = np.array([other["bbox"] for other in others])
    keypoints = np.array([other["keypoints"] for other in others]).reshape(-1, 17, 3)
    unpredicted = Unpredicted(
        image_ids=tuple(other["image_id"] for other in others),
        keypoints=keypoints + COCO_ORIGIN,
        bbox_xyxy=np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
        area=np.array([other["area"] for other in others]),
        is_crowd=np.array([other["iscrowd"] for other in others], bool),
    )
    measure = average_precision(poses, images, unpredicted)
    assert measure.value == pytest.approx(stats[0], abs=1e-9)
    wanted = sum(other["num_keypoints"] > 0 and not other["iscrowd"] for other in others)
    assert measure.n == len(poses) + wanted


def test_a_prediction_on_a_crowd_counts_neither_for_nor_against():
    # Two people; the second's prediction lies on a crowd, at a place where nobody is labelled.
    poses = people(2, noise=0)
    lost = replace(poses, predicted=poses.predicted + np.array([[[0, 0, 0]], [[900, 900, 0]]]))
    crowd = Unpredicted((0,), np.zeros((1, 17, 3)), np.array([[900, 900, 1100, 1100.0]]),
                        np.array([4e4]), np.array([True]))  # fmt: skip
    without = average_precision(lost, [0, 0]).estimate(np.ones((1, 1)))
    with_crowd = average_precision(lost, [0, 0], crowd).estimate(np.ones((1, 1)))
    assert (without[0, 0], with_crowd[0, 0]) == (pytest.approx(51 / 101), pytest.approx(51 / 101))
    scores = lost.predicted.copy()
    scores[:, :, 2] = [[0.1], [0.9]]  # now the lost one ranks first
    ranked = replace(lost, predicted=scores)
    assert average_precision(ranked, [0, 0]).value < 0.3
    assert average_precision(ranked, [0, 0], crowd).value == pytest.approx(51 / 101)


def test_ties_are_ranked_by_the_images_number_as_in_coco():
    poses = people(30, noise=9)
    poses.predicted[..., 2] = 1
    images = np.random.default_rng(1).permutation(np.arange(5, 35)).tolist()
    stats = coco_eval(poses, images).stats
    assert average_precision(poses, list(map(str, images))).value == pytest.approx(stats[0])


def test_the_area_of_the_box_stands_in_for_one_that_is_not_there_and_that_is_said():
    poses = people(4)
    boxes = np.tile([10.0, 20.0, 60.0, 120.0], (4, 1))
    area = np.where(np.arange(4) < 2, np.nan, poses.area)
    mixed = replace(poses, area=area, bbox_xyxy=boxes)
    expected = replace(poses, area=np.where(np.isnan(area), 5000.0, area))
    np.testing.assert_array_equal(oks(mixed), oks(expected))
    measure = average_precision(mixed)
    assert measure.definition.endswith("; 2 instances count with the area of their box")
    assert measure.value == average_precision(expected).value
    assert average_precision(replace(mixed, area=None)).n == 4


def test_ap_uses_the_skeletons_own_sigmas():
    # top: d² = 4 gives e^−0.5 as above, bottom is exact: OKS (0.607 + 1) / 2 = 0.803 passes the
    # thresholds 0.50 … 0.80, 7 of 10.
    truth = np.array([[[10, 10, 2], [10, 20, 1]]])
    predicted = np.array([[[12, 10, 1], [10, 20, 1]]])
    measure = average_precision(Poses(BALL, truth, predicted, area=[100]))
    assert measure.estimate(np.ones((1, 1)))[0, 0] == pytest.approx(0.7)
    assert "sigmas of ball" in measure.definition


def test_images_are_what_is_resampled():
    assert average_precision(people(6), ["a", "b", "a", "c", "c", "c"]).units == 3


def test_perfect_predictions_have_ap_and_oks_1():
    poses = people(10)
    exact = replace(poses, predicted=poses.truth)
    assert oks(exact) == pytest.approx(1)
    assert average_precision(exact).estimate(np.ones((1, 10)))[0] == pytest.approx(1)


def test_order_of_instances_means_nothing():
    poses, order = people(30), np.random.default_rng(3).permutation(30)
    arrays = {name: getattr(poses, name)[order] for name in ("truth", "predicted", "area")}
    shuffled = replace(poses, **arrays)
    np.testing.assert_allclose(oks(shuffled), oks(poses)[order])
    ones = np.ones((1, 30))
    np.testing.assert_allclose(
        average_precision(shuffled).estimate(ones), average_precision(poses).estimate(ones)
    )


def test_unlabelled_keypoints_have_no_influence():
    poses = people(20)
    off = ~poses.labelled[..., None] & np.array([True, True, False])
    moved = replace(
        poses,
        truth=np.where(off, 5e5, poses.truth),
        predicted=np.where(off, -7e5, poses.predicted),
    )
    assert oks(moved).tolist() == oks(poses).tolist()
    ones = np.ones((1, 20))
    np.testing.assert_array_equal(
        average_precision(moved).estimate(ones), average_precision(poses).estimate(ones)
    )


def test_instances_that_oks_is_not_defined_for_are_left_out_and_counted():
    poses = people(6)
    poses.truth[1, :, 2] = 0
    poses.area[2:4] = 0, np.nan
    assert np.isnan(oks(poses)).tolist() == [False, True, True, True, False, False]
    measure = average_precision(poses)
    assert measure.left_out == {
        "instances without an area above 0": 2,
        "instances without a labelled keypoint": 1,
    }
    assert (measure.n, measure.units) == (3, 3)
    rest = [0, 4, 5]
    kept = Poses(COCO17, poses.truth[rest], poses.predicted[rest], poses.area[rest])
    ones = np.ones((1, 3))
    np.testing.assert_array_equal(measure.estimate(ones), average_precision(kept).estimate(ones))


@pytest.mark.parametrize("metric", [oks, average_precision])
def test_no_sigmas_no_oks(metric):
    poses = Poses(LSP14, np.ones((1, 14, 3)), np.ones((1, 14, 3)), area=[1])
    with pytest.raises(SchemaError, match='skeleton lsp14 has none: add "sigmas"'):
        metric(poses)


@pytest.mark.parametrize("metric", [oks, average_precision])
def test_no_area_no_oks(metric):
    with pytest.raises(SchemaError, match="needs area"):
        metric(replace(people(2), area=None))


def test_nothing_to_score_is_refused():
    with pytest.raises(SchemaError, match="no instance has a labelled keypoint and an area"):
        average_precision(replace(people(2), area=[0, 0]))
    with pytest.raises(SchemaError, match="image_ids holds 1 values for 2 instances"):
        average_precision(people(2), [1])


def test_pycocotools_is_asked_for_by_name(monkeypatch):
    def refuse(name, *args, **kwargs):
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(KpdataError, match=r"pip install 'kpdata\[train\]'"):
        average_precision(people(2))


def test_nothing_is_printed(capsys):
    average_precision(people(3))
    assert capsys.readouterr().out == ""
