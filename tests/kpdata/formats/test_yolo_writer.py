"""Writing YOLO pose: what is written, what YOLO cannot hold, and the way back."""

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kpdata.core.errors import DatasetError, FormatError, JobError
from kpdata.core.sample import ImageRef, Instance, Rejected, Sample, View
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.formats.coco import read as coco
from kpdata.formats.lsp import read as lsp
from kpdata.formats.yolo import read as yolo
from kpdata.formats.yolo import write as yolo_writer
from kpdata.images import codec

WIDTH, HEIGHT = 40, 20
PNG = codec.encode(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "png")
SKELETON = Skeleton(
    name="dart", keypoints=("tip", "left_fin", "right_fin"), edges=(("tip", "left_fin"),)
)
MISSING = {yolo_writer.MISSING.format("val"): 1}


def dart(**changes):
    keypoints = np.array([[10, 5, 2], [0, 0, 0], [30, 15, 1]], np.float32)
    box = np.array([8, 4, 32, 16], np.float32)
    return replace(Instance(keypoints, box, area=7.5, category="dart", category_id=3), **changes)


def sample(name="a.png", *instances, split="train", data=PNG, **fields):
    image = ImageRef(name=name, data=data)
    return Sample(name, image, instances or (dart(),), split=split, **fields)


def write(tmp_path, *samples, **options):
    """What was counted, less what every dataset without val counts."""
    counts = yolo_writer.write(samples, SKELETON, tmp_path / "out", **options)
    return dict(counts - Counter(MISSING))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def names(tmp_path):
    return [s.image.name for s in read(tmp_path)]


def read(tmp_path):
    return list(yolo.read(tmp_path / "out/data.yaml").samples)


def labels(tmp_path, name="train/a"):
    return (tmp_path / f"out/labels/{name}.txt").read_text()


def encoded(format_, size=(WIDTH, HEIGHT), mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format_, **options)
    return buffer.getvalue()


def test_what_is_written(tmp_path):
    counts = yolo_writer.write(
        [sample(), sample("b.png", split="val"), sample("c.png", split="test")],
        SKELETON,
        tmp_path / "out",
    )
    assert counts == {"images": 3, "instances": 3}
    assert files(tmp_path / "out") == [
        "data.yaml", "images/test/c.png", "images/train/a.png", "images/val/b.png",
        "labels/test/c.txt", "labels/train/a.txt", "labels/val/b.txt",
    ]  # fmt: skip
    assert labels(tmp_path) == "0 0.5 0.5 0.6 0.6 0.25 0.25 2 0 0 0 0.75 0.75 1\n"
    assert (tmp_path / "out/images/train/a.png").read_bytes() == PNG
    text = (tmp_path / "out/data.yaml").read_text()
    assert text.startswith("# YOLO pose, written by kpdata ")
    assert yaml.safe_load(text) == {
        "train": "images/train",
        "val": "images/val",
        "test": "images/test",
        "kpt_shape": [3, 3],
        "flip_idx": [0, 2, 1],
        "names": {0: "dart"},
        "kpt_names": {0: ["tip", "left_fin", "right_fin"]},
    }


def test_the_folder_may_be_moved(tmp_path):
    write(tmp_path, sample())
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    source = yolo.read(tmp_path / "elsewhere/data.yaml")
    (found,) = source.samples
    assert (found.split, found.instances[0].category) == ("train", "dart")
    assert source.counts == Counter()


def test_digits_end_where_they_say_nothing_more(tmp_path):
    third = dart(keypoints=np.array([[40 / 3, 20, 2], [0, 0, 2], [40, 1e-8, 2]], np.float32))
    write(tmp_path, sample("a.png", third))
    assert labels(tmp_path).split()[5:] == ["0.33333333", "1", "2", "0", "0", "2", "1", "0", "2"]


def test_an_image_without_objects_has_an_empty_file_of_labels(tmp_path):
    assert write(tmp_path, replace(sample(), instances=())) == {"images": 1}
    assert labels(tmp_path) == ""
    source = yolo.read(tmp_path / "out/data.yaml")
    assert [s.instances for s in source.samples] == [()]
    assert source.counts == Counter()


# --- what YOLO cannot hold ------------------------------------------------------------------------


def test_crowds_are_left_out(tmp_path):
    counts = write(tmp_path, sample("a.png", dart(), dart(is_crowd=True)))
    assert counts == {"images": 1, "instances": 1, yolo_writer.CROWDS: 1}
    assert len(labels(tmp_path).splitlines()) == 1


