"""YOLO pose: data.yaml, images and normalised labels."""

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kpdata.core.errors import FormatError, SchemaError
from kpdata.core.sample import Rejected
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17
from kpdata.formats import read
from kpdata.formats.base import LABELLED
from kpdata.formats.yolo.read import ABSENT, UNLABELLED, label_name

BOAT = {
    "train": "images/train",
    "val": "images/val",
    "kpt_shape": [3, 3],
    "flip_idx": [0, 2, 1],
    "names": {0: "boat", 1: "ship"},
}
LINE = "0 0.5 0.5 0.25 0.5  0.5 0.25 2  0.125 0.75 1  0 0 0"


@pytest.fixture
def dataset(tmp_path):
    """``dataset(labels, **changes)``: name → label text (None for no file); the data.yaml."""

    def make(labels, **changes):
        for name, text in labels.items():
            image = tmp_path / name
            image.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), np.full((40, 80, 3), len(name), np.uint8))
            if text is not None:
                label = tmp_path / label_name(name)
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(text)
        path = tmp_path / "data.yaml"
        path.write_text(yaml.safe_dump(BOAT | changes))
        return path

    return make


def two(dataset, **changes):
    return dataset({"images/train/1.jpg": LINE, "images/val/2.jpg": LINE}, **changes)


def samples(path, **options):
    source = read("yolo", path, **options)
    return list(source.samples), source


def test_a_line_is_an_instance_in_pixels(dataset):
    path = dataset(
        {"images/train/1.jpg": LINE + "\n\n" + LINE.replace("0 ", "1 ", 1), "images/val/2.jpg": ""}
    )
    (first, second), source = samples(path)
    boat, ship = first.instances
    assert boat.keypoints.tolist() == [[40, 10, 2], [10, 30, 1], [0, 0, 0]]
    assert boat.bbox_xyxy.tolist() == [30, 10, 50, 30]
    assert (boat.category, boat.category_id, boat.id) == ("boat", 1, 1)
    assert (ship.category, ship.category_id, ship.id) == ("ship", 2, 3)
    assert (first.image.width, first.image.height) == (80, 40)
    assert (first.key, first.split, first.split_group) == (
        "images/train/1.jpg",
        "train",
        "images/train/1.jpg",
    )
    assert (second.key, second.split, second.instances) == ("images/val/2.jpg", "val", ())
    assert source.counts == Counter()
    assert source.images_root == path.parent


TRAIN, VAL = "images/train/1.jpg", "images/val/2.jpg"


def test_val_may_be_called_validation(dataset):
    path = dataset({TRAIN: LINE, VAL: LINE}, val=None, validation="images/val")
    found, _ = samples(path)
    assert [sample.split for sample in found] == ["train", "val"]


def test_an_export_of_cvat_lists_images_below_a_folder_that_is_not_there(dataset, tmp_path):
    path = dataset({"images/Train/1.jpg": LINE}, train=None, val=None, Train="Train.txt")
    (tmp_path / "Train.txt").write_text("data/images/Train/1.jpg\n")
    ((sample,), _) = samples(path)
    assert (sample.image.name, sample.split) == ("images/Train/1.jpg", "train")
    assert len(sample.instances) == 1


def test_a_test_folder_that_is_absent_is_left_out_and_said(dataset):
    path = dataset({TRAIN: LINE, VAL: LINE}, test="../test/images")
    found, source = samples(path)
    assert [sample.split for sample in found] == ["train", "val"]
    assert [what for what in source.counts if "folder is absent: test" in what]
    with pytest.raises(FormatError, match="val: nowhere: not found below"):
        samples(dataset({TRAIN: LINE}, val="nowhere"))


def test_classes_without_names_are_numbered(dataset):
    found, _ = samples(dataset({TRAIN: LINE, VAL: "1" + LINE[1:]}, names=None, nc=2))
    assert [sample.instances[0].category for sample in found] == ["class_0", "class_1"]
    with pytest.raises(FormatError, match="names has no class"):
        samples(dataset({TRAIN: LINE}, names=None))


