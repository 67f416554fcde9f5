import builtins
import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest

from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.metrics import Poses, average_precision, oks

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


def coco_eval(poses, images):
    """pycocotools, told everything by hand."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for i, image in enumerate(images):
        truth, predicted = poses.truth[i], poses.predicted[i]
        common = {"image_id": image, "category_id": 1}
        box = [*truth[:, :2].min(axis=0), *np.ptp(truth[:, :2], axis=0)]
        annotations.append({
            **common, "id": i + 1, "iscrowd": 0, "area": poses.area[i], "bbox": box,
            "num_keypoints": int((truth[:, 2] > 0).sum()), "keypoints": truth.ravel().tolist(),
        })  # fmt: skip
        score = predicted[:, 2].mean()
        results.append({**common, "keypoints": predicted.ravel().tolist(), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in set(images)],
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
    with pytest.raises(SchemaError, match='skeleton lsp14 has none: give "sigmas"'):
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