def test_a_missing_box_is_drawn_around_the_keypoints(tmp_path):
    counts = write(tmp_path, sample("a.png", dart(bbox_xyxy=None)))
    assert counts == {"images": 1, "instances": 1, "boxes drawn around the keypoints": 1}
    assert labels(tmp_path).split()[1:5] == ["0.5", "0.5", "0.5", "0.5"]


@pytest.mark.parametrize(
    "box", [None, [5, 5, 5, 9], [5, 5, 9, 5], [40, 0, 50, 10], [-9, -9, -1, 30]]
)
def test_an_instance_without_a_box_within_the_image_is_left_out(tmp_path, box):
    alone = dart(
        keypoints=np.zeros((3, 3)), bbox_xyxy=None if box is None else np.array(box, np.float32)
    )
    assert write(tmp_path, sample("a.png", alone)) == {"images": 1, yolo_writer.BOXLESS: 1}
    assert labels(tmp_path) == ""


def test_a_single_keypoint_draws_no_box(tmp_path):
    keypoints = np.array([[10, 5, 2], [0, 0, 0], [0, 0, 0]], np.float32)
    counts = write(tmp_path, sample("a.png", dart(keypoints=keypoints, bbox_xyxy=None)))
    assert counts == {"images": 1, yolo_writer.BOXLESS: 1}


def test_an_instance_without_labelled_keypoints_is_kept(tmp_path):
    counts = write(tmp_path, sample("a.png", dart(keypoints=np.zeros((3, 3)))))
    assert counts == {"images": 1, "instances": 1}
    assert labels(tmp_path) == "0 0.5 0.5 0.6 0.6 0 0 0 0 0 0 0 0 0\n"


def test_what_lies_outside_the_image_is_clipped_or_not_labelled(tmp_path):
    far = dart(
        keypoints=np.array([[-1, 5, 2], [10, 20.5, 1], [30, 15, 1]], np.float32),
        bbox_xyxy=np.array([-5, 4, 20, 26], np.float32),
    )
    counts = write(tmp_path, sample("a.png", far))
    clipped = {yolo_writer.CLIPPED: 1, yolo_writer.OUTSIDE: 2}
    assert counts == {"images": 1, "instances": 1} | clipped
    assert labels(tmp_path) == "0 0.25 0.6 0.5 0.8 0 0 0 0 0 0 0.75 0.75 1\n"


def test_a_box_drawn_around_keypoints_outside_ends_at_the_image(tmp_path):
    keypoints = np.array([[-20, -20, 2], [0, 0, 0], [20, 10, 2]], np.float32)
    counts = write(tmp_path, sample("a.png", dart(keypoints=keypoints, bbox_xyxy=None)))
    assert counts[yolo_writer.CLIPPED] == counts[yolo_writer.OUTSIDE] == 1
    assert labels(tmp_path).split()[1:5] == ["0.25", "0.25", "0.5", "0.5"]


def test_the_noise_of_float32_is_no_label_outside(tmp_path):
    edge = dart(
        keypoints=np.array([[40.0001, 20.0001, 2], [-0.0001, 0, 2], [30, 15, 1]], np.float32),
        bbox_xyxy=np.array([-0.0001, 0, 40.0001, 20], np.float32),
    )
    assert write(tmp_path, sample("a.png", edge)) == {"images": 1, "instances": 1}
    assert labels(tmp_path).split()[1:11] == ["0.5", "0.5", "1", "1", "1", "1", "2", "0", "0", "2"]


def test_what_has_no_place_in_a_label_is_counted(tmp_path):
    crop = View(np.eye(2, 3, dtype=np.float32), 80, 60, instance=1)
    counts = write(
        tmp_path,
        sample("a.png", dart(head_size=3.0)),
        sample("b.png", group="video"),
        sample("c.png", view=crop),
        sample("d.png", group="d.png"),
    )
    lost = {yolo_writer.HEADS: 1, yolo_writer.GROUPED: 2}
    assert counts == {"images": 4, "instances": 4} | lost


def test_images_that_are_too_small_for_ultralytics_are_counted(tmp_path):
    small = encoded("PNG", (9, 10))
    counts = write(tmp_path, sample("a.png", data=small), sample("b.png", data=PNG))
    assert counts[yolo_writer.SMALL] == 1


# --- splits and classes ---------------------------------------------------------------------------


