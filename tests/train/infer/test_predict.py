import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kpdata.core.errors import FormatError
from kpdata.core.skeleton import Skeleton
from kpdata.formats.coco.boxes import read_image_ids
from kpdata.images import codec
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.infer import frames, media
from kpdata.train.infer.boxes import Box, ByName, boxes_of, read_boxes
from kpdata.train.infer.files import CocoResults, PredictionFolder, overlay
from kpdata.train.infer.frames import Frame, Tally, crops_of, predict_frames, read_frames
from kpdata.train.infer.media import (
    Item,
    VideoFile,
    count_frames,
    find,
    frame_rate,
    overlay_name,
    read,
)
from kpdata.train.infer.predictions import Predictions

SKELETON = Skeleton("dots", ("left_hand", "right_hand", "head"), edges=(("left_hand", "head"),))
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def dots(width: int, height: int, *people: np.ndarray, radius: int = 5) -> np.ndarray:
    """(H, W, 3) with a dot for each keypoint (3, 2) of each person, in continuous pixels."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    for person in people:
        for (x, y), colour in zip(person - 0.5, COLOURS, strict=True):
            center = round(x * 16), round(y * 16)
            cv2.circle(pixels, center, radius * 16, colour, cv2.FILLED, cv2.LINE_AA, 4)
    return pixels


@dataclass
class DotFinder:
    """Finds the middle of each colour; scores 0 where there is none."""

    skeleton: Skeleton = SKELETON
    input_size: int = 64
    says_visible: bool = True
    flips: list[bool] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)

    def predict(self, crops: LabelledCrops, flip: bool = True) -> Predictions:
        self.flips.append(flip)
        self.chunks.append(len(crops))
        found = np.zeros((len(crops), 3, 3))
        for n, crop in enumerate(crops.images[np.arange(len(crops))].astype(float)):
            for k in range(3):
                others = np.delete(crop, k, axis=2).max(axis=2)
                weight = np.clip(crop[..., k] - others - 60, 0, None)
                if weight.sum() > 0:
                    y, x = np.indices(weight.shape) + 0.5
                    xy = [(weight * axis).sum() / weight.sum() for axis in (x, y)]
                    affine = crops.to_source[n]
                    found[n, k] = *(affine[:, :2] @ xy + affine[:, 2]), 0.9
        visibility = (found[..., 2] > 0) * 1.0 if self.says_visible else None
        return Predictions({"heatmap": found}, visibility, "heatmap")


PERSON = np.array([[30.0, 40.0], [70.0, 45.0], [50.0, 20.0]])


def frame(pixels: np.ndarray, boxes: tuple[Box, ...] | None = None) -> Frame:
    return Frame(Item(Path("a.png"), "a.png"), None, pixels, boxes)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(codec.encode(pixels, "jpeg" if path.suffix == ".jpg" else "png"))
    return path


@hypothesis_settings(max_examples=20)
@given(
    st.integers(90, 900), st.integers(90, 900), st.sampled_from([64, 96, 256]),
    st.sampled_from([1.0, 1.25, 2.0]),
)  # fmt: skip
def test_keypoints_come_back_in_source_pixels_whatever_the_shape(width, height, side, margin):
    radius = max(width, height) // 25
    assume(radius < min(width, height) / 5)  # or the head's dot is cut off by the edge
    person = PERSON / 100 * [width, height]
    pixels = dots(width, height, person, radius=radius)
    finder = DotFinder(input_size=side)
    (found,) = predict_frames(finder, [frame(pixels)], margin)
    pixel = max(width, height) * margin / side
    assert np.abs(found.keypoints[0, :, :2] - person).max() < 0.6 * pixel + 0.5
    assert found.visibility is not None


def test_each_box_is_an_instance_of_its_own():
    people = [PERSON + np.array([x, 60]) for x in (0.0, 200.0, 420.0)]
    pixels = dots(560, 200, *people)
    boxes = tuple(Box(np.array([*p.min(axis=0) - 8, *p.max(axis=0) + 8])) for p in people)
    (found,) = predict_frames(DotFinder(), [frame(pixels, boxes)], margin=1.25)
    assert found.keypoints.shape == (3, 3, 3)
    assert np.abs(found.keypoints[..., :2] - people).max() < 1


def test_a_large_picture_is_averaged_and_not_sampled():
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    crops = crops_of([frame(stripes)], side=64, margin=1.0)
    seen = crops.images[np.arange(1)]
    assert np.abs(seen[0, 2:-2, 2:-2].astype(int) - 127).max() <= 16


def test_frames_are_read_as_they_are_needed(monkeypatch):
    read_so_far = 0

    def many():
        nonlocal read_so_far
        for _ in range(100):
            read_so_far += 1
            yield frame(dots(80, 60))

    finder = DotFinder()
    next(predict_frames(finder, many(), 1.0))
    assert read_so_far == frames.AT_A_TIME
    monkeypatch.setattr(frames, "_MOST_BYTES", 80 * 60 * 3 * 2)
    assert len(list(predict_frames(finder, many(), 1.0))) == 100
    assert set(finder.chunks[1:]) == {2}


def test_frames_keep_their_order_and_their_keypoints_across_chunks():
    people = [PERSON + np.array([0, shift]) for shift in range(50)]
    frames = [frame(dots(100, 110, person)) for person in people]
    found = list(predict_frames(DotFinder(input_size=128), frames, 1.0))
    assert [one.frame for one in found] == frames
    assert np.abs(np.stack([one.keypoints[0, :, :2] for one in found]) - people).max() < 1


def test_folders_are_walked_for_images_and_videos_and_results_of_earlier_runs_left_out(tmp_path):
    folder = tmp_path / "in"
    inputs = ("b.jpg", "a.PNG", "deep/c.webp", "deep/clip.MOV")
    for name in (*inputs, ".hidden.jpg", "notes.txt", "out/overlays/b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    items = find([folder], besides=folder / "out")
    found = ["in/a.PNG", "in/b.jpg", "in/deep/c.webp", "in/deep/clip.MOV"]
    assert [item.name for item in items] == found
    assert items[2].path == folder / "deep" / "c.webp"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["x/a.jpg", "x/a.png", "x/a.mp4"], ["a.jpg", "a.png", "a.mp4"]),
        (["x/a.jpg", "y/a.jpg", "y/a.png"], ["x/a.jpg", "y/a.jpg", "a.png"]),
        (["x/deep/a.jpg", "y/deep/a.jpg"], ["x/deep/a.jpg", "y/deep/a.jpg"]),
        (["x/a.jpg", "x/a.jpg"], ["a.jpg", "a.jpg"]),
        (["x", "x/a.jpg"], ["x/a.jpg", "a.jpg"]),
        (["z/x", "y/x"], ["z/x/a.jpg", "y/x/a.jpg"]),
        (["x/a.png", "x/a.png.jpg", "x/a"], ["a.png", "a.png.jpg", "a"]),
    ],
)
def test_results_are_named_after_their_files_as_far_as_tells_them_apart(tmp_path, given, names):
    paths = [tmp_path / name for name in given]
    for path in paths:
        file = path if path.name.startswith("a") else path / "a.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    assert [item.name for item in find(paths)] == names


PIECES = st.lists(st.sampled_from(["a", ".jpg", ".JPG", ".png", ".mp4", ".avi", ".txt"]))


@given(st.lists(PIECES.map(lambda pieces: "n" + "".join(pieces)), unique=True))
def test_no_two_names_share_an_overlay(names):
    overlays = [overlay_name(name) for name in names]
    assert len(set(overlays)) == len(names)
    assert all(made.startswith(name) for made, name in zip(overlays, names, strict=True))


def test_the_overlays_of_an_earlier_run_are_left_out_wherever_they_lie(tmp_path):
    for name in ("a.jpg", "overlays/in/a.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    assert [item.name for item in find([tmp_path / "in"], tmp_path / "in")] == ["in/a.jpg"]
    for folder in ("overlays", "overlays/in"):
        with pytest.raises(FormatError, match="holds the overlays of `out`"):
            find([tmp_path / "in" / folder], tmp_path / "in")


LONG = "x" * 251
TWINS = [
    (["p/a.jpg", "q/a.jpg/b.jpg"], ["p/a.jpg", "q/a.jpg"]),
    (["a.png", "a.png.jpg/b.jpg"], ["a.png", "a.png.jpg"]),
    (["a.jpg", "a.jpg.png/b.jpg"], ["a.jpg", "a.jpg.png"]),
    ([f"{LONG}.jpg", f"{LONG}.png"], [f"{LONG}.jpg", f"{LONG}.png"]),
    (["a\udcff.jpg", "a%FF.jpg", "a%FF-1.jpg"], ["a\udcff.jpg", "a%FF.jpg", "a%FF-1.jpg"]),
    (["a\n:.jpg", "\udcff\udcfe/c.jpg"], ["a\n:.jpg", "\udcff\udcfe"]),
]


@pytest.mark.parametrize(("files", "given"), TWINS, ids=range(len(TWINS)))
def test_every_picture_gets_an_overlay_whatever_its_name(tmp_path, files, given):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "picture.png", dots(100, 60, PERSON)).rename(tmp_path / name)
    out = tmp_path / "out"
    frames = read_frames(find([tmp_path / name for name in given]), None, Tally())
    with PredictionFolder(out, SKELETON, 0.2) as folder:
        for predicted in predict_frames(DotFinder(), frames, 1.0):
            folder.add(predicted)
    lines = list(map(json.loads, (out / "predictions.jsonl").read_text("utf-8").splitlines()))
    assert [line["file"] for line in lines] == [
        str(tmp_path / name).encode("utf-8", "backslashreplace").decode() for name in files
    ]
    overlays = {line["overlay"] for line in lines}
    assert len(overlays) == len(files)
    assert all((out / overlay).is_file() for overlay in overlays)


def test_a_video_whose_name_opencv_does_not_take_is_skipped(tmp_path):
    video(tmp_path / "v.mp4")
    items = find([(tmp_path / "v.mp4").rename(tmp_path / "v\udcff.mp4")])
    tally = Tally()
    assert count_frames(items) == 0
    assert list(read_frames(items, None, tally)) == []
    assert [reason for _, reason, _ in tally.skipped] == ["name not UTF-8"]


def test_an_overlay_replaces_a_link_and_not_what_it_names(tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"kept")
    video(tmp_path / "in" / "v.mp4", count=2)
    write(tmp_path / "in" / "a.jpg", dots(100, 60, PERSON))
    links = [tmp_path / "out" / "overlays" / "in" / name for name in ("a.jpg", "v.mp4")]
    for link in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(precious)
    with PredictionFolder(tmp_path / "out", SKELETON, 0.2) as folder:
        frames = read_frames(find([tmp_path / "in"]), None, Tally())
        for predicted in predict_frames(DotFinder(), frames, 1.0):
            folder.add(predicted)
    assert precious.read_bytes() == b"kept"
    assert all(link.is_file() and not link.is_symlink() for link in links)


def test_every_line_names_the_overlay_that_shows_it(tmp_path):
    video(tmp_path / "in" / "clip.mp4", count=2)
    for name in ("a.png", "a.jpg", "deep/a.png"):
        write(tmp_path / "in" / name, dots(100, 60, PERSON))
    out = tmp_path / "out"
    frames = read_frames(find([tmp_path / "in"]), None, Tally())
    with PredictionFolder(out, SKELETON, 0.2) as folder:
        for predicted in predict_frames(DotFinder(), frames, 1.0):
            folder.add(predicted)
    lines = list(map(json.loads, (out / "predictions.jsonl").read_text().splitlines()))
    assert {line["file"]: line["overlay"] for line in lines} == {
        str(tmp_path / "in" / name): f"overlays/in/{overlay}"
        for name, overlay in {
            "a.jpg": "a.jpg", "a.png": "a.png.jpg", "clip.mp4": "clip.mp4",
            "deep/a.png": "deep/a.png.jpg",
        }.items()
    }  # fmt: skip
    drawn = {str(path.relative_to(out)) for path in (out / "overlays").rglob("*.*")}
    assert drawn == {line["overlay"] for line in lines}


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(FormatError, match="no such file or folder"):
        find([tmp_path / "none.jpg"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="holds no image"):
        find([tmp_path / "empty"], tmp_path / "out")


def test_a_turned_photo_is_looked_at_upright(tmp_path):
    from PIL import Image

    upright = dots(100, 60, PERSON)
    raw = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    raw.save(tmp_path / "turned.png", exif=exif)
    (item,) = find([tmp_path / "turned.png"], tmp_path)
    (image,) = read(item)
    assert image.pixels.shape == (60, 100, 3)
    assert np.array_equal(image.pixels, upright)


def video(path: Path, count: int = 5, width: int = 120, height: int = 80) -> list[np.ndarray]:
    path.parent.mkdir(parents=True, exist_ok=True)
    people = [PERSON + np.array([4.0 * n, 10]) for n in range(count)]
    with VideoFile(path, rate=10) as file:
        for person in people:
            file.add(dots(width, height, person))
    return people


def test_a_video_is_read_frame_by_frame_and_its_keypoints_follow(tmp_path):
    people = video(tmp_path / "clip.mp4")
    items = find([tmp_path / "clip.mp4"], tmp_path)
    assert count_frames(items) == 5
    assert frame_rate(items[0].path) == pytest.approx(10)
    tally = Tally()
    frames = read_frames(items, None, tally)
    found = list(predict_frames(DotFinder(input_size=128), frames, 1.0))
    assert [one.frame.number for one in found] == [0, 1, 2, 3, 4]
    assert np.abs(np.stack([one.keypoints[0, :, :2] for one in found]) - people).max() < 1.5
    assert (tally.videos, tally.frames, tally.instances, tally.images) == (1, 5, 5, 0)


def test_a_video_is_h264_where_there_is_an_encoder(tmp_path):
    if not media.h264():
        pytest.skip("no encoder of H.264 is here")
    video(tmp_path / "clip.mp4", width=101, height=61)
    capture = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") in (b"h264", b"avc1")
    capture.release()


@pytest.mark.parametrize("refused", [ImportError, OSError, RuntimeError])
def test_without_an_encoder_of_h264_there_is_a_video_all_the_same(tmp_path, monkeypatch, refused):
    def refuse(*_: object):
        raise refused
        yield

    monkeypatch.setattr(media, "_by_ffmpeg", refuse)
    media.h264.cache_clear()
    video(tmp_path / "clip.mp4", count=3, width=101, height=61)
    media.h264.cache_clear()
    (item,) = find([tmp_path / "clip.mp4"])
    assert [image.pixels.shape for image in read(item)] == [(62, 102, 3)] * 3


def test_a_video_that_fails_leaves_nothing_behind(tmp_path):
    with suppress(RuntimeError), VideoFile(tmp_path / "clip.mp4", 10) as file:
        file.add(dots(64, 48))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_used_are_counted_and_the_others_go_on(tmp_path):
    write(tmp_path / "good.png", dots(64, 48))
    for name in ("text.jpg", "broken.mp4"):
        (tmp_path / name).write_bytes(b"no crop at all")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    names = ("text.jpg", "broken.mp4", "cut.png", "good.png")
    tally = Tally()
    items = find([tmp_path / name for name in names], tmp_path)
    assert [f.item.name for f in read_frames(items, None, tally)] == ["good.png"]
    reasons = [skipped.reason for skipped in tally.skipped]
    assert reasons == ["not an image", "not a video", "image cut short"]
    assert tally.images == 1


def test_a_name_is_known_by_its_longest_end():
    known = ByName({"a.jpg": 1, "val/a.jpg": 2, "train/b.jpg": 3, "x/c.jpg": 4, "y/c.jpg": 5})
    assert known.get(Path("/data/val/a.jpg")) == 2
    assert known.get(Path("other/a.jpg")) == 1
    assert known.get(Path("b.jpg")) == 3
    assert known.get(Path("c.jpg")) is None
    assert known.get(Path("d.jpg")) is None


COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "bbox": [10, 20, 30, 40], "category_id": 3},
        {"id": 2, "image_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        {"id": 3, "image_id": 9},
    ],
    "categories": [],
}


def saved(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_boxes_of_a_coco_file_without_crowds(tmp_path):
    path = saved(tmp_path / "coco.json", COCO)
    (box,) = read_boxes(path).get(Path("images/a.jpg"))
    assert box.bbox_xyxy.tolist() == [10, 20, 40, 60]
    assert (box.category_id, box.score) == (3, 1.0)
    assert read_boxes(path).get(Path("b.jpg")) is None
    assert read_image_ids(path) == {"a.jpg": 7, "b.jpg": 9}


def test_boxes_of_a_detector_keep_their_scores(tmp_path):
    path = saved(tmp_path / "d.json", [{"image_id": 9, "bbox": [1, 2, 3, 4], "score": 0.25}])
    (box,) = read_boxes(path, {"b.jpg": 9}).get(Path("b.jpg"))
    assert (box.bbox_xyxy.tolist(), box.score) == ([1, 2, 4, 6], 0.25)
    with pytest.raises(FormatError, match="`coco_images`"):
        read_boxes(path)


def test_boxes_as_a_plain_list_by_file_name(tmp_path):
    path = saved(tmp_path / "b.json", {"a.jpg": [[0, 0, 9, 9], [5, 5, 20, 30]], "none.jpg": []})
    boxes = read_boxes(path)
    assert [b.bbox_xyxy.tolist() for b in boxes.get(Path("a.jpg"))] == [
        [0, 0, 9, 9],
        [5, 5, 20, 30],
    ]
    assert boxes.get(Path("none.jpg")) == ()


def test_boxes_of_a_video_by_frame(tmp_path):
    listed = {"a.mp4": {"0": [[0, 0, 9, 9]], "7": []}, "b.mp4": [[1, 1, 5, 5]], "c.mp4": {}}
    for boxes in (read_boxes(saved(tmp_path / "b.json", listed)), boxes_of(listed)):
        first, last = boxes.get(Path("a.mp4")).values()
        assert [box.bbox_xyxy.tolist() for box in first] == [[0, 0, 9, 9]]
        assert last == ()
        assert list(boxes.get(Path("a.mp4"))) == [0, 7]
        assert len(boxes.get(Path("b.mp4"))) == 1
        assert not boxes.get(Path("c.mp4"))


def test_boxes_by_frame_say_nothing_of_an_image(tmp_path):
    write(tmp_path / "a.png", dots(64, 48))
    boxes = boxes_of({"a.png": {0: [[0, 0, 9, 9]]}})
    tally = Tally()
    assert list(read_frames(find([tmp_path / "a.png"]), boxes, tally)) == []
    assert tally.without_box == 1


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"a.jpg": [[5, 5, 5, 9], [0, 0, 9, 9]]}, "$.a.jpg[0] reaches from [5.0, 5.0] to"),
        ({"a.jpg": [[0, 0, 9, 9]], "b.jpg": [[0, 9, 9, 3]]}, "$.b.jpg[0] reaches from"),
        ({"a.jpg": [[0, 0, 1e300, 9], [0, 0, 9, 9]]}, "$.a.jpg[0] reaches from"),
        ({"a.jpg": [[0, 0, float("nan"), 9], [0, 0, 9, 9]]}, "$.a.jpg[0] reaches from"),
        ({"a.jpg": [[0, 0, 9, 9]], "c.mp4": {"3": [[9, 9, 0, 0]]}}, "$.c.mp4.3[0] reaches from"),
        (
            [{"image_id": 1, "bbox": [0, 0, 9, 9]}, {"image_id": 1, "bbox": [3, 4, 0, 9]}],
            "annotation 1: bbox reaches from [3.0, 4.0] to [3.0, 13.0]",
        ),
    ],
)
def test_a_box_without_extent_is_left_out_and_named_and_the_others_stay(tmp_path, content, place):
    boxes = read_boxes(saved(tmp_path / "boxes.json", content), {"a.jpg": 1})
    (kept,) = boxes.get(Path("a.jpg"))
    assert kept.bbox_xyxy.tolist() == [0, 0, 9, 9]
    (fault,) = boxes.unusable
    assert fault.startswith(place)
    assert not boxes.get(Path("b.jpg"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            '{"a.jpg": [[0, 0, 9, 9]], "b.jpg": [[1, 2, 3]]}',
            r"b.jpg: .* length 4 - at `\$\[0\]`",
        ),
        ('{"a.jpg": [1, 2, 3, 4]}', "a.jpg: .*expected a list of boxes, ..x0, y0, x1, y1., "),
        ('{"a.jpg": [["x", 2, 3, 4]]}', "a.jpg: .*got `str` - at .*: expected a list"),
        ('{"a.jpg": [[5, 5, 5, 9]]}', "right lower corner"),
        ('{"a.jpg": [[NaN, 1, 2, 3]]}', r"\$.a.jpg\[0\] reaches from \[nan, 1.0\]"),
        ('{"a.mp4": {"7": [[0, 1, Infinity, 3]]}}', r"\$.a.mp4.7\[0\] reaches from"),
        ('{"a.jpg": [[NaN, 1, 2, 3], [1, 2', "boxes.json"),
        ('{"a.jpg": [[0, 0, 1e300, 9]]}', "finite pixels"),
        ('{"a.mp4": {"-1": [[0, 0, 9, 9]]}}', "a.mp4: .*for each frame by its number from 0"),
        ('{"a.mp4": {"first": [[0, 0, 9, 9]]}}', "a.mp4: .*for each frame by its number from 0"),
        ('{"boxes": 1}', "has no array"),
        ("no json", "holds no boxes"),
        ("[{", "not valid JSON"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}', "bbox"),
    ],
)
def test_what_holds_no_boxes_is_refused_by_name(tmp_path, content, says):
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=says) as error:
        read_boxes(path, {"a.jpg": 1})
    assert "boxes.json" in str(error.value)


def test_files_without_a_box_are_counted_and_left_out(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / name, dots(64, 48))
    boxes = ByName({"a.png": (Box(np.array([0, 0, 9, 9])),) * 2, "b.png": ()})
    tally = Tally()
    frames = list(read_frames(find([tmp_path], tmp_path / "out"), boxes, tally))
    assert [f.item.name for f in frames] == [f"{tmp_path.name}/a.png"]
    assert (tally.without_box, tally.instances, tally.frames) == (2, 2, 1)


def found_in(pixels: np.ndarray, **changes: object) -> frames.FramePredictions:
    (found,) = predict_frames(DotFinder(**changes), [frame(pixels)], 1.0)
    return found


def test_overlays_leave_out_what_scores_too_little():
    found = found_in(dots(100, 60, PERSON), says_visible=False)
    all_, none = overlay(found, SKELETON, 0.2), overlay(found, SKELETON, 0.95)
    assert np.array_equal(none, found.frame.pixels)
    assert not np.array_equal(all_, none)


def test_overlays_show_what_is_hidden_as_a_ring():
    found = found_in(dots(100, 60, PERSON))
    hidden = frames.FramePredictions(found.frame, found.keypoints, np.zeros((1, 3)))
    assert not np.array_equal(overlay(found, SKELETON, 0.2), overlay(hidden, SKELETON, 0.2))


@pytest.mark.parametrize("primary", ["coordinates", "heatmap"])
def test_a_visibility_hides_nothing_from_the_drawing(primary):
    """A score that says "surely hidden" draws a ring, one that says "not found" draws nothing."""

    class Hides(DotFinder):
        def predict(self, crops, flip=True):
            answer = super().predict(crops, flip)
            found = answer.keypoints["heatmap"]
            found[..., 2] = 0.01
            return Predictions({primary: found}, found[..., 2], primary, primary != "heatmap")

    (found,) = predict_frames(Hides(), [frame(dots(100, 60, PERSON))], 1.0)
    drawn = overlay(found, SKELETON, 0.2)
    assert np.array_equal(drawn, found.frame.pixels) == (primary == "heatmap")
    assert primary == "heatmap" or np.array_equal(drawn, overlay(found, SKELETON, 0.0))


def test_coco_results_count_pixel_centres_from_zero():
    results = CocoResults()
    found = found_in(dots(100, 60, PERSON))
    results.add(found)
    (result,) = results.results
    assert result.image_id == 1
    assert result.file_name == "a.png"
    xy = np.reshape(result.keypoints, (3, 3))[:, :2]
    assert np.allclose(xy, found.keypoints[0, :, :2] - 0.5, atol=1e-4)


def test_coco_results_weigh_the_box_score_and_leave_out_unknown_files():
    results = CocoResults(ByName({"a.png": 42}))
    boxes = (Box(np.array([0.0, 0, 100, 60]), score=0.5, category_id=3),)
    (found,) = predict_frames(DotFinder(), [frame(dots(100, 60, PERSON), boxes)], 1.0)
    results.add(found)
    other = Frame(Item(Path("z.png"), "z.png"), None, found.frame.pixels, boxes)
    results.add(frames.FramePredictions(other, found.keypoints, None))
    (result,) = results.results
    assert (result.image_id, result.category_id) == (42, 3)
    assert result.score == pytest.approx(0.45)
    assert results.left_out == 1


def test_an_interrupted_run_leaves_no_file_that_looks_whole(tmp_path):
    found = found_in(dots(100, 60, PERSON))
    with suppress(RuntimeError), PredictionFolder(tmp_path / "out", SKELETON, 0.2) as answers:
        answers.add(found)
        raise RuntimeError
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"skeleton.json", "overlays"}


def test_a_skeleton_of_one_keypoint_works(tmp_path):
    one = Skeleton("one", ("red",))

    class First(DotFinder):
        def predict(self, crops, flip=True):
            answer = super().predict(crops, flip)
            return Predictions({"heatmap": answer.keypoints["heatmap"][:, :1]}, None, "heatmap")

    (found,) = predict_frames(First(skeleton=one), [frame(dots(100, 60, PERSON))], 1.0)
    with PredictionFolder(tmp_path, one, 0.2) as answers:
        answers.add(found)
    assert json.loads((tmp_path / "predictions.jsonl").read_text())["instance"] == 0
