"""What an evaluation says, by hand where the answer is known, and that its files say the same."""

import contextlib
import hashlib
import io
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kpdata as kp
from kpdata.core.crop import CropRule
from kpdata.core.errors import DatasetError, SchemaError, TrainingError
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.metrics import Unpredicted
from kpdata.shards.dataset import Dataset
from kpdata.storage.atomic import replaced_files
from kpdata.storage.files import file_blake3
from kpdata.train.data.crops import load
from kpdata.train.evaluate.evaluate import check_skeleton, placed_baseline
from kpdata.train.evaluate.report import (
    FILES,
    METRICS,
    crop_source,
    notes_on,
    read_report,
    split_hash,
)
from kpdata.train.evaluate.scores import chosen_reference, pck_curve, reference_note, score_all
from kpdata.train.infer import predictions as files
from kpdata.train.infer.predictions import Predictions, Recorded, Truth
from kpdata.train.run.folder import RunInfo

METRIC_NAMES = {
    "PCK@0.2", "PCKh@0.5", "pckh@0.707 (stretched)", "PCP@0.5", "AUC@0.2", "EPE", "NME", "OKS AP",
    "visibility accuracy", "visibility ROC AUC",
}  # fmt: skip

CROSS = Skeleton(
    name="cross",
    keypoints=("top", "bottom", "left_arm", "right_arm"),
    edges=(("top", "bottom"), ("left_arm", "right_arm")),
    sigmas={"top": 0.05, "bottom": 0.05, "left_arm": 0.05, "right_arm": 0.05},
    torso=("top", "bottom"),
    head=("left_arm", "right_arm"),
)


def crosses(count=5):
    """``count`` crosses 100 px high and 60 px wide; the right arm is occluded, all are labelled."""
    shape = np.array([[50, 0, 2], [50, 100, 2], [20, 30, 2], [80, 30, 1]], float)
    keypoints = np.tile(shape, (count, 1, 1))
    keypoints[..., 0] += np.arange(count)[:, None]
    box = [[20 + i, 0, 80 + i, 100] for i in range(count)]
    return Truth(
        source_id=tuple(f"crop {i}" for i in range(count)),
        instance=np.zeros(count, np.int64),
        keypoints=keypoints,
        image_size=np.full((count, 2), 256.0),
        area=np.full(count, 6000.0),
        bbox_xyxy=np.array(box, float),
        head_size=np.full(count, np.nan),
    )


def random_truth(skeleton, count, seed=0):
    rng = np.random.default_rng(seed)
    k = len(skeleton)
    visibility = rng.choice([0, 1, 2], (count, k, 1), p=[0.1, 0.2, 0.7])
    keypoints = np.concatenate([rng.uniform(0, 200, (count, k, 2)), visibility], axis=2)
    return Truth(
        source_id=tuple(f"{i // 2:06}" for i in range(count)),
        instance=np.arange(count) % 2,
        keypoints=np.where(visibility > 0, keypoints, 0.0),
        image_size=rng.uniform(200, 300, (count, 2)),
        area=np.where(np.arange(count) == 1, np.nan, rng.uniform(5e3, 2e4, count)),
        bbox_xyxy=np.where(np.arange(count)[:, None] == 2, np.nan, [0.0, 1.5, 150.25, 200]),
        head_size=np.full(count, np.nan),
    )


def answers(truth, noise=0.0, seed=0, heads=("heatmap", "coordinates"), scale=1.0):
    """Predictions as far from the truth as ``noise``, and a baseline further away."""
    rng = np.random.default_rng(seed)
    keypoints = {}
    for head in heads:
        error = noise * rng.normal(size=(*truth.keypoints.shape[:2], 2))
        score = rng.uniform(0, 1, (*truth.keypoints.shape[:2], 1))
        keypoints[head] = np.concatenate([truth.keypoints[..., :2] + error, score], axis=2)
    visibility = (truth.keypoints[..., 2] == 2).astype(np.float32)
    baseline = np.full_like(truth.keypoints, 100.0) * scale
    baseline[..., 2] = 1
    return Predictions(keypoints, visibility, heads[0]), baseline


def by_name(scores):
    return {score.name: score for score in scores}


# --- scores ---------------------------------------------------------------------------------------


