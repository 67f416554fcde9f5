import errno
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kpdata.core.errors import DatasetError, FormatError, JobError
from kpdata.core.sample import ImageRef, Instance, Rejected, Sample, View
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17
from kpdata.formats._lib import writing
from kpdata.formats.coco import read, write
from kpdata.images import codec

PNG = codec.encode(np.zeros((6, 8, 3), np.uint8), "png")
SKELETON = Skeleton(
    name="dart", keypoints=("tip", "left_fin", "right_fin"), edges=(("tip", "left_fin"),)
)


def picture(name="a.png", width=8, height=6):
    return ImageRef(name=name, width=width, height=height, data=PNG, format="png")


def dart(**changes):
    keypoints = np.array([[1.5, 2.5, 2], [0, 0, 0], [3.25, 4.125, 1]], np.float32)
    box = np.array([1, 2, 4, 5], np.float32)
    made = Instance(keypoints, box, area=7.5, category="dart", category_id=3, id=5)
    return replace(made, **changes)


def sample(key="9", name="a.png", *instances, **fields):
    return Sample(key, picture(name), instances or (dart(),), **fields)


def load(path):
    return json.loads(path.read_bytes())


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_is_written(tmp_path):
    out = tmp_path / "out"
    counts = write.write([sample()], SKELETON, out)
    assert counts == {"images": 1, "instances": 1}
    assert files(out) == ["annotations.json", "images/a.png"]
    assert (out / "images" / "a.png").read_bytes() == PNG
    written = load(out / "annotations.json")
    assert "kpdata" in written["info"]["description"]
    assert written["images"] == [{"id": 9, "file_name": "a.png", "width": 8, "height": 6}]
    assert written["annotations"] == [{
        "id": 5, "image_id": 9, "category_id": 3, "iscrowd": 0, "area": 7.5, "num_keypoints": 2,
        "keypoints": [1, 2, 2, 0, 0, 0, 2.75, 3.625, 1], "bbox": [1, 2, 3, 3],
    }]  # fmt: skip
    assert written["categories"] == [{
        "id": 3, "name": "dart", "supercategory": "dart",
        "keypoints": ["tip", "left_fin", "right_fin"], "skeleton": [[1, 2]],
    }]  # fmt: skip


def test_one_file_per_split_with_all_images_in_one_folder(tmp_path):
    splits = ["train", "val", "train", None]
    samples = [sample(str(n), f"{n}.png", split=split) for n, split in enumerate(splits)]
    write.write(samples, SKELETON, tmp_path / "out")
    assert files(tmp_path / "out") == [
        "annotations.json", "images/0.png", "images/1.png", "images/2.png", "images/3.png",
        "train.json", "val.json",
    ]  # fmt: skip
    ids = {s: [i["id"] for i in load(tmp_path / "out" / f"{s}.json")["images"]]
           for s in ("train", "val", "annotations")}  # fmt: skip
    assert ids == {"train": [0, 2], "val": [1], "annotations": [3]}


def test_ids_are_kept_where_they_can_be_and_are_never_given_twice(tmp_path):
    keys = ["im1.jpg", "7", "7", "007", "-3", "٣", "0", "9" * 30]
    samples = [sample(key, f"{n}.png") for n, key in enumerate(keys)]
    write.write(samples, SKELETON, tmp_path / "out")
    written = load(tmp_path / "out" / "annotations.json")
    ids = [image["id"] for image in written["images"]]
    assert ids == [1, 7, 2, 3, 4, 5, 0, 6]
    assert [a["id"] for a in written["annotations"]] == [5, 1, 2, 3, 4, 6, 7, 8]
    assert [a["image_id"] for a in written["annotations"]] == ids


def test_a_group_that_is_not_the_file_name_is_written_and_read_back(tmp_path):
    samples = [
        sample("1", "a.png", group="video"),
        sample("2", "a.png"),
        sample("3", "b.png", group="b.png"),
        sample("4", "c.png"),
    ]
    write.write(samples, SKELETON, tmp_path / "out")
    written = load(tmp_path / "out" / "annotations.json")["images"]
    assert [image.get("group") for image in written] == ["video", "a.png", None, None]
    again = list(read.read(tmp_path / "out" / "annotations.json").samples)
    assert [s.image.name for s in again] == ["a.png", "a-1.png", "b.png", "c.png"]
    assert [s.split_group for s in again] == [s.split_group for s in samples]


