"""``kpdata predict``, with a stand-in for the trained model."""

import io
import json
import sys
import weakref
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from kpdata.core.crop import CropRule
from kpdata.core.skeleton import Skeleton
from kpdata.formats.settings import load_skeleton
from kpdata.images import codec
from kpdata.train.infer.predictions import Predictions

SKELETON = Skeleton(
    "kite",
    ("nose", "left_tip", "right_tip"),
    edges=(("nose", "left_tip"),),
    sigmas={"nose": 0.05, "left_tip": 0.05, "right_tip": 0.05},
)
PLACES = np.array([[0.5, 0.25], [0.75, 0.5], [0.25, 0.5]])
"""Where the stand-in sees the keypoints, in parts of each picture's side."""


class StandIn:
    """Answers every picture with PLACES."""

    skeleton, input_size = SKELETON, 64
    crop_rule = CropRule("bbox", 1.25)
    score_note, trained_with_flips = None, True
    scores = (0.9, 0.5, 0.1)

    @classmethod
    def open(cls, run: Path, checkpoint: str = "best") -> "StandIn":
        assert run == Path("runs/a")
        cls.flips = set()
        return cls()

    def predict(self, crops, flip=True):
        self.flips.add(flip)
        linear, shift = crops.to_source[:, :, :2], crops.to_source[:, None, :, 2]
        xy = (PLACES * crops.side) @ linear.swapaxes(1, 2) + shift
        scores = np.broadcast_to(np.array(self.scores)[:, None], (*xy.shape[:2], 1))
        found = np.concatenate([xy, scores], axis=2)
        return Predictions({"h": found}, None, "h")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Puts StandIn where the predictor is imported from."""
    predictor = ModuleType("kpdata.train.infer.predictor")
    predictor.Predictor = StandIn
    monkeypatch.setitem(sys.modules, predictor.__name__, predictor)
    monkeypatch.setattr("kpdata.train.trained.prepare_backend", lambda: None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two photos, 80 × 60 and 60 × 80 pixels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, shape in (("a.jpg", (60, 80, 3)), ("b.png", (80, 60, 3))):
        picture = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        kind = "jpeg" if name.endswith("jpg") else "png"
        (folder / name).write_bytes(codec.encode(picture, kind))
    return folder


@pytest.fixture
def boxes(photos: Path) -> Path:
    """A COCO file of the photos: two boxes on a.jpg, one on b.png, keypoints as predicted."""
    annotations = [
        annotation(1, 30, [10, 10, 40, 40]),
        annotation(2, 30, [40, 20, 20, 20]),
        annotation(3, 31, [5, 25, 50, 50]),
    ]
    path = photos.parent / "boxes.json"
    entries = [{"id": 30, "file_name": "a.jpg"}, {"id": 31, "file_name": "b.png"}]
    category = {"id": 4, "name": "kite", "keypoints": SKELETON.keypoints}
    path.write_text(
        json.dumps({"images": entries, "annotations": annotations, "categories": [category]})
    )
    return path


def annotation(number: int, image: int, bbox: list[float]) -> dict:
    x, y, side, _ = bbox
    center = np.array([x + side / 2, y + side / 2])
    xy = center + (PLACES - 0.5) * side * 1.25 - 0.5  # COCO's 0-based pixel indices
    return {
        "id": number, "image_id": image, "category_id": 4, "bbox": bbox, "iscrowd": 0,
        "area": side * side, "num_keypoints": 3,
        "keypoints": np.column_stack([xy, [2, 2, 2]]).ravel().tolist(),
    }  # fmt: skip


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_photos_give_lines_names_and_overlays(kpdata, photos, tmp_path):
    out = tmp_path / "out"
    result = kpdata("predict", "runs/a", photos, photos / "b.png", "--out", out, "--margin", 1)
    assert result.code == 0, result.err
    assert "3 images, 0 videos, 3 instances" in result.out
    found = lines(out)
    assert [line["file"] for line in found] == [
        str(photos / "a.jpg"), str(photos / "b.png"), str(photos / "b.png"),
    ]  # fmt: skip
    assert found[0]["keypoints"] == [[40, 10, 0.9], [60, 30, 0.5], [20, 30, 0.1]]
    assert "frame" not in found[0]
    assert "bbox_xyxy" not in found[0]
    assert load_skeleton(out / "skeleton.json") == SKELETON
    overlays = {p.relative_to(out / "overlays").as_posix() for p in out.rglob("*.jpg")}
    assert overlays == {"photos/a.jpg", "photos/b.png.jpg", "b.png.jpg"}
    drawn = cv2.imread(str(out / "overlays" / "photos" / "a.jpg"))
    assert drawn.shape == (60, 80, 3)
    assert StandIn.flips == {True}


def test_without_boxes_it_says_once_what_the_model_sees(kpdata, photos, tmp_path):
    result = kpdata("predict", "runs/a", photos, "--out", tmp_path / "out", "--no-flip")
    assert result.err.count("no boxes: ") == 1
    assert "× 1.25" in result.err
    assert "a square around the bbox" in result.err
    assert StandIn.flips == {False}


@pytest.mark.parametrize(
    ("trained_with_flips", "options", "flip", "says"),
    [
        (True, (), True, "with flip test"),
        (True, ("--no-flip",), False, "without flip test"),
        (False, (), False, "without flip test"),
        (False, ("--flip",), True, "warning: the flip test was asked for, and the run was "),
    ],
)
def test_the_mirror_image_is_for_those_who_saw_one_unless_asked_for(
    kpdata, photos, tmp_path, monkeypatch, trained_with_flips, options, flip, says
):
    monkeypatch.setattr(StandIn, "trained_with_flips", trained_with_flips)
    result = kpdata("predict", "runs/a", photos, "--out", tmp_path / "out", *options)
    assert StandIn.flips == {flip}
    assert says in result.err


def test_the_margin_is_the_runs_unless_given(kpdata, photos, boxes, tmp_path):
    out = tmp_path / "out"
    kpdata("predict", "runs/a", photos, "--boxes", boxes, "--out", out)
    assert lines(out)[0]["keypoints"][0] == [30, 17.5, 0.9]
    kpdata("predict", "runs/a", photos, "--boxes", boxes, "--out", out, "--margin", 2)
    assert lines(out)[0]["keypoints"][0] == [30, 10, 0.9]


def test_boxes_for_a_model_that_never_saw_any_are_warned_of(
    kpdata, photos, boxes, tmp_path, monkeypatch
):
    command = ("predict", "runs/a", photos, "--boxes", boxes, "--out", tmp_path / "out")
    assert "warning" not in kpdata(*command).err
    monkeypatch.setattr(StandIn, "crop_rule", CropRule("image", 1.0))
    says = "squares around the boxes, × 1, and was trained on the whole image, squared around"
    assert says in kpdata(*command).err


def test_a_box_without_extent_is_skipped_and_named(kpdata, photos, boxes, tmp_path):
    marked = json.loads(boxes.read_text())
    marked["annotations"].append(annotation(9, 31, [1, 1, 0, 0]))
    boxes.write_text(json.dumps(marked))
    command = ("predict", "runs/a", photos, "--boxes", boxes, "--out", tmp_path / "out")
    result = kpdata(*command)
    assert result.code == 0
    assert (
        f"SKIPPED {boxes}: annotation 3: bbox reaches from [1.0, 1.0] to [1.0, 1.0]" in result.err
    )
    assert "3 instances; 1 skipped: not a box;" in result.out
    assert [line["reason"] for line in kpdata(*command, "--json").json["skipped"]] == ["not a box"]


def test_the_boxes_of_one_category_and_enough_score_are_used_and_the_others_counted(
    kpdata, refuses, photos, boxes, tmp_path
):
    entry = {"image_id": 30, "bbox": [10, 10, 40, 40], "category_id": 4, "score": 0.9}
    changes = (
        {}, {"score": 0.1}, {"category_id": 7}, {"category_id": 7}, {"image_id": 99},
        {"iscrowd": 1}, {"bbox": None},
    )  # fmt: skip
    detections = tmp_path / "detections.json"
    detections.write_text(json.dumps([entry | change for change in changes]))
    command = (
        "predict", "runs/a", photos, "--boxes", detections, "--coco-images", boxes,
    )  # fmt: skip
    refuses(*command, says=["several categories: 4 (2 boxes), 7 (2 boxes)", "category"])
    refuses(*command, "--category", 5, says=["known: 4, 7"])
    chosen = (*command, "--category", 4, "--min-box-score", 0.5, "--out", tmp_path / "out")
    summary = kpdata(*chosen, "--json").json
    assert summary["instances"] == 1
    assert summary["boxes_left_out"] == {
        "low score": 1, "other category": 2, "image unknown to the COCO file": 1, "crowd": 1,
        "no bbox": 1,
    }  # fmt: skip
    assert "; 2 boxes left out: other category; " in kpdata(*chosen).out


def test_a_choice_among_boxes_that_changes_nothing_is_refused(refuses, photos, boxes, tmp_path):
    plain = tmp_path / "plain.json"
    plain.write_text('{"a.jpg": [[0, 0, 9, 9]]}')
    command = ("predict", "runs/a", photos)
    refuses(*command, "--category", 4, says=["change nothing without"])
    for option in (("--category", 4), ("--min-box-score", 0.5)):
        refuses(*command, "--boxes", plain, *option, says=["has no categories and no scores"])
    refuses(*command, "--boxes", boxes, "--min-box-score", 0.5, says=["no box has a score"])


def test_scores_that_say_nothing_of_visibility_are_noted(kpdata, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(StandIn, "score_note", "always 1")
    result = kpdata("predict", "runs/a", photos, "--out", tmp_path / "out")
    assert "note: always 1" in result.err.splitlines()


def test_keypoints_below_the_least_score_are_not_drawn_and_yet_in_the_file(
    kpdata, photos, tmp_path
):
    overlays = []
    for least in (0.05, 0.2, 0.95):
        out = tmp_path / f"out{least}"
        kpdata("predict", "runs/a", photos / "b.png", "--out", out, "--min-score", least)
        assert len(lines(out)[0]["keypoints"]) == 3
        overlays.append((out / "overlays" / "b.png.jpg").read_bytes())
    assert len(set(overlays)) == 3


def test_coco_results_score_fully_against_the_truth(kpdata, photos, boxes, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = tmp_path / "results.json"
    result = kpdata(
        "predict", "runs/a", photos, "--boxes", boxes, "--coco-out", path, "--out", tmp_path / "out"
    )
    assert result.code == 0, result.err
    results = json.loads(path.read_text())
    assert [entry["image_id"] for entry in results] == [30, 30, 31]
    assert {entry["category_id"] for entry in results} == {4}
    assert all(set(e) == {"image_id", "category_id", "keypoints", "score"} for e in results)
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(boxes))
        evaluation = COCOeval(truth, truth.loadRes(str(path)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(list(SKELETON.sigmas.values()))
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    assert evaluation.eval["precision"][..., 0, 0, 0].mean() == pytest.approx(1)
    exact = np.array([entry["keypoints"] for entry in results]).reshape(3, 3, 3)[..., :2]
    wanted = np.array([a["keypoints"] for a in truth.dataset["annotations"]]).reshape(3, 3, 3)
    assert np.allclose(exact, wanted[..., :2], atol=1e-4)


def test_coco_results_are_numbered_and_named_where_nothing_numbers_the_images(
    kpdata, photos, tmp_path
):
    path = tmp_path / "deep" / "results.json"
    kpdata("predict", "runs/a", photos, "--coco-out", path, "--out", tmp_path / "out")
    results = json.loads(path.read_text())
    assert [(entry["image_id"], entry["file_name"]) for entry in results] == [
        (1, str(photos / "a.jpg")), (2, str(photos / "b.png")),
    ]  # fmt: skip


def test_images_take_the_numbers_of_a_coco_file_and_unknown_ones_are_counted(
    kpdata, photos, boxes, tmp_path
):
    (photos / "c.jpg").write_bytes((photos / "a.jpg").read_bytes())
    path = tmp_path / "results.json"
    result = kpdata(
        "predict", "runs/a", photos, "--coco-out", path, "--coco-images", boxes,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert [entry["image_id"] for entry in json.loads(path.read_text())] == [30, 31]
    assert "1 frames unknown to the COCO file" in result.out
    assert len(lines(tmp_path / "out")) == 3


def test_the_command_keeps_no_prediction(kpdata, tmp_path, monkeypatch):
    from kpdata.train import trained
    from kpdata.train.infer.media import VideoFile

    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = []

    def watched(predicted, skeleton):
        poses = by_instance(predicted, skeleton)
        alive.update(poses)
        most.append(len(alive))
        return poses

    by_instance = trained.by_instance
    monkeypatch.setattr(trained, "by_instance", watched)
    with VideoFile(tmp_path / "clip.mp4", 12) as file:
        for _ in range(12):
            file.add(np.zeros((48, 64, 3), np.uint8))
    result = kpdata("predict", "runs/a", tmp_path / "clip.mp4", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert len(most) == 12
    assert max(most) <= 2


def test_a_video_becomes_a_video_and_its_lines_name_the_frames(kpdata, tmp_path):
    from kpdata.train.infer.media import VideoFile

    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    with VideoFile(clip, 12) as file:
        for level in range(40):
            file.add(np.full((48, 64, 3), 3 * level, np.uint8))
    result = kpdata("predict", "runs/a", clip, "--out", out, "--coco-out", tmp_path / "r.json")
    assert "0 images, 1 videos, 40 instances" in result.out
    assert [line["frame"] for line in lines(out)] == list(range(40))
    capture = cv2.VideoCapture(str(out / "overlays" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 40
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 64
    capture.release()
    results = json.loads((tmp_path / "r.json").read_text())
    assert [(e["image_id"], e["frame"]) for e in results] == [(n + 1, n) for n in range(40)]
    assert sorted(p.name for p in (out / "overlays").iterdir()) == ["clip.mp4"]


def test_keypoints_that_are_not_drawn_are_counted(kpdata, photos, tmp_path, monkeypatch):
    command = ("predict", "runs/a", photos, "--out", tmp_path / "out")
    assert "2 keypoints below --min-score 0.2 not drawn" in kpdata(*command).out
    assert "4 keypoints below --min-score 0.6 not" in kpdata(*command, "--min-score", 0.6).out
    assert "not drawn" not in kpdata(*command, "--min-score", 0).out


def test_a_video_has_boxes_by_frame(kpdata, tmp_path):
    from kpdata.train.infer.media import VideoFile

    clip, out, boxes = tmp_path / "clip.mp4", tmp_path / "out", tmp_path / "boxes.json"
    with VideoFile(clip, 12) as file:
        for _ in range(50):
            file.add(np.zeros((48, 64, 3), np.uint8))
    box = [8, 8, 40, 40]
    boxes.write_text(json.dumps({"clip.mp4": {"1": [box], "40": [box, box], "99": [box]}}))
    result = kpdata("predict", "runs/a", tmp_path, "--boxes", boxes, "--out", out)
    assert "1 videos, 3 instances" in result.out
    assert "1 boxes left out: frame not in the video" in result.out
    assert "48 frames of videos without a box" in result.out
    assert [(line["frame"], line["bbox_xyxy"]) for line in lines(out)] == [
        (1, box), (40, box), (40, box),
    ]  # fmt: skip
    capture = cv2.VideoCapture(str(out / lines(out)[0]["overlay"]))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 50
    capture.release()


def damaged_clip(path: Path) -> None:
    """A video of 50 frames whose second half is lost."""
    from kpdata.train.infer.media import VideoFile

    with VideoFile(path, 10) as file:
        for number in range(50):
            noise = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
            file.add(noise)
    data = bytearray(path.read_bytes())
    half, end = len(data) // 2, data.rfind(b"moov") - 4  # where the table of frames begins
    data[half:end] = b"\x55" * (end - half)
    path.write_bytes(data)


def test_a_video_that_ends_too_early_is_said_to_and_its_frames_are_used(kpdata, tmp_path, capfd):
    clip = tmp_path / "clip.mp4"
    damaged_clip(clip)
    result = kpdata("predict", "runs/a", clip, "--out", tmp_path / "out", "--json")
    frames = result.json["frames"]
    assert 0 < frames < 40
    assert result.json["skipped"][0]["reason"] == "video cut short"
    result = kpdata("predict", "runs/a", clip, "--out", tmp_path / "out")
    assert result.code == 0
    said = f"CUT SHORT {clip}: ends after {frames} of the 50 frames that its header promises"
    assert said in result.err
    assert "1 videos cut short" in result.out
    assert "damaged" not in capfd.readouterr().err  # nor does FFmpeg speak itself


def test_what_no_decoder_knows_is_named_by_us_alone(kpdata, tmp_path, capfd):
    (tmp_path / "clip.mp4").write_bytes(b"nonsense" * 100)
    result = kpdata("predict", "runs/a", tmp_path / "clip.mp4", "--out", tmp_path / "out")
    assert "SKIPPED" in result.err
    assert "moov" not in capfd.readouterr().err


@pytest.mark.parametrize("there", [True, False])
def test_a_missing_h264_encoder_is_said_once(kpdata, tmp_path, monkeypatch, there):
    from kpdata.train.infer import media

    for name in ("a.mp4", "b.mp4"):
        with media.VideoFile(tmp_path / name, 12) as file:
            file.add(np.zeros((48, 64, 3), np.uint8))
    writer = partial(media._by_opencv, "mp4v") if there else None
    monkeypatch.setattr(media, "h264", lambda: writer)
    result = kpdata("predict", "runs/a", tmp_path, "--out", tmp_path / "out")
    assert result.err.count("no H.264 encoder") == (not there)


def test_what_cannot_be_used_is_skipped_and_listed_at_the_end(kpdata, photos, tmp_path):
    (photos / "text.jpg").write_text("no picture")
    result = kpdata("predict", "runs/a", photos, "--out", tmp_path / "out")
    assert result.code == 0
    assert f"SKIPPED {photos / 'text.jpg'}" in result.err
    assert "2 images" in result.out
    assert "1 skipped: not an image" in result.out


def test_nothing_usable_is_a_failure(kpdata, photos, tmp_path):
    (photos / "text.jpg").write_text("no picture")
    result = kpdata("predict", "runs/a", photos / "text.jpg", "--out", tmp_path / "out")
    assert result.code == 1
    assert "SKIPPED" in result.err


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({"score": 0.1}, ("--min-box-score", 0.5), "3 boxes left out: low score"),
        ({"iscrowd": 1}, (), "3 boxes left out: crowd"),
        ({"bbox": None}, (), "3 boxes left out: no bbox"),
        ({"image_id": 99}, (), "3 boxes left out: image unknown to the COCO file"),
    ],
)
@pytest.mark.parametrize("silence", [(), ("--quiet",), ("--json",)])
def test_where_no_box_is_left_it_says_why(
    kpdata, photos, boxes, tmp_path, change, options, says, silence
):
    marked = json.loads(boxes.read_text())
    marked["annotations"] = [entry | change for entry in marked["annotations"]]
    boxes.write_text(json.dumps(marked))
    command = ("predict", "runs/a", photos, "--boxes", boxes, *options, *silence)
    result = kpdata(*command, "--out", tmp_path / "out")
    assert result.code == 1
    expected = f"kpdata: nothing was predicted: {says}; 2 files without a box left out"
    assert result.err.splitlines()[-1] == expected


def test_boxes_of_other_files_are_no_use_and_it_says_so(kpdata, photos, tmp_path):
    plain = tmp_path / "plain.json"
    plain.write_text('{"z.jpg": [[0, 0, 9, 9]]}')
    result = kpdata("predict", "runs/a", photos, "--boxes", plain, "--out", tmp_path / "out")
    assert result.code == 1
    assert "nothing was predicted: 2 files without a box left out" in result.err


def test_the_result_as_json(kpdata, photos, boxes, tmp_path):
    (photos / "text.jpg").write_text("no picture")
    (photos / "d.png").write_bytes((photos / "b.png").read_bytes())
    marked = json.loads(boxes.read_text())
    marked["images"].append({"id": 32, "file_name": "text.jpg"})
    marked["annotations"].append(annotation(9, 32, [1, 1, 5, 5]))
    boxes.write_text(json.dumps(marked))
    out = tmp_path / "out"
    result = kpdata("predict", "runs/a", photos, "--boxes", boxes, "--out", out, "--json")
    summary = result.json
    (skipped,) = summary.pop("skipped")
    assert (skipped["file"], skipped["reason"]) == (str(photos / "text.jpg"), "not an image")
    assert summary == {
        "out": str(out), "images": 2, "videos": 0, "frames": 2, "instances": 3, "without_box": 1,
        "boxes_left_out": {}, "not_in_coco": 0, "frames_without_box": 0, "below_min_score": 3,
    }  # fmt: skip
    assert result.err == ""


def test_quiet_says_nothing(kpdata, photos, tmp_path):
    result = kpdata("predict", "runs/a", photos, "--out", tmp_path / "out", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_a_second_run_does_not_look_at_the_overlays_of_the_first(kpdata, photos):
    out = photos / "out"
    for _ in range(2):
        kpdata("predict", "runs/a", photos, "--out", out)
        assert len(lines(out)) == 2


def test_a_second_run_into_the_folder_of_the_photos_does_not_either(kpdata, photos):
    for _ in range(2):
        assert kpdata("predict", "runs/a", photos, "--out", photos).code == 0
        assert len(lines(photos)) == 2


@pytest.mark.parametrize("link", [False, True])
def test_a_picture_is_never_overwritten_with_its_overlay(kpdata, photos, link):
    overlay = photos / "overlays" / "a.jpg"
    overlay.parent.mkdir()
    photo = (photos / "a.jpg").read_bytes()
    if link:
        overlay.symlink_to("../a.jpg")
    else:
        (photos / "a.jpg").rename(overlay)
    given = photos / "a.jpg" if link else overlay
    result = kpdata("predict", "runs/a", given, "--out", photos)
    assert result.code == 1
    (said,) = result.err.splitlines()
    assert f"{given}: would be overwritten" in said
    assert "choose another --out or --coco-out" in said
    assert given.read_bytes() == photo
    assert not (photos / "predictions.jsonl").exists()


@pytest.mark.parametrize("name", ["predictions.jsonl", "skeleton.json", "overlays/a.jpg"])
def test_coco_results_take_no_other_outputs_name(refuses, photos, tmp_path, name):
    command = ("predict", "runs/a", photos / "a.jpg", "--coco-out", tmp_path / "refused" / name)
    refuses(*command, says=[f"{name}: --out writes this file: give --coco-out another name"])


def test_coco_results_do_not_replace_the_boxes(refuses, photos, boxes):
    before = boxes.read_bytes()
    command = ("predict", "runs/a", photos, "--boxes", boxes, "--coco-out", boxes)
    refuses(*command, says=[f"{boxes}: would be overwritten"])
    assert boxes.read_bytes() == before


def test_a_video_of_which_no_instance_was_looked_at_is_a_failure(kpdata, tmp_path):
    from kpdata.train.infer.media import VideoFile

    with VideoFile(tmp_path / "v.mp4", 12) as file:
        file.add(np.zeros((48, 64, 3), np.uint8))
    plain = tmp_path / "plain.json"
    plain.write_text('{"v.mp4": {"0": []}}')
    command = ("predict", "runs/a", tmp_path / "v.mp4", "--boxes", plain)
    result = kpdata(*command, "--out", tmp_path / "out")
    assert result.code == 1
    assert "nothing was predicted: " in result.err
    assert "frames of videos without a box" in result.err


@pytest.mark.parametrize("silence", [(), ("--json",)])
def test_a_name_that_is_not_utf8_loses_nothing(kpdata, photos, tmp_path, silence):
    (photos / "a.jpg").rename(photos / "\udcff\udcfe.jpg")
    (photos / "\udcff.jpg").write_text("no picture")
    out = tmp_path / "out"
    coco_out = tmp_path / "c.json"
    command = ("predict", "runs/a", photos, "--coco-out", coco_out, "--out", out, *silence)
    result = kpdata(*command)
    assert result.code == 0, result.err
    assert {line["file"] for line in lines(out)} == {
        str(photos / "b.png"), str(photos / "\\udcff\\udcfe.jpg")
    }  # fmt: skip
    assert len(json.loads(coco_out.read_text())) == 2
    if silence:
        assert [one["file"] for one in result.json["skipped"]] == [str(photos / "\\udcff.jpg")]


def test_mistakes_are_named_before_the_model_is_loaded(refuses, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(StandIn, "open", lambda run: pytest.fail("loaded"))
    refuses("predict", "runs/a", "none.jpg", says=["none.jpg: no such file"])
    (tmp_path / "empty").mkdir()
    refuses("predict", "runs/a", tmp_path / "empty", says=["holds no image and no video"])
    refuses("predict", "runs/a", photos, "--boxes", "none.json", says=["none.json: cannot read"])
    refuses("predict", "runs/a", photos, "--coco-images", photos / "a.jpg", says=["a.jpg"])
    refuses("predict", "runs/a", photos, "--min-score", "2", says=["--min-score"])
    refuses("predict", "runs/a", says=["INPUTS"])