def test_cocos_mirror_images_name_the_keypoints_of_people_alone(dataset):
    flips = COCO17.flip_index.tolist()
    line = "0 .5 .5 .2 .2" + " .5 .5 2" * 17
    people = dataset({TRAIN: line, VAL: line}, kpt_shape=[17, 3], flip_idx=flips, names=["Person"])
    assert samples(people)[1].skeleton is COCO17
    cows = dataset({TRAIN: line, VAL: line}, kpt_shape=[17, 3], flip_idx=flips, names=["cow"])
    skeleton = samples(cows)[1].skeleton
    assert skeleton.keypoints[0] == "keypoint_1"
    assert skeleton.flip_index.tolist() == flips


def test_v_of_one_means_labelled_where_no_label_has_two(dataset):
    ones = LINE.replace("0.25 2", "0.25 1")
    (first, _), source = samples(dataset({TRAIN: ones, VAL: ones}))
    assert first.instances[0].visibility.tolist() == [2, 2, 0]
    assert source.counts[LABELLED] == 4
    (first, _), _ = samples(dataset({TRAIN: ones, VAL: LINE}))
    assert first.instances[0].visibility.tolist() == [1, 1, 0]
    (first, _), _ = samples(dataset({TRAIN: ones, VAL: ones}), visibility="coco")
    assert first.instances[0].visibility.tolist() == [1, 1, 0]


def test_a_folder_of_labels_that_leads_out_is_not_followed(dataset, tmp_path):
    path = dataset({TRAIN: None, VAL: LINE})
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (outside / "train").mkdir(parents=True)
    (outside / "train" / "1.txt").write_text(LINE)
    (tmp_path / "labels/train").symlink_to(outside / "train")
    refused, good = samples(path)[0]
    assert refused.reason == "bad annotation"
    assert "symlink that leads out" in refused.detail
    assert good.split == "val"


@given(
    values=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([1, 2])), min_size=3, max_size=3
    )
)
def test_normalised_labels_come_back(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("yolo")
    (folder / "images/train").mkdir(parents=True)
    (folder / "labels/train").mkdir(parents=True)
    Image.new("RGB", (80, 40)).save(folder / "images/train/1.png")
    words = " ".join(f"{x!r} {y!r} {v}" for x, y, v in values)
    (folder / "labels/train/1.txt").write_text(f"0 0.5 0.5 1 1 {words}")
    (folder / "data.yaml").write_text(yaml.safe_dump(BOAT | {"val": None}))
    ((sample,), _) = samples(folder / "data.yaml", visibility="coco")
    found = sample.instances[0].keypoints / [80, 40, 1]
    np.testing.assert_allclose(found, values, atol=1e-6)


def test_without_v_a_keypoint_is_visible_or_absent(dataset):
    line = "0 0.5 0.5 1 1  0.5 0.25  -1 -1  0 0"
    path = dataset({"images/train/1.jpg": line, "images/val/2.jpg": ""}, kpt_shape=[3, 2])
    (sample, _), source = samples(path)
    assert sample.instances[0].keypoints.tolist() == [[40, 10, 2], [0, 0, 0], [0, 0, 0]]
    assert source.counts == Counter({ABSENT: 2})


def test_an_image_without_labels_shows_nothing_and_is_counted(dataset):
    (found, source) = samples(dataset({"images/train/1.jpg": None, "images/val/2.jpg": LINE}))
    assert [len(sample.instances) for sample in found] == [0, 1]
    assert source.counts == Counter({UNLABELLED: 1})


def test_sizes_are_those_of_the_upright_image(dataset):
    path = two(dataset)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 80)).save(path.parent / "images/train/1.jpg", exif=exif)
    (first, _), _ = samples(path)
    assert (first.image.width, first.image.height) == (80, 40)
    assert first.instances[0].keypoints[0].tolist() == [40, 10, 2]