def test_a_suffix_follows_from_the_bytes_and_names_stay_apart(tmp_path):
    names = ["a.webp", "a.png", "b.PNG", "c", "d\\e.jpg"]
    counts = write.write([sample(n, n) for n in names], SKELETON, tmp_path / "out")
    written = load(tmp_path / "out" / "annotations.json")["images"]
    assert [i["file_name"] for i in written] == ["a.png", "a-1.png", "b.PNG", "c.png", "d/e.png"]
    assert [i.get("group") for i in written] == ["a.webp", "a.png", None, "c", "d\\e.jpg"]
    assert counts["image names given the suffix of their format"] == 3


def test_names_that_are_taken_get_a_number_and_subfolders_stay(tmp_path):
    def crop(number):
        return View(np.eye(2, 3, dtype=np.float32), 8, 6, instance=number)

    samples = [
        sample("1", "sub/a.png", view=crop(0)),
        sample("1", "sub/a.png", view=crop(1)),
        sample("1", "sub/a.png", view=crop(1)),
        sample("2", "a.png"),
        sample("2", "a.png"),
        sample("2", "a.png"),
    ]
    write.write(samples, SKELETON, tmp_path / "out")
    written = load(tmp_path / "out" / "annotations.json")
    names = [image["file_name"] for image in written["images"]]
    assert names == [
        "sub/a.png", "sub/a-1.png", "sub/a-1-1.png", "a.png", "a-1.png", "a-2.png",
    ]  # fmt: skip
    assert files(tmp_path / "out" / "images") == sorted(names)


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/a.png", "a/../../b.png", "..\\b.png", "a\0b"],
)
def test_a_name_that_leads_out_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(FormatError, match="leads out of the folder"):
        write.write([sample(), sample("3", name)], SKELETON, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["../train", "a/b", ".."])
def test_a_split_that_is_no_file_name_is_refused(tmp_path, split):
    with pytest.raises(FormatError, match="cannot be a file's name"):
        write.write([sample(split=split)], SKELETON, tmp_path / "out")