def test_perfect_predictions_score_one_on_every_head():
    truth = crosses()
    scores = score_all(CROSS, truth, *answers(truth), resamples=10)
    assert not scores.not_computed
    assert set(scores.heads) == {"heatmap", "coordinates"}
    for head in scores.heads.values():
        values = {score.name: score.value for score in head}
        assert values.pop("EPE") == 0
        assert values.pop("NME (torso)") == 0
        assert values == pytest.approx(dict.fromkeys(values, 1.0))
        assert len(values) == 6
    assert [score.value for score in scores.visibility] == [1, 1]


def test_scores_of_known_errors():
    # 5 crosses, 20 keypoints, torso 100 px, head 60 px. Three left arms are 25 px off: more than
    # 0.2 × 100 and less than 0.5 × 60; one bottom is 31 px off: more than 0.5 × 60, less than
    # √0.5 × 60 = 42.4; PCP: 31 < 50 and 25 < 30, so that no limb is lost.
    truth = crosses()
    predictions, baseline = answers(truth, heads=("heatmap",))
    predictions.keypoints["heatmap"][:3, 2, 0] += 25
    predictions.keypoints["heatmap"][4, 1, 1] -= 31
    found = by_name(score_all(CROSS, truth, predictions, baseline, resamples=10).heads["heatmap"])
    assert found["PCK@0.2 (torso)"].value == pytest.approx(16 / 20)
    assert found["PCKh@0.5"].value == pytest.approx(19 / 20)
    assert found["pckh@0.707 (stretched)"].value == 1
    assert found["PCP@0.5"].value == 1
    assert found["EPE"].value == pytest.approx((3 * 25 + 31) / 20)
    assert found["NME (torso)"].value == pytest.approx((3 * 0.25 + 0.31) / 20)
    assert found["AUC@0.2 (torso)"].value == pytest.approx(16 / 20)
    pck = found["PCK@0.2 (torso)"]
    assert pck.parts == pytest.approx({"top": 1, "bottom": 0.8, "left_arm": 0.4, "right_arm": 1})
    assert pck.averaged == pytest.approx({"top": 1, "bottom": 0.8, "arm": 0.7})
    assert (pck.n, pck.counted) == (20, "keypoints")
    low, high = pck.interval
    assert low < pck.value < high


def test_the_floor_beside_each_score_is_that_of_the_mean_pose():
    # The baseline is 100, 100 for all: cross i's bottom (50 + i, 100) is 50 − i away, its right arm
    # (80 + i, 30) is √((20 − i)² + 70²) > 70 away, the others further. Within 0.47 × 100: the
    # bottoms of i = 3 and 4 alone; within 0.2: none.
    truth = crosses()
    scores = score_all(CROSS, truth, *answers(truth), resamples=10)
    for head in scores.heads.values():
        assert by_name(head)["PCK@0.2 (torso)"].baseline == 0
        offset = truth.keypoints[..., :2] - 100
        assert by_name(head)["EPE"].baseline == pytest.approx(np.hypot(*offset.T).mean())
    poses = truth.poses(CROSS, answers(truth)[1])
    assert pck_curve(poses, "torso")[47] == pytest.approx(2 / 20)
    assert [score.name for score in scores.baseline] == [s.name for s in scores.heads["heatmap"]]
    # Every keypoint called visible: right for three of four, and no keypoint above another.
    assert [score.baseline for score in scores.visibility] == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize("skeleton", [CROSS, LSP14, COCO17, Skeleton("dot", ("dot",))])
@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("sees", [True, False])
def test_each_metric_is_computed_or_has_a_reason(skeleton, boxes, sees):
    truth = random_truth(skeleton, 6)
    if not boxes:
        truth = replace(truth, bbox_xyxy=np.full((6, 4), np.nan), area=np.full(6, np.nan))
    predictions, baseline = answers(truth, noise=5)
    predictions = predictions if sees else replace(predictions, visibility=None)
    scores = score_all(skeleton, truth, predictions, baseline, resamples=2)
    computed = {
        score.name.removesuffix(" (torso)").removesuffix(" (bbox)")
        for score in (*scores.heads["heatmap"], *scores.visibility)
    }
    assert computed | set(scores.not_computed) == METRIC_NAMES
    assert not computed & set(scores.not_computed)
    assert all(scores.not_computed.values())


