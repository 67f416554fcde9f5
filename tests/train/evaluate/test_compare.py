"""Two models on the same instances: known differences, and refusals of unlike ones."""

import msgspec
import numpy as np
import pytest

from kpdata.core.errors import DatasetError
from kpdata.core.skeleton import Skeleton
from kpdata.train.evaluate.compare import compare_predictions, compare_runs
from kpdata.train.evaluate.report import METRICS, EvaluationSettings, Report
from kpdata.train.evaluate.scores import BASELINE, score_all
from kpdata.train.infer import predictions as files
from kpdata.train.infer.predictions import Predictions, Recorded, Truth

STICK = Skeleton(
    name="stick",
    keypoints=("top", "bottom", "left_end", "right_end"),
    edges=(("top", "bottom"),),
    torso=("top", "bottom"),
)
COUNT = 8


def sticks():
    """8 sticks 100 px long, two in each of four crops."""
    shape = np.array([[50, 0, 2], [50, 100, 2], [20, 30, 1], [80, 30, 2]], float)
    missing = np.full(COUNT, np.nan)
    return Truth(
        source_id=tuple(f"crop {i // 2}" for i in range(COUNT)),
        instance=np.arange(COUNT) % 2,
        keypoints=np.tile(shape, (COUNT, 1, 1)),
        image_size=np.full((COUNT, 2), 256.0),
        area=missing,
        bbox_xyxy=np.full((COUNT, 4), np.nan),
        head_size=missing,
    )


def off(truth, *rows, by=25.0, head="heatmap", sees=True):
    """Predictions that miss the left end of some instances by so many pixels."""
    keypoints = truth.keypoints.copy()
    keypoints[..., 2] = 0.9
    keypoints[list(rows), 2, 0] += by
    visibility = np.full(keypoints.shape[:2], 0.6) if sees else None
    return Predictions({head: keypoints, "other": keypoints + 500}, visibility, head)


def write(folder, truth, predictions, order=range(COUNT), skeleton=STICK, **changes):
    """What an evaluation would have left, with the lines in another order."""
    folder.mkdir(parents=True)
    order = list(order)
    heads = {name: values[order] for name, values in predictions.keypoints.items()}
    seen = None if predictions.visibility is None else predictions.visibility[order]
    baseline = truth.keypoints[order]
    names = ("keypoints", "image_size", "area", "bbox_xyxy", "head_size", "instance")
    truth = Truth(
        source_id=tuple(truth.source_id[i] for i in order),
        **{name: getattr(truth, name)[order] for name in names},
    )
    made = Predictions(heads, seen, predictions.primary)
    files.write_truth(folder / files.TRUTH, truth)
    files.write_predictions(folder / files.PREDICTIONS, Recorded(truth.keys, made, baseline))
    scores = score_all(STICK, truth, made, baseline, resamples=2)
    report = Report(
        kpdata="0.1.0", settings=EvaluationSettings(), epoch=1, crop="a crop", input_size=256,
        root_hash="a", trained_on="a", split_sha256="b", skeleton=skeleton, images=4,
        instances=COUNT,
        left_out={}, notes=(), primary=made.primary, heads=scores.heads,
        visibility=scores.visibility, baseline_definition=BASELINE, baseline=scores.baseline,
        not_computed=scores.not_computed,
    )  # fmt: skip
    (folder / METRICS).write_bytes(msgspec.structs.replace(report, **changes).json())
    return folder


def by_name(differences):
    return {difference.name: difference for difference in differences}


def test_known_differences():
    # The first misses 3 of 32 keypoints by a quarter of the torso, the second 1 by 0.3.
    truth = sticks()
    differences, reasons = compare_predictions(
        STICK, truth, off(truth, 0, 1, 5), off(truth, 1, by=30.0)
    )
    found = by_name(differences)
    pck = found["PCK@0.2 (torso)"]
    assert (pck.n, pck.unit) == (32, "fraction")
    assert (pck.overall.first, pck.overall.second) == pytest.approx((29 / 32, 31 / 32))
    assert pck.overall.difference == pytest.approx(2 / 32)
    assert pck.parts["left_end"].difference == pytest.approx(2 / 8)
    assert pck.averaged["end"].difference == pytest.approx(1 / 8)
    assert pck.parts["top"].interval == (0, 0)
    low, high = pck.overall.interval
    assert 0 <= low < 2 / 32 < high
    assert found["EPE"].overall.difference == pytest.approx((30 - 75) / 32)
    assert found["visibility accuracy"].overall.difference == 0
    assert set(reasons) == {"PCKh@0.5", "pckh@0.707 (stretched)", "OKS AP"}


def test_a_model_does_not_differ_from_itself():
    truth = sticks()
    differences, _ = compare_predictions(STICK, truth, off(truth, 2, 3), off(truth, 2, 3))
    assert len(differences) == 7
    for difference in differences:
        deltas = [difference.overall, *difference.parts.values(), *difference.averaged.values()]
        assert all(d.difference in (0, None) for d in deltas)
        assert difference.overall.interval == (0, 0)