def test_an_image_given_by_uri_is_copied_and_measured(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    reference = ImageRef(name="b/c.png", uri=str(tmp_path / "a.png"))
    write.write([Sample("1", reference)], SKELETON, tmp_path / "out")
    assert (tmp_path / "out" / "images" / "b" / "c.png").read_bytes() == PNG
    assert load(tmp_path / "out" / "annotations.json")["images"] == [
        {"id": 1, "file_name": "b/c.png", "width": 8, "height": 6}
    ]


def test_what_cannot_be_written_is_quarantined_by_reason(tmp_path):
    missing = Sample("4", ImageRef(name="x.png", uri=str(tmp_path / "x.png"), width=1, height=1))
    bad = Rejected("8", "bad keypoints", "a.json: v is 7")
    out = tmp_path / "out"
    counts = write.write([bad, sample(), missing, bad], SKELETON, out, max_quarantine=75)
    assert counts == {
        "quarantined: bad keypoints": 2,
        "quarantined: image missing": 1,
        "images": 1,
        "instances": 1,
    }
    assert files(out) == ["annotations.json", "images/a.png", "quarantine.jsonl"]
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").open()]
    assert [line["key"] for line in lines] == ["8", "4", "8"]
    assert lines[0]["detail"] == "a.json: v is 7"


def test_an_image_that_cannot_be_stored_in_shards_is_quarantined_here_too(tmp_path):
    (tmp_path / "text.jpg").write_bytes(b"hello, world")
    (tmp_path / "cut.png").write_bytes(PNG[:-4])
    samples = [
        Sample(name, ImageRef(name, uri=str(tmp_path / name), width=8, height=6))
        for name in ("text.jpg", "cut.png")
    ]
    out = tmp_path / "out"
    counts = write.write([sample(), *samples], SKELETON, out, max_quarantine=70)
    assert counts["quarantined: not an image"] == counts["quarantined: image cut short"] == 1
    assert files(out) == ["annotations.json", "images/a.png", "quarantine.jsonl"]
    details = [json.loads(line)["detail"] for line in (out / "quarantine.jsonl").open()]
    assert details[0].startswith(f"{tmp_path / 'text.jpg'}: ")
    assert details[1].startswith(f"{tmp_path / 'cut.png'}: ")


def test_an_image_of_another_size_is_quarantined_and_a_turned_one_is_not(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG", exif=exif)

    def stated(width, height, data=PNG):
        image = ImageRef(f"{width}x{height}.jpg", width=width, height=height, data=data)
        return Sample(image.name, image)

    turned = [stated(8, 6, buffer.getvalue()), stated(6, 8, buffer.getvalue())]
    samples = [stated(8, 6), stated(6, 8), stated(16, 12), stated(9, 8, buffer.getvalue())]
    counts = write.write(turned + samples, SKELETON, tmp_path / "out", max_quarantine=50)
    assert counts == {
        "images": 3,
        "quarantined: size mismatch": 3,
        "image names given the suffix of their format": 1,
    }
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").open()]
    assert [line["key"] for line in lines] == ["6x8.jpg", "16x12.jpg", "9x8.jpg"]
    assert lines[0]["detail"].startswith("6x8.jpg is 8 × 6 pixels, but its annotation says 6 × 8")
    assert lines[2]["detail"].startswith("9x8.jpg is 6 × 8 pixels, but its annotation says 9 × 8")


def test_a_disk_that_fails_while_an_image_is_read_is_not_blamed_on_the_output(
    tmp_path, monkeypatch
):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writing, "read_file", fail)
    image = ImageRef("a.png", uri="/disk/a.png", width=8, height=6)
    with pytest.raises(JobError, match=r"^/disk/a\.png: cannot be read: Input/output error\."):
        write.write([Sample("1", image)], SKELETON, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_is_not_blamed_on_the_output(tmp_path):
    def samples():
        yield sample()
        raise OSError(errno.EIO, "Input/output error", "/disk/a.json")

    with pytest.raises(OSError, match=r"Input/output error: '/disk/a\.json'"):
        write.write(samples(), SKELETON, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    gone = [f".out.{ended.pid}.partial", f".out.{os.getpid()}.partial", f".out.{10**30}.partial"]
    kept = [f".out.{os.getppid()}.partial", f".out.b.{ended.pid}.partial", ".out.partial"]
    for name in gone + kept:
        (tmp_path / name / "images").mkdir(parents=True)
    write.write([sample()], SKELETON, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "out"])


def test_too_many_bad_samples_leave_nothing(tmp_path):
    bad = Rejected("8", "bad keypoints", "a.json: v is 7")
    with pytest.raises(JobError, match=r"1 of 2 samples are bad \(1 × bad keypoints\)") as caught:
        write.write([bad, sample()], SKELETON, tmp_path / "out", max_quarantine=49)
    assert "a.json: v is 7" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_symlink_out_of_the_images_folder_is_not_copied(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    (root / "a.png").symlink_to(secret)
    linked = Sample("1", ImageRef(name="a.png", uri=str(root / "a.png")))
    with pytest.raises(JobError, match="unsafe path"):
        write.write([linked], SKELETON, tmp_path / "out", images_root=root)
    assert not (tmp_path / "out").exists()


def test_a_missing_box_is_drawn_around_the_keypoints_and_a_missing_area_is_the_boxs(tmp_path):
    instances = (dart(area=None), dart(area=None, bbox_xyxy=None), dart(head_size=3.0))
    counts = write.write([sample("1", "a.png", *instances)], SKELETON, tmp_path / "out")
    boxed, bare, _ = load(tmp_path / "out" / "annotations.json")["annotations"]
    assert boxed["area"] == 9
    assert bare["bbox"] == [1.5, 2.5, 1.75, 1.625]
    assert bare["area"] == pytest.approx(1.75 * 1.625)
    assert counts["boxes drawn around the keypoints"] == 1
    assert counts["head sizes, which COCO does not hold"] == 1


def test_categories_that_share_a_number_are_told_apart(tmp_path):
    kinds = [(3, "dart"), (3, "arrow"), (4, "bolt"), (3, "dart")]
    instances = [dart(category_id=number, category=name) for number, name in kinds]
    write.write([sample("1", "a.png", *instances)], SKELETON, tmp_path / "out")
    written = load(tmp_path / "out" / "annotations.json")
    assert {c["name"]: c["id"] for c in written["categories"]} == {"dart": 3, "arrow": 4, "bolt": 5}
    assert [a["category_id"] for a in written["annotations"]] == [3, 4, 5, 3]


def test_nothing_to_write_is_still_a_coco_file_with_its_skeleton(tmp_path):
    assert write.write([], SKELETON, tmp_path / "out") == {}
    source = read.read(tmp_path / "out" / "annotations.json")
    assert source.skeleton == SKELETON
    assert list(source.samples) == []


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_an_output_in_use_is_refused_and_left_alone(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(DatasetError, match="already exists: give a new or empty folder"):
        write.write([sample()], SKELETON, out)
    assert (out if kind == "file" else out / "mine").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


def test_an_empty_folder_and_a_new_one_below_new_ones_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new" / "er"):
        write.write([sample()], SKELETON, out)
        assert files(out) == ["annotations.json", "images/a.png"]
        assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []


def test_a_symlink_to_an_empty_folder_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    write.write([sample()], SKELETON, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert files(tmp_path / "there") == ["annotations.json", "images/a.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(tmp_path, error):
    def samples():
        yield sample()
        raise error

    with pytest.raises(error):
        write.write(samples(), SKELETON, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DatasetError, match=r"out: cannot be written: .*No space left on device"):
        write.write([sample()], SKELETON, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


eighths = st.integers(-8 * 50, 8 * 5000).map(lambda n: n / 8)
keypoint = st.one_of(
    st.just((0.0, 0.0, 0.0)), st.tuples(eighths, eighths, st.sampled_from([1.0, 2.0]))
)


@st.composite
def instance_lists(draw):
    made = []
    for number in range(draw(st.integers(0, 4))):
        x, y = draw(eighths), draw(eighths)
        w, h = abs(draw(eighths)), abs(draw(eighths))
        made.append(
            Instance(
                keypoints=np.array([draw(keypoint) for _ in range(3)], np.float32),
                bbox_xyxy=np.array([x, y, x + w, y + h], np.float32),
                area=draw(st.floats(0, 1e9)),
                is_crowd=draw(st.booleans()),
                category="dart",
                category_id=draw(st.just(3)),
                id=number + 1,
            )
        )
    return made


@given(lists=st.lists(instance_lists(), min_size=1, max_size=3))
def test_reading_what_was_written_gives_the_same_samples(tmp_path_factory, lists):
    out = tmp_path_factory.mktemp("round") / "out"
    numbered = [
        [replace(one, id=10 * n + one.id) for one in found] for n, found in enumerate(lists)
    ]
    written = [
        Sample(str(n + 1), picture(f"{n}.png"), tuple(found)) for n, found in enumerate(numbered)
    ]
    counts = write.write(written, SKELETON, out)
    source = read.read(out / "annotations.json")
    again = list(source.samples)
    assert [s.key for s in again] == [s.key for s in written]
    assert [s.instances for s in again] == [s.instances for s in written]
    assert [Path(s.image.uri).read_bytes() for s in again] == [PNG] * counts["images"]
    assert not source.counts


def test_the_real_file_survives_and_scores_1_against_itself(real_data, tmp_path, capsys):
    mask_tools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    original = real_data / "coco_mini" / "person_keypoints_train2017.json"
    first = list(read.read(original).samples)
    out = tmp_path / "out"
    counts = write.write(first, COCO17, out)
    assert counts == {"images": 80, "instances": 172}
    source = read.read(out / "annotations.json")
    second = list(source.samples)
    assert source.skeleton == COCO17
    assert [s.key for s in second] == [s.key for s in first]
    assert [s.image.name for s in second] == [s.image.name for s in first]
    for before, after in zip(first, second, strict=True):
        assert Path(after.image.uri).read_bytes() == Path(before.image.uri).read_bytes()
        for a, b in zip(before.instances, after.instances, strict=True):
            np.testing.assert_allclose(b.keypoints, a.keypoints, rtol=0, atol=0.01)
            np.testing.assert_allclose(b.bbox_xyxy, a.bbox_xyxy, rtol=0, atol=0.01)
            assert (b.id, b.area, b.is_crowd) == (a.id, a.area, a.is_crowd)

    truth = mask_tools.COCO(str(out / "annotations.json"))
    fields = ("image_id", "category_id", "keypoints")
    results = [
        {key: entry[key] for key in fields} | {"score": 1.0}
        for entry in truth.dataset["annotations"]
        if entry["num_keypoints"]
    ]
    evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    assert evaluation.stats[0] == pytest.approx(1.0)