def test_without_a_split_all_is_train_and_a_missing_split_is_said(tmp_path):
    counts = yolo_writer.write([sample(split=None)], SKELETON, tmp_path / "out")
    assert counts == {"images": 1, "instances": 1, yolo_writer.UNSPLIT: 1} | MISSING
    assert names(tmp_path) == ["images/train/a.png"]
    counts = yolo_writer.write([sample(split="test")], SKELETON, tmp_path / "test")
    train = {yolo_writer.MISSING.format("train"): 1}
    assert counts == {"images": 1, "instances": 1} | train | MISSING
    assert set(yaml.safe_load((tmp_path / "test/data.yaml").read_text())) >= {"test"}


def test_a_split_that_yolo_does_not_know_is_refused(tmp_path):
    says = r"sample b.png: its split is 'dev', YOLO knows train, val, test: convert to shards with"
    with pytest.raises(FormatError, match=says):
        write(tmp_path, sample(), sample("b.png", split="dev"))
    assert list(tmp_path.iterdir()) == []


def test_classes_stand_in_the_order_of_their_ids(tmp_path):
    kinds = [(7, "ship"), (3, "dart"), (5, "bolt"), (9, "dart")]
    instances = [dart(category_id=number, category=name) for number, name in kinds]
    write(
        tmp_path, sample("a.png", *instances), sample("no.png", dart(category="no", category_id=8))
    )
    data = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert data["names"] == {0: "dart", 1: "bolt", 2: "ship", 3: "no"}
    assert set(map(tuple, data["kpt_names"].values())) == {SKELETON.keypoints}
    found = {s.image.name: [i.category for i in s.instances] for s in read(tmp_path)}
    assert found == {
        "images/train/a.png": ["ship", "dart", "bolt", "dart"],
        "images/train/no.png": ["no"],
    }


def test_nothing_to_write_is_still_a_dataset(tmp_path):
    assert yolo_writer.write([], SKELETON, tmp_path / "out") == {}
    source = yolo.read(tmp_path / "out/data.yaml")
    assert list(source.samples) == []
    assert source.skeleton.keypoints == SKELETON.keypoints


# --- images and their names -----------------------------------------------------------------------


def test_images_whose_labels_would_be_one_file_are_told_apart(tmp_path):
    jpeg = encoded("JPEG")
    crop = View(np.eye(2, 3, dtype=np.float32), 80, 60, instance=4)
    write(
        tmp_path,
        sample("a.png"),
        sample("a.jpg", replace(dart(), category="arrow"), data=jpeg),
        sample("a.png", split="val"),
        sample("a.png", view=crop),
    )
    found = {s.image.name: s.instances[0].category for s in read(tmp_path)}
    assert found == {
        "images/train/a.png": "dart",
        "images/train/a-1.jpg": "arrow",
        "images/val/a.png": "dart",
        "images/train/a-4.png": "dart",
    }


@pytest.mark.parametrize(
    ("taken", "name"),
    [("a.png", "a.png/b.png"), ("a.png", "a.txt/b.png")],
)
def test_a_name_that_the_disk_refuses_costs_its_sample_alone(tmp_path, taken, name):
    counts = write(tmp_path, sample(taken), sample(name), sample("c.png"), max_quarantine=50.0)
    assert counts["quarantined: image name"] == 1
    assert sorted(names(tmp_path)) == [f"images/train/{taken}", "images/train/c.png"]
    assert len(files(tmp_path / "out/images")) == len(files(tmp_path / "out/labels")) == 2
    assert "rename the image" in (tmp_path / "out/quarantine.jsonl").read_text()


def test_a_folder_called_like_a_label_does_not_disturb_the_numbering(tmp_path):
    late, early = dart(category="b", category_id=2), dart(category="a", category_id=1)
    write(tmp_path, sample("x.txt/b.png", late), sample("c.png", early))
    assert (tmp_path / "out/labels/train/x.txt/b.txt").read_text().startswith("1 ")


def test_folders_that_mean_something_to_yolo_are_not_written_twice(tmp_path):
    write(
        tmp_path,
        sample("images/train/a.png"),
        sample("valid/images/b.png", split="val"),
        sample("train/images/c.png"),
        sample("labels/images.png"),
        sample("sub/train/d.png"),
    )
    expected = ["train/a.png", "train/c.png", "train/labels/images.png", "train/sub/train/d.png",
                "val/valid/b.png"]  # fmt: skip
    assert files(tmp_path / "out/images") == expected
    assert files(tmp_path / "out/labels") == [f"{name[:-4]}.txt" for name in expected]
    assert sorted(names(tmp_path)) == [f"images/{name}" for name in expected]