def test_what_one_model_does_not_say_is_not_compared():
    truth = sticks()
    for pair in ((True, False), (False, True)):
        differences, reasons = compare_predictions(
            STICK, truth, *(off(truth, 0, sees=s) for s in pair)
        )
        assert "visibility accuracy" not in by_name(differences)
        assert reasons["visibility accuracy"] == "the model does not predict visibility"


def test_instances_are_matched_by_name_and_not_by_line(tmp_path):
    truth = sticks()
    first = write(tmp_path / "a" / "evaluation-val", truth, off(truth, 0, 1, 5))
    order = np.random.default_rng(0).permutation(COUNT)
    write(tmp_path / "b" / "evaluation-val", truth, off(truth, 1, by=30.0), order)
    comparison = compare_runs(tmp_path / "a", tmp_path / "b", "val", seed=7)
    expected, _ = compare_predictions(
        STICK, truth, off(truth, 0, 1, 5), off(truth, 1, by=30.0), seed=7
    )
    assert comparison.differences == expected
    assert (comparison.images, comparison.instances) == (4, 8)
    assert comparison.first.folder == str(first)
    # A folder that `evaluate --out` wrote stands for its run.
    assert compare_runs(first, tmp_path / "b", "val", seed=7) == comparison


def test_notes_name_every_other_difference(tmp_path):
    truth = sticks()
    first = write(tmp_path / "a", truth, off(truth, 0))
    second = write(
        tmp_path / "b", truth, off(truth, 0, head="coordinates"), crop="another",
        settings=EvaluationSettings(flip_test=False, reference=("left_end", "right_end")),
        primary="coordinates",
    )  # fmt: skip
    assert compare_runs(first, first, "test").notes == ()
    assert set(compare_runs(first, second, "test").notes) == {
        "crop differs: a crop and another",
        "head differs: heatmap and coordinates",
        "flip test differs: True and False",
        "reference (that of the first is taken for both) differs: torso or bbox and "
        "left_end–right_end",
    }


def test_what_both_were_measured_by_is_what_they_are_compared_by(tmp_path):
    # 25 px off: within 0.2 × 140 px, and not within 0.2 × the torso's 100 px.
    truth = sticks()
    truth.keypoints[:, 3, 0] = 160
    settings = EvaluationSettings(reference=("left_end", "right_end"))
    first = write(tmp_path / "a", truth, off(truth, 0), settings=settings)
    second = write(tmp_path / "b", truth, off(truth), settings=settings)
    found = by_name(compare_runs(first, second, "test").differences)
    assert found["PCK@0.2 (left_end–right_end)"].overall.difference == 0
    assert found["EPE"].overall.difference < 0


def test_a_run_without_evaluation_says_what_to_run(tmp_path):
    with pytest.raises(DatasetError) as error:
        compare_runs(tmp_path, tmp_path, "test")
    assert f"{tmp_path}/evaluation-test holds no metrics.json" in str(error.value)
    assert f"first evaluate {tmp_path} on a dataset's `split` test" in str(error.value)


def test_other_instances_are_refused(tmp_path):
    truth = sticks()
    first = write(tmp_path / "a", truth, off(truth, 0))
    second = write(tmp_path / "b", truth, off(truth, 0), order=range(6))
    with pytest.raises(DatasetError) as error:
        compare_runs(first, second, "test")
    assert "6 are in both, 2 only in the first, 0 only in the second" in str(error.value)
    assert "('crop 3', 0)" in str(error.value)
    third = write(tmp_path / "c", truth, off(truth, 0), order=[0, 1, 1])
    with pytest.raises(DatasetError, match="an instance stands there twice"):
        compare_runs(first, third, "test")


@pytest.mark.parametrize("change", [(0, 0.2), (2, -1)])
def test_another_truth_is_refused(tmp_path, change):
    truth, other = sticks(), sticks()
    other.keypoints[3, 1, change[0]] += change[1]
    first = write(tmp_path / "a", truth, off(truth, 0))
    second = write(tmp_path / "b", other, off(truth, 0))
    with pytest.raises(DatasetError, match=r"different truths: bottom of .'crop 1', 1. is"):
        compare_runs(first, second, "test")


def test_a_truth_read_through_another_crop_is_the_same(tmp_path):
    truth, other = sticks(), sticks()
    other.keypoints[..., 0] += 1e-3
    first = write(tmp_path / "a", truth, off(truth, 0))
    second = write(tmp_path / "b", other, off(truth, 0))
    assert compare_runs(first, second, "test").differences[0].overall.difference == 0


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    truth = sticks()
    first = write(tmp_path / "a", truth, off(truth, 0))
    renamed = Skeleton("renamed", ("a", "b", "c", "d"))
    second = write(tmp_path / "b", truth, off(truth, 0), skeleton=renamed)
    with pytest.raises(DatasetError, match="have different keypoints"):
        compare_runs(first, second, "test")
    third = write(tmp_path / "c", truth, off(truth, 0), skeleton=Skeleton("one", ("a",)))
    with pytest.raises(DatasetError, match=r"4 keypoints, metrics\.json names 1"):
        compare_runs(first, third, "test")
    (first / files.TRUTH).write_bytes((first / files.TRUTH).read_bytes().replace(b"op 3", b"op 4"))
    with pytest.raises(DatasetError, match="name different instances: evaluate again"):
        compare_runs(first, first, "test")