def test_reasons_name_what_is_missing():
    truth = replace(crosses(), bbox_xyxy=np.full((5, 4), np.nan), area=np.full(5, np.nan))
    bare = Skeleton("bare", CROSS.keypoints)
    predictions, baseline = answers(truth)
    scores = score_all(bare, truth, replace(predictions, visibility=None), baseline, resamples=2)
    reasons = scores.not_computed
    assert "bare names no torso pair, and no instance has a bounding box" in reasons["PCK@0.2"]
    assert """the setting reference=["NAME", "NAME"]""" in reasons["PCK@0.2"]
    assert "names no head pair" in reasons["PCKh@0.5"]
    assert '"head": [name, name] to its JSON file' in reasons["PCKh@0.5"]
    assert "has no edges" in reasons["PCP@0.5"]
    assert "needs a sigma for every keypoint" in reasons["OKS AP"]
    assert "does not predict visibility" in reasons["visibility ROC AUC"]
    assert [score.name for score in scores.heads["heatmap"]] == ["EPE"]


def test_a_metric_of_nothing_is_a_reason_and_not_a_number():
    truth = crosses()
    truth.keypoints[..., 2] = 2
    scores = score_all(CROSS, truth, *answers(truth), resamples=2)
    assert "nothing to measure" in scores.not_computed["visibility ROC AUC"]
    assert [score.name for score in scores.visibility] == ["visibility accuracy"]
    truth.keypoints[:, 3] = 0  # no right arm: no head either
    scores = score_all(CROSS, truth, *answers(truth), resamples=2)
    assert "5 instances without a head reference" in scores.not_computed["PCKh@0.5"]


def test_without_a_torso_the_box_is_the_reference():
    # The box is 100 px high, as the torso is.
    truth, armless = crosses(), msgspec.structs.replace(CROSS, torso=None)
    predictions, baseline = answers(truth)
    predictions.keypoints["heatmap"][:3, 2, 0] += 25
    names = ("PCK@0.2 (bbox)", "AUC@0.2 (bbox)", "NME (bbox)")
    for skeleton in (armless, CROSS):
        if skeleton is CROSS:
            truth.keypoints[:, 0] = 0  # a torso pair that no instance has labelled
        found = by_name(
            score_all(skeleton, truth, predictions, baseline, resamples=2).heads["heatmap"]
        )
        assert set(names) <= set(found)
    assert found["PCK@0.2 (bbox)"].value == pytest.approx(12 / 15)


def test_a_given_reference_is_what_all_scores_divide_by():
    # 25 px off: not within 0.2 × the torso's 100 px, and within it × 130 px, arm to arm.
    truth = crosses()
    truth.keypoints[:, 3, 0] += 70
    predictions, baseline = answers(truth)
    predictions.keypoints["heatmap"][:, 0, 0] += 25
    arms = ("left_arm", "right_arm")
    scores = by_name(
        score_all(CROSS, truth, predictions, baseline, arms, resamples=2).heads["heatmap"]
    )
    assert scores["PCK@0.2 (left_arm–right_arm)"].value == 1
    assert scores["NME (left_arm–right_arm)"].value == pytest.approx(25 / 130 / 4)
    assert "AUC@0.2 (left_arm–right_arm)" in scores
    poses = truth.poses(CROSS, predictions.keypoints["heatmap"])
    assert pck_curve(poses, arms)[[19, 20]].tolist() == [0.75, 1]
    assert pck_curve(poses, "torso")[20] == 0.75


@pytest.mark.parametrize(
    ("torsos", "boxes", "chosen", "says"),
    [
        (5, 5, "torso", None),
        (3, 5, "torso", None),
        (2, 5, "bbox", "the reference length is bbox: 40% of 5 instances have both of the torso"),
        (2, 1, "torso", "the reference length is torso: 40% of 5 instances have both of the torso"),
        (1, 2, "bbox", "the reference length is bbox: 20% of 5 instances have both of the torso"),
        (0, 1, "bbox", None),
    ],
)
def test_the_reference_is_one_that_most_instances_have(torsos, boxes, chosen, says):
    truth = crosses()
    truth.keypoints[torsos:, 0] = 0
    truth.bbox_xyxy[boxes:] = np.nan
    poses = truth.poses(CROSS, truth.keypoints)
    assert chosen_reference(poses) == chosen
    note = reference_note(poses)
    assert note is None if says is None else note.startswith(says)