def test_hidden_names_which_readers_skip_are_changed(tmp_path):
    counts = write(tmp_path, sample(".a.png"), sample(".b/..c.png"), sample("d.e.png"))
    assert counts[yolo_writer.HIDDEN] == 2
    assert sorted(names(tmp_path)) == [
        "images/train/_a.png", "images/train/_b/_.c.png", "images/train/d.e.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("format_", "suffixes"),
    [
        ("JPEG", (".jpg", ".JPEG")),
        ("PNG", (".png", ".PNG")),
        ("WEBP", (".webp",)),
        ("BMP", (".bmp",)),
        ("TIFF", (".tif", ".tiff")),
    ],
)
def test_names_end_as_readers_expect(tmp_path, format_, suffixes):
    data = encoded(format_)
    kept = [f"{number}{suffix}" for number, suffix in enumerate(suffixes)]
    other = ["x.jfif", "y", "z.gif"]
    counts = write(tmp_path, *(sample(name, data=data) for name in kept + other))
    assert counts["image names given the suffix of their format"] == len(other)
    ends = [f"{name[0]}{suffixes[0]}" for name in other]
    assert sorted(names(tmp_path)) == sorted(f"images/train/{name}" for name in kept + ends)


@pytest.mark.parametrize("format_", ["GIF", "PPM"])
def test_an_image_that_ultralytics_does_not_read_is_quarantined(tmp_path, format_):
    bad = sample("b.png", data=encoded(format_))
    counts = write(tmp_path, sample(), bad, max_quarantine=50)
    assert counts == {"images": 1, "instances": 1, "quarantined: image format": 1}
    (line,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    says = f"b.png is a {format_}, which Ultralytics does not read: convert to shards first"
    assert json.loads(line)["detail"].startswith(says)
    assert files(tmp_path / "out/images") == ["train/a.png"]


def test_labels_go_by_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded("JPEG", (HEIGHT, WIDTH), exif=exif)

    def stated(name, width, height):
        return Sample(name, ImageRef(name, width=width, height=height, data=turned), (dart(),))

    samples = [stated("a.jpg", None, None), stated("b.jpg", WIDTH, HEIGHT)]
    counts = write(tmp_path, *samples, stated("c.jpg", HEIGHT, WIDTH), max_quarantine=50)
    assert counts["quarantined: size mismatch"] == 1
    assert labels(tmp_path, "train/b") == labels(tmp_path) == labels_of_a_dart()
    assert "try the other value of `exif`" in (tmp_path / "out/quarantine.jsonl").read_text()
    again = [s.instances[0].keypoints.tolist() for s in read(tmp_path)]
    assert again == [dart().keypoints.tolist()] * 2


def labels_of_a_dart():
    return "0 0.5 0.5 0.6 0.6 0.25 0.25 2 0 0 0 0.75 0.75 1\n"


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "images/../../b.png", "a\0b"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(FormatError, match="leads out of the folder"):
        write(tmp_path, sample(), sample(name))
    assert list(tmp_path.iterdir()) == []


def test_an_image_given_by_uri_is_copied(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    image = ImageRef(name="b/c.png", uri=str(tmp_path / "a.png"), width=WIDTH, height=HEIGHT)
    write(tmp_path, Sample("1", image, (dart(),)))
    assert (tmp_path / "out/images/train/b/c.png").read_bytes() == PNG


def test_too_many_bad_samples_leave_nothing(tmp_path):
    bad = Rejected("8", "bad keypoints", "a.json: v is 7")
    with pytest.raises(JobError, match=r"1 of 2 samples are bad \(1 × bad keypoints\)"):
        write(tmp_path, bad, sample(), max_quarantine=49)
    assert list(tmp_path.iterdir()) == []
    assert write(tmp_path, bad, sample(), max_quarantine=50)["quarantined: bad keypoints"] == 1


def test_an_output_in_use_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(DatasetError, match="already exists: give a new or empty folder"):
        write(tmp_path, sample())


# --- the way back ---------------------------------------------------------------------------------

SIZES = {
    (640, 480): encoded("PNG", (640, 480), "1"),
    (30_000, 12): encoded("PNG", (30_000, 12), "1"),
}


@st.composite
def instances_in(draw, width, height):
    def inside(low=0.0, high=1.0):
        return draw(st.floats(low, high, width=32))

    made = []
    for number in range(draw(st.integers(0, 3))):
        rows = [
            (inside() * width, inside() * height, v) if v else (0, 0, 0)
            for v in draw(st.tuples(*[st.sampled_from([0, 1, 2])] * 3))
        ]
        x, y = inside(0, 0.875) * width, inside(0, 0.875) * height
        box = [x, y, x + inside(0.0625, 0.125) * width, y + inside(0.0625, 0.125) * height]
        made.append(Instance(np.array(rows), np.array(box), category="dart", id=number + 1))
    return tuple(made)


@given(data=st.data(), size=st.sampled_from(list(SIZES)))
def test_reading_what_was_written_gives_the_same_samples(tmp_path_factory, data, size):
    out = tmp_path_factory.mktemp("round") / "out"
    splits = data.draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=1, max_size=3))
    written = [
        sample(f"{n}.png", split=split, data=SIZES[size])
        for n, split in enumerate(sorted(splits, key=["train", "val", "test"].index))
    ]
    written = [replace(one, instances=data.draw(instances_in(*size))) for one in written]
    counts = yolo_writer.write(written, SKELETON, out)
    assert counts["images"] == len(written)
    source = yolo.read(out / "data.yaml")
    again = list(source.samples)
    assert [s.key for s in again] == [f"images/{s.split}/{s.key}" for s in written]
    assert [s.split for s in again] == [s.split for s in written]
    for before, after in zip(written, again, strict=True):
        assert Path(after.image.uri).read_bytes() == before.image.data
        for a, b in zip(before.instances, after.instances, strict=True):
            np.testing.assert_allclose(b.keypoints, a.keypoints, rtol=0, atol=1e-3)
            np.testing.assert_allclose(b.bbox_xyxy, a.bbox_xyxy, rtol=0, atol=1e-3)
            assert (b.category, b.id) == (a.category, a.id)
    assert source.counts == Counter()