@pytest.mark.parametrize(
    ("line", "reason", "says"),
    [
        ("0 0.5 0.5 1 1 0.5 0.5 2", "bad keypoints", "line 1: 8 numbers: expected 14"),
        (LINE.replace("0.75 1", "0.75 7"), "bad keypoints", "line 1: v must be 0, 1 or 2"),
        (LINE.replace("0.75", "nan"), "bad annotation", "line 1: a number beyond"),
        (LINE.replace("0.75", "up"), "bad annotation", "could not convert"),
        (LINE.replace("0 ", "2 ", 1), "bad annotation", "class 2: names has 0, 1"),
        (LINE.replace("0.25 0.5 ", "-0.25 0.5 ", 1), "bad annotation", "a box of -0.25 × 0.5"),
    ],
)  # fmt: skip
def test_a_line_at_fault_costs_one_image(dataset, line, reason, says):
    path = dataset({"images/train/1.jpg": line, "images/val/2.jpg": LINE})
    (bad, good), _ = samples(path)
    assert isinstance(bad, Rejected)
    assert (bad.key, bad.reason) == ("images/train/1.jpg", reason)
    assert says in bad.detail
    assert str(path.parent / "labels/train/1.txt") in bad.detail
    assert good.key == "images/val/2.jpg"


def test_files_at_fault_cost_one_image_each(dataset):
    names = [f"images/train/{n}.jpg" for n in range(5)]
    path = dataset(dict.fromkeys(names, LINE) | {"images/val/9.jpg": LINE})
    root = path.parent
    (root / "images/train/0.jpg").write_bytes(b"text")
    (root / "images/train/1.jpg").write_bytes(b"")
    (root / "labels/train/2.txt").write_bytes(b"\xff\xfe")
    for n, target in ((3, root.parent / "far.txt"), (4, root / "labels/val/9.txt")):
        (root / f"labels/train/{n}.txt").unlink()
        (root / f"labels/train/{n}.txt").symlink_to(target)
    (root.parent / "far.txt").write_text(LINE)
    found, _ = samples(path)
    assert [getattr(one, "reason", "") for one in found] == [
        "not an image", "image empty", "bad annotation", "bad annotation", "", "",
    ]  # fmt: skip
    assert "symlink" in found[3].detail


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kpt_shape": [3, 4]}, r"kpt_shape is \[3, 4\]: expected 1 to"),
        ({"kpt_shape": None}, "kpt_shape"),
        ({"flip_idx": [1, 2, 0]}, r"flip_idx is \[1, 2, 0\]: expected each of 3 keypoints' mirror"),
        ({"names": []}, "names has no class"),
        ({"kpt_names": {0: ["bow"]}}, "kpt_names has 1 names, kpt_shape says 3"),
        ({"kpt_names": {0: "bow"}}, "kpt_names: Expected `array`, got `str`"),
    ],
)  # fmt: skip
def test_a_data_file_at_fault_is_refused(dataset, changes, says):
    path = two(dataset, **changes)
    with pytest.raises(FormatError, match=f"{path}.*{says}"):
        read("yolo", path)


@pytest.mark.parametrize("text", ["[", "a: b: c", "just words", "\x00", "names: &a [*a]"])
def test_what_is_no_data_file_is_refused(tmp_path, text):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"data.yaml: not a YOLO pose data.yaml"):
        read("yolo", path)