def test_predictions_that_are_no_numbers_are_refused():
    truth = crosses()
    predictions, baseline = answers(truth)
    predictions.keypoints["coordinates"][3, 1, 0] = np.nan
    with pytest.raises(SchemaError, match="predicted: instance 3, bottom is"):
        score_all(CROSS, truth, predictions, baseline, resamples=2)


def test_oks_ap_of_real_shards_is_pycocotools_on_cocos_own_file(
    real_data: Path, tmp_path: Path
) -> None:
    """Five crowds and 86 unlabelled people among 172 annotations; wrong guesses land on them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = real_data / "coco_mini" / "person_keypoints_train2017.json"
    labels = kp.read(annotations, images=annotations.parent / "train2017")
    kp.convert(labels, tmp_path / "shards", split="100/0/0", max_quarantine=100, progress=False)
    dataset = Dataset.open(tmp_path / "shards")
    crops = load(dataset, "train", CropRule("bbox"), 32)
    truth = Truth.of(crops)
    rng = np.random.default_rng(0)
    predictions, baseline = answers(truth, noise=4.0)
    found = predictions.keypoints["heatmap"]
    found[..., :2] += rng.normal(0, 1, (len(found), 1, 2)) * rng.choice([0, 80], (len(found), 1, 1))
    scores = score_all(COCO17, truth, predictions, baseline, resamples=2)
    ours = by_name(scores.heads["heatmap"])["OKS AP"]
    results = [
        {
            "image_id": int(key),
            "category_id": 1,
            "keypoints": (keypoints - (0.5, 0.5, 0)).ravel().tolist(),
            "score": float(keypoints[:, 2].mean()),
        }
        for key, keypoints in zip(truth.source_id, found, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(annotations)
        kept = {image["id"] for image in coco.dataset["images"]} & {
            int(s.key) for s in dataset["train"]
        }
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.params.imgIds = sorted(kept)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0.1 < ours.value < 0.9
    assert ours.value == pytest.approx(evaluation.stats[0], abs=1e-6)
    alone = score_all(
        COCO17, replace(truth, unpredicted=None), predictions, baseline, resamples=2
    ).heads["heatmap"]
    assert abs(by_name(alone)["OKS AP"].value - ours.value) > 0.001


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("skeleton", [CROSS, LSP14, COCO17])
def test_scores_computed_again_from_the_files_are_the_same_to_the_bit(skeleton, tmp_path):
    truth = random_truth(skeleton, 7)
    predictions, baseline = answers(truth, noise=8.0)
    files.write_truth(tmp_path / "truth.jsonl", truth)
    recorded = Recorded(truth.keys, predictions, baseline)
    files.write_predictions(tmp_path / "predictions.jsonl", recorded)
    again = files.read_predictions(tmp_path / "predictions.jsonl")
    read = files.read_truth(tmp_path / "truth.jsonl")
    assert read.keys == again.keys == truth.keys
    first = score_all(skeleton, truth, predictions, baseline, seed=3, resamples=20)
    second = score_all(skeleton, read, again.predictions, again.baseline, seed=3, resamples=20)
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


def test_instances_without_a_prediction_stand_in_the_file_and_count_again_when_it_is_read(
    tmp_path: Path,
) -> None:
    keypoints = np.stack([np.zeros((4, 3)), crosses(1).keypoints[0], np.zeros((4, 3))])
    others = Unpredicted(
        image_ids=("crop 0", "crop 0", "elsewhere"),
        keypoints=keypoints,
        bbox_xyxy=np.array([[0.0, 1.0, 60.25, 100.0], [np.nan] * 4, [np.nan] * 4]),
        area=np.array([np.nan, 6000.0, 12.0]),
        is_crowd=np.array([False, False, True]),
    )
    truth = replace(crosses(), unpredicted=others)
    files.write_truth(tmp_path / "truth.jsonl", truth)
    read = files.read_truth(tmp_path / "truth.jsonl")
    assert len(read) == 5
    for field in fields(Unpredicted):
        before, after = (getattr(each.unpredicted, field.name) for each in (truth, read))
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    scores = [score_all(CROSS, each, *answers(each), resamples=10) for each in (truth, read)]
    assert msgspec.json.encode(scores[0]) == msgspec.json.encode(scores[1])
    found = by_name(scores[1].heads["heatmap"])["OKS AP"]
    assert found.n == 6
    assert found.value == pytest.approx(84 / 101)  # 5 of 6 are found: recall 0.00 to 0.83
    lines = (tmp_path / "truth.jsonl").read_text().splitlines()
    (tmp_path / "truth.jsonl").write_text("\n".join(lines[5:]))
    with pytest.raises(DatasetError, match="names no instance that anything was predicted for"):
        files.read_truth(tmp_path / "truth.jsonl")
    (tmp_path / "truth.jsonl").write_text(lines[0].replace('"instance":0,', ""))
    with pytest.raises(DatasetError, match="line 1 lacks one of instance and image_size"):
        files.read_truth(tmp_path / "truth.jsonl")


finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(finite, finite, finite, finite), min_size=1, max_size=4))
def test_any_number_survives_the_files(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("numbers")
    values = np.array(rows)
    keypoints = values[:, None, :3]  # (N, 1, 3)
    truth = Truth(
        tuple(f"ö {i}" for i in range(len(rows))), np.arange(len(rows)), keypoints,
        values[:, :2], values[:, 3], values, np.full(len(rows), np.nan),
    )  # fmt: skip
    files.write_truth(folder / "truth", truth)
    read = files.read_truth(folder / "truth")
    for field in fields(Truth):
        before, after = getattr(truth, field.name), getattr(read, field.name)
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    seen = values[:, :1].astype(np.float32)
    made = Predictions({"a": keypoints, "b": 2 * keypoints}, seen, "b")
    files.write_predictions(folder / "answers", Recorded(truth.keys, made, 3 * keypoints))
    again = files.read_predictions(folder / "answers")
    assert (again.predictions.primary, again.keys) == ("b", truth.keys)
    for name, values in made.keypoints.items():
        np.testing.assert_array_equal(again.predictions.keypoints[name], values)
    np.testing.assert_array_equal(again.predictions.visibility, seen)
    np.testing.assert_array_equal(again.baseline, 3 * keypoints)


def test_a_line_begins_with_what_anyone_may_rely_on(tmp_path):
    truth = crosses(1)
    predictions, baseline = answers(truth)
    path = tmp_path / "predictions.jsonl"
    files.write_predictions(path, Recorded(truth.keys, predictions, baseline))
    (line,) = path.read_text().splitlines()
    found = msgspec.json.decode(line)
    assert list(found)[:3] == ["source_id", "instance", "keypoints"]
    assert found["keypoints"] == predictions.keypoints["heatmap"][0].tolist()
    assert found["head"] == "heatmap"
    assert "truth" not in line


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda lines: [], "is empty"),
        (lambda lines: [lines[0], lines[1][:-9]], "line 2"),
        (lambda lines: [lines[0], b"\xff\n"], "line 2"),
        (
            lambda lines: [lines[0], lines[1].replace(b'"heatmap"', b'"other"')],
            "line 2 holds other",
        ),
        (lambda lines: [lines[0], lines[1].replace(b"100.0", b"null", 1)], "line 2"),
    ],
)
def test_a_damaged_line_is_named(spoil, says, tmp_path):
    truth = crosses(2)
    path = tmp_path / "predictions.jsonl"
    files.write_predictions(path, Recorded(truth.keys, *answers(truth)))
    path.write_bytes(b"".join(spoil(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(DatasetError, match=says) as error:
        files.read_predictions(path)
    assert str(path) in str(error.value)


def test_missing_files_are_named(tmp_path):
    for read in (files.read_predictions, files.read_truth, read_report):
        with pytest.raises(DatasetError, match=r"gone is missing: an evaluation writes it"):
            read(tmp_path / "gone")
    (tmp_path / METRICS).write_text('{"kpdata": 3}')
    with pytest.raises(DatasetError, match=r"metrics\.json: not scores of this version"):
        read_report(tmp_path / METRICS)


# --- the folder -----------------------------------------------------------------------------------


def test_files_appear_all_together_and_replace_the_old_ones(tmp_path):
    folder = tmp_path / "deep" / "scores"
    with replaced_files(folder, FILES) as temporary:
        (temporary / METRICS).write_text("first")
        (temporary / "keypoints.png").write_text("first")
        assert not folder.exists()
    (folder / "mine.txt").write_text("kept")
    with replaced_files(folder, FILES) as temporary:
        (temporary / METRICS).write_text("second")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        METRICS: "second",
        "mine.txt": "kept",
    }
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failure_leaves_the_old_files_alone(tmp_path):
    folder = tmp_path / "scores"
    with replaced_files(folder, FILES) as temporary:
        (temporary / METRICS).write_text("first")
    with pytest.raises(IsADirectoryError), replaced_files(folder, FILES) as temporary:
        temporary.write_text("this cannot be")
    assert (folder / METRICS).read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


# --- what the scores depend on --------------------------------------------------------------------


def test_the_splits_hash_is_over_its_shards_and_vouches_for_them(tiny_shards: Path, tmp_path: Path):
    dataset = Dataset.open(tiny_shards)
    digests = [file_blake3(path) for path in sorted(tiny_shards.glob("train-*"))]
    text = "".join(f"{digest}\n" for digest in digests)
    assert len(digests) == 2
    assert split_hash(dataset, "train") == hashlib.sha256(text.encode()).hexdigest()
    assert split_hash(dataset, "test") != split_hash(dataset, "train")
    with pytest.raises(DatasetError, match="no split 'dev'; it has train, val, test"):
        split_hash(dataset, "dev")


def run_info(manifest, **changes):
    crops = {"train": 8, "val": 3}
    info = RunInfo("shards", manifest.root_hash, COCO17, "a crop", ((0.5, 0.5),) * 17, crops, {})
    return msgspec.structs.replace(info, **changes)


def test_notes_say_what_a_score_is_not(tiny_shards):
    manifest = Dataset.open(tiny_shards).manifest
    info = run_info(manifest)

    def said(split="test", crop="a crop", info=info, manifest=manifest, **crop_rule):
        return " | ".join(notes_on(split, crop, manifest, info, CropRule(**crop_rule), CropRule()))

    assert said() == ""
    assert "WARNING: the run was trained on these very images" in said("train")
    assert "WARNING: the run's best epoch was chosen by this split" in said("val")
    assert said("val", info=run_info(manifest, crops={"train": 8, "val": 0})) == ""
    elsewhere = run_info(manifest, root_hash="0123456789abcdef")
    assert "another dataset (root hash 0123456789ab…)" in said(info=elsewhere)
    assert "cannot be excluded" in said("train", info=elsewhere)
    other = "the run was trained on other crops: a square around the bbox, × 1.25"
    assert said(crop_from="keypoints") == said(margin=1.5) == other
    assert said(crop="the same crop in other words") == ""
    assert "oracle crop" in said(crop="a square around the keypoints, × 1.25")
    assert "annotated boxes" in said(crop="a square around the bbox, × 1.25")
    options = manifest.options | {"crop": 64, "crop_from": "keypoints", "margin": 1.5}
    cropped = msgspec.structs.replace(manifest, options=options)
    stored = "as the shards were cropped"
    assert crop_source(stored, cropped) == f"{stored}: around the keypoints, × 1.5"
    assert "oracle crop" in said(crop=stored, manifest=cropped)
    assert "do not count" in said(crop=stored, manifest=cropped)


def test_a_run_is_evaluated_on_its_own_keypoints_only():
    check_skeleton(CROSS, msgspec.structs.replace(CROSS, name="x", sigmas={}, edges=()))
    with pytest.raises(TrainingError) as error:
        check_skeleton(CROSS, Skeleton("other", ("top", "bottom", "left_arm", "tail")))
    assert "the dataset lacks right_arm; the run does not know tail" in str(error.value)
    assert "`to_skeleton`" in str(error.value)
    turned = Skeleton("turned", CROSS.keypoints[::-1])
    with pytest.raises(TrainingError, match="they stand in another order"):
        check_skeleton(CROSS, turned)


def test_a_mean_pose_of_another_length_names_the_damaged_file() -> None:
    crops = SimpleNamespace(skeleton=LSP14)
    with pytest.raises(TrainingError, match="mean_pose has 1 keypoints, and lsp14 14: its dataset"):
        placed_baseline([(0.5, 0.5)], crops)