def check_as_ultralytics_does(folder):
    """The columns, classes and limits that its loader insists on, in its strictest version."""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    columns = 5 + data["kpt_shape"][0] * data["kpt_shape"][1]
    for path in (folder / "labels").rglob("*.txt"):
        for row in path.read_text().splitlines():
            values = np.array(row.split(), np.float32)
            assert values.shape == (columns,)
            assert 0 <= values[0] < len(data["names"])
            assert (values >= 0).all()
            places = np.concatenate([values[1:5], values[5:].reshape(-1, 3)[:, :2].ravel()])
            assert (places <= 1).all()
            assert set(values[7::3]) <= {0, 1, 2}


anywhere = st.floats(-100, 100, width=32)


@given(
    rows=st.lists(st.tuples(anywhere, anywhere, st.sampled_from([1, 2])), min_size=3, max_size=3),
    corner=st.tuples(anywhere, anywhere),
    extent=st.tuples(st.floats(0, 99), st.floats(0, 99)),
    has_box=st.booleans(),
)
def test_ultralytics_takes_every_label(tmp_path_factory, rows, corner, extent, has_box):
    box = np.array([*corner, *np.add(corner, extent)], np.float32)
    made = Instance(np.array(rows), box if has_box else None, category="dart")
    out = tmp_path_factory.mktemp("any") / "out"
    counts = yolo_writer.write([sample("a.png", made)], SKELETON, out)
    assert counts["instances"] + counts[yolo_writer.BOXLESS] == 1
    check_as_ultralytics_does(out)


def test_real_coco_survives(real_data, tmp_path):
    first = list(coco.read(real_data / "coco_mini/person_keypoints_train2017.json").samples)
    counts = yolo_writer.write(first, COCO17, tmp_path / "out")
    unsplit = {yolo_writer.UNSPLIT: 80} | MISSING
    assert counts == {"images": 80, "instances": 167, yolo_writer.CROWDS: 5} | unsplit
    check_as_ultralytics_does(tmp_path / "out")
    source = yolo.read(tmp_path / "out/data.yaml")
    again = {s.image.name.rpartition("/")[2]: s for s in source.samples}
    assert source.skeleton == COCO17
    for before in first:
        after = again[before.image.name]
        kept = [one for one in before.instances if not one.is_crowd]
        for a, b in zip(kept, after.instances, strict=True):
            np.testing.assert_allclose(b.keypoints, a.keypoints, rtol=0, atol=1e-3)
            np.testing.assert_allclose(b.bbox_xyxy, a.bbox_xyxy, rtol=0, atol=1e-3)


def test_real_lsp_has_boxes_drawn(real_data, tmp_path):
    samples = list(islice(lsp.read(real_data / "lsp/joints.mat").samples, 100))
    counts = yolo_writer.write(samples, LSP14, tmp_path / "out")
    assert counts["boxes drawn around the keypoints"] == counts["instances"] == 100
    check_as_ultralytics_does(tmp_path / "out")
    assert yolo.read(tmp_path / "out/data.yaml").skeleton == LSP14