def test_no_tag_is_obeyed(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(f"names: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(FormatError, match="could not determine a constructor"):
        read("yolo", path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": "images/dev"}, "train: images/dev: not found below"),
        ({"train": "../elsewhere"}, "train: ../elsewhere: lies outside"),
        ({"val": "images/train"}, "val: images/train: is train too"),
        ({"train": None, "val": None}, "names no images"),
        ({"train": "images/train/1.jpg"}, "train: images/train/1.jpg: not found below"),
        ({"train": "a" * 5000}, "not found below"),
        ({"train": "labels/train/1.txt/2.txt"}, "not found below"),
    ],
)  # fmt: skip
def test_splits_at_fault_are_refused(dataset, changes, says):
    path = two(dataset, **changes)
    (path.parent.parent / "elsewhere").mkdir(exist_ok=True)
    with pytest.raises(FormatError, match=says):
        samples(path)


def test_exports_that_begin_above_their_folder_mean_it(dataset):
    """As Roboflow's do."""
    path = dataset({"train/images/1.jpg": LINE, "valid/images/2.jpg": LINE},
                   train="../train/images", val="../valid/images")  # fmt: skip
    (first, second), _ = samples(path)
    assert (first.key, first.split) == ("train/images/1.jpg", "train")
    assert (second.key, second.split) == ("valid/images/2.jpg", "val")
    assert len(first.instances) == len(second.instances) == 1


def test_lists_of_images_and_several_folders(dataset):
    path = dataset(
        {f"images/{name}.jpg": LINE for name in ("a/1", "a/2", "b/3", "c/4")},
        train=["images/a", "images/b"], val="val.txt",
    )  # fmt: skip
    absolute = path.parent / "images/c/4.jpg"
    (path.parent / "val.txt").write_text(f"{absolute}\n\n./images/c/5.jpg\n../far.jpg\n")
    found, _ = samples(path)
    assert [one.key for one in found] == [
        "images/a/1.jpg", "images/a/2.jpg", "images/b/3.jpg", "images/c/4.jpg", "images/c/5.jpg",
        "../far.jpg",
    ]  # fmt: skip
    assert [one.reason for one in found[4:]] == ["image missing", "unsafe path"]


def test_a_list_that_is_none_is_refused(dataset):
    path = two(dataset, train="list.txt")
    (path.parent / "list.txt").write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"train: list.txt: cannot be read: 'utf-8'"):
        samples(path)
    (path.parent / "list.txt").unlink()
    (path.parent / "list.txt").symlink_to("/etc/hostname")
    with pytest.raises(FormatError, match=r"train: list.txt: cannot be read: is a symlink"):
        samples(path)


def test_the_dataset_may_lie_elsewhere(dataset, tmp_path_factory):
    path = two(dataset, path="/datasets/boats")
    assert samples(path)[1].images_root == path.parent
    away = tmp_path_factory.mktemp("away") / "data.yaml"
    shutil.copy(path, away)
    with pytest.raises(FormatError, match="give `images`, the dataset's folder"):
        samples(away)
    found, source = samples(away, images=path.parent)
    assert len(found) == 2
    assert source.images_root == path.parent
    inner = path.parent / "inner"
    for name in ("images", "labels"):
        shutil.move(path.parent / name, inner / name)
    assert samples(two(dataset, path="inner"))[1].images_root == inner


def test_keypoints_get_the_best_names_there_are(dataset):
    def names(**changes):
        return read("yolo", two(dataset, **changes)).skeleton

    numbered = names()
    assert numbered.keypoints == ("keypoint_1", "keypoint_2", "keypoint_3")
    assert numbered.flip_pairs == (("keypoint_2", "keypoint_3"),)
    named = names(kpt_names={0: ["bow", "port", "starboard"]})
    assert (named.name, named.keypoints) == ("boat", ("bow", "port", "starboard"))
    assert named.flip_pairs == (("port", "starboard"),)
    people = {"kpt_shape": [17, 3], "flip_idx": COCO17.flip_index.tolist(), "names": ["person"]}
    assert names(**people) == COCO17
    people["kpt_names"] = {0: list(COCO17.keypoints)}
    assert names(**people) == names(**people | {"flip_idx": None}) == COCO17
    unmirrored = names(**people | {"flip_idx": list(range(17))})
    assert (unmirrored.name, unmirrored.keypoints) == ("person", COCO17.keypoints)
    assert unmirrored.flip_pairs == ()


def test_a_skeleton_may_be_given(dataset):
    boat = Skeleton("b", ("bow", "left_rail", "right_rail"))
    assert read("yolo", two(dataset), skeleton=boat).skeleton.keypoints[0] == "bow"
    with pytest.raises(SchemaError, match="kpt_shape says 3 keypoints, the skeleton coco17 has 17"):
        read("yolo", two(dataset), skeleton=COCO17)


def test_without_a_mirror_image_names_tell(dataset):
    found = read(
        "yolo",
        two(dataset, kpt_shape=[2, 3], flip_idx=None, kpt_names={0: ["left_eye", "right_eye"]}),
    )
    assert found.skeleton.flip_pairs == (("left_eye", "right_eye"),)


def test_label_files_stand_beside_or_in_labels():
    assert label_name("images/images/a.b.png") == "images/labels/a.b.txt"
    assert label_name("a.jpg") == "a.txt"
    assert Path(label_name("x/images/1.jpeg")).suffix == ".txt"
