import json
import os
import warnings
from pathlib import Path

import pytest

import kpdata
from kpdata.core.errors import FormatError, JobError, SchemaError
from kpdata.core.sample import Rejected
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17
from kpdata.formats import read
from kpdata.formats._lib import listing
from kpdata.formats._lib import per_image as per_image_json
from kpdata.formats._lib.listing import FilePairs, annotation_files
from kpdata.formats.base import LABELLED, ZEROED
from kpdata.formats.settings import load_skeleton
from kpdata.storage.scratch import scratch_database

FACE = Skeleton(name="face", keypoints=("left_eye", "right_eye", "nose"))
LIST = [
    {"box": [1, 2, 3, 4], "keypoints": [[1, 2, 2], [3, 4, 1], [0, 0, 0]], "label": "cat"},
    {"box": [5, 6, 7, 8], "keypoints": [[1, 2], [3, 4], [5.25, 6]]},
]
TORCHVISION = {
    "bboxes": [[1, 2, 3, 4], [5, 6, 7, 8]],
    "keypoints": [[[1, 2, 2], [3, 4, 1], [0, 0, 0]], [[1, 2, 2], [3, 4, 2], [5.25, 6, 2]]],
}
NAMED = {"left_eye": [1, 2], "right_eye": [3, 4, 1], "nose": None}


def read_all(annotations, **options):
    return list(read("json", annotations, skeleton=FACE, **options).samples)


def test_v_of_one_means_labelled_where_no_point_has_two(folder):
    ones = [{"keypoints": [[1, 2, 1], [3, 4, 1], [0, 0, 0]]}]
    source = read("json", folder(one=ones), skeleton=FACE)
    (sample,) = source.samples
    assert sample.instances[0].visibility.tolist() == [2, 2, 0]
    assert source.counts[LABELLED] == 2
    source = read("json", folder(one=ones), skeleton=FACE, visibility="coco")
    (sample,) = source.samples
    assert sample.instances[0].visibility.tolist() == [1, 1, 0]


def test_pixels_from_the_corner_are_not_shifted(folder):
    source = read("json", folder(one=LIST), skeleton=FACE, pixel_origin="corner")
    (sample,) = source.samples
    assert sample.instances[0].keypoints.tolist() == [[1, 2, 2], [3, 4, 1], [0, 0, 0]]
    assert sample.instances[0].bbox_xyxy.tolist() == [1, 2, 3, 4]
    assert source.convention.startswith("continuous pixels")


def test_list_style(folder, tmp_path):
    source = read("json", folder(one=LIST), skeleton=FACE)
    (sample,) = source.samples
    first, second = sample.instances
    assert (sample.key, sample.image.name) == ("one.jpg", "one.jpg")
    assert sample.image.uri == str(tmp_path / "images" / "one.jpg")
    assert first.keypoints.tolist() == [[1.5, 2.5, 2], [3.5, 4.5, 1], [0, 0, 0]]
    assert second.keypoints.tolist() == [[1.5, 2.5, 2], [3.5, 4.5, 2], [5.75, 6.5, 2]]
    assert first.bbox_xyxy.tolist() == [1, 2, 3, 4]
    assert (first.category, first.category_id) == ("cat", 1)
    assert (second.category, second.category_id) == ("face", 2)
    assert source.has_boxes
    assert source.annotation_files == (tmp_path / "annotations",)


def test_torchvision_style(folder):
    source = read("json", folder(one=TORCHVISION), skeleton=FACE)
    (sample,) = source.samples
    first, second = sample.instances
    assert first.keypoints.tolist() == [[1.5, 2.5, 2], [3.5, 4.5, 1], [0, 0, 0]]
    assert second.bbox_xyxy.tolist() == [5, 6, 7, 8]
    assert source.has_boxes


def test_torchvision_style_without_boxes(folder):
    source = read("json", folder(one={"keypoints": TORCHVISION["keypoints"]}), skeleton=FACE)
    assert not source.has_boxes
    assert [i.bbox_xyxy for i in next(source.samples).instances] == [None, None]


def test_named_style_takes_its_skeleton_from_the_first_files_keys(folder):
    source = read("json", folder(one=NAMED, two={"nose": [5, 6], "left_eye": [7, 8, 0]}))
    one, two = source.samples
    assert source.skeleton.keypoints == ("left_eye", "right_eye", "nose")
    assert source.skeleton.flip_pairs == (("left_eye", "right_eye"),)
    assert one.instances[0].keypoints.tolist() == [[1.5, 2.5, 2], [3.5, 4.5, 1], [0, 0, 0]]
    assert two.instances[0].keypoints.tolist() == [[0, 0, 0], [0, 0, 0], [5.5, 6.5, 2]]
    assert source.counts == {
        "named keypoints absent from their file, v = 0": 1,
        "keypoints with v = 0 but coordinates, zeroed": 1,
    }
    assert not source.has_boxes


def test_a_given_skeleton_orders_named_keypoints(folder):
    given = Skeleton(name="face", keypoints=("nose", "left_eye", "right_eye"))
    (sample,) = read("json", folder(one=NAMED), skeleton=given).samples
    assert sample.instances[0].keypoints[:, 2].tolist() == [0, 2, 1]


def test_an_unknown_name_asks_for_a_skeleton_or_costs_one_file(folder):
    annotations = folder(one=NAMED, two=NAMED | {"chin": [1, 2]}, zz=NAMED)
    with pytest.raises(FormatError, match=r"\$\.chin is not .* give `skeleton`, a JSON file"):
        list(read("json", annotations).samples)
    _, two, last = read_all(annotations)
    assert (two.key, two.reason) == ("two.jpg", "bad keypoints")
    assert "two.json: $.chin is not a keypoint of skeleton face" in two.detail
    assert not isinstance(last, Rejected)


def test_the_style_is_recognised_once_and_can_be_forced(folder):
    odd = {"keypoints": [1, 2], "bboxes": [3, 4]}
    annotations = folder(one=odd)
    with pytest.raises(FormatError, match=r"no file can be read; the first says: .*one\.json: \$"):
        read("json", annotations)
    source = read("json", annotations, style="named")
    assert source.skeleton.keypoints == ("keypoints", "bboxes")
    with pytest.raises(FormatError, match=r"style is 'voc': expected list, torchvision, named"):
        read("json", annotations, style="voc")


def test_a_file_of_another_shape_is_rejected(folder):
    one, two, three = read_all(folder(one=LIST, two=TORCHVISION, zz=NAMED))
    assert not isinstance(one, Rejected)
    for bad in (two, three):
        assert bad.reason == "bad annotation"
        assert "$: Expected `array`, got `object`" in bad.detail


def test_empty_files_are_images_without_instances_and_do_not_tell_the_style(folder):
    source = read("json", folder(a=[], b=LIST), skeleton=FACE)
    empty, full = source.samples
    assert empty.instances == ()
    assert len(full.instances) == 2
    assert source.has_boxes
    assert [s.instances for s in read("json", folder(a=[], b=[]), skeleton=FACE).samples] == [
        (),
        (),
    ]


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "3", ""])
def test_a_first_file_that_is_broken_does_not_stop_the_rest(folder, text):
    broken, good = read_all(folder(a=text, b=LIST))
    assert broken.reason == "bad annotation"
    assert len(good.instances) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read(folder, encoding):
    (sample,) = read_all(folder(one=json.dumps(LIST).encode(encoding)))
    assert len(sample.instances) == 2


def labelled(*labels):
    return [LIST[0] | {"label": label} for label in labels]


def classes(annotations, skeleton=FACE):
    samples = read("json", annotations, skeleton=skeleton).samples
    return [(i.category, i.category_id) for sample in samples for i in sample.instances]


def test_label_names_are_numbered_in_their_sorted_order_whatever_the_files(folder):
    annotations = folder(one=labelled("dog", "cat"), two=labelled("cat", "ant"))
    assert classes(annotations) == [("dog", 3), ("cat", 2), ("cat", 2), ("ant", 1)]
    (annotations / "one.json").rename(annotations / "zz.json")
    (annotations.parent / "images/one.jpg").rename(annotations.parent / "images/zz.jpg")
    assert classes(annotations) == [("cat", 2), ("ant", 1), ("dog", 3), ("cat", 2)]


def test_label_numbers_are_kept(folder):
    extremes = labelled(7, 0, 2**63 - 1, -(2**63))
    numbers = [7, 0, 2**63 - 1, -(2**63)]
    assert classes(folder(one=extremes)) == [(str(number), number) for number in numbers]


def test_what_has_no_label_is_a_person_or_what_the_skeleton_is_called(folder):
    annotations = folder(one=labelled(None))
    assert classes(annotations) == [("face", 1)]
    assert classes(folder(one=labelled("face", None))) == [("face", 1), ("face", 1)]
    assert classes(folder(one=labelled("ant", None))) == [("ant", 1), ("face", 2)]
    assert classes(folder(one=labelled(1, None, 2))) == [("1", 1), ("face", 3), ("2", 2)]
    person = [{"keypoints": [[1, 2]] * 17}]
    assert classes(folder(one=person), skeleton=COCO17) == [("person", 1)]


def test_labels_of_two_kinds_are_refused_with_both_files(folder):
    annotations = folder(one=labelled("7", None), two=LIST, zz=labelled(7))
    with pytest.raises(FormatError, match=r"zz\.json: its label 7 is a number, but .*: give all"):
        read("json", annotations, skeleton=FACE)


def test_boxes_are_there_when_any_file_has_one(folder):
    bare = [{"keypoints": LIST[0]["keypoints"]}]
    assert read("json", folder(one=bare, two=bare + LIST), skeleton=FACE).has_boxes
    assert not read("json", folder(one=bare, two=bare), skeleton=FACE).has_boxes
    keypoints = {"keypoints": TORCHVISION["keypoints"]}
    assert read("json", folder(one=keypoints, two=TORCHVISION), skeleton=FACE).has_boxes


def test_the_annotation_files_are_those_that_are_read_in_the_order_of_names(folder, tmp_path):
    annotations = folder(b=LIST, a__z=LIST, c=LIST)
    (annotations / "c.json").rename(annotations / "C.JSON")
    (tmp_path / "secret.json").write_text("[]")
    (annotations / "outside.json").symlink_to(tmp_path / "secret.json")
    (annotations / "nothing.json").symlink_to(annotations / "none")
    (annotations / "inside.json").symlink_to(annotations / "b.json")
    (annotations / "notes.txt").touch()
    (annotations / "folder.json").mkdir()
    os.mkfifo(annotations / "pipe.json")
    found = [path.relative_to(annotations).as_posix() for path in annotation_files(annotations)]
    assert found == ["C.JSON", "a/z.json", "b.json", "inside.json"]


def test_subfolders_are_read_in_the_order_of_names(folder):
    annotations = folder(b=LIST, a__z=LIST, a__b__c=LIST, c=LIST)
    assert [s.key for s in read_all(annotations)] == ["a/b/c.jpg", "a/z.jpg", "b.jpg", "c.jpg"]


def keypoints(*points):
    return [{"box": [0, 0, 1, 1], "keypoints": list(points)}]


P = [1, 2, 2]
FAULTS = [
    (keypoints(P, P), "bad keypoints", "$[0].keypoints holds 2 keypoints: expected the 3 of"),
    (keypoints(P, P, [1]), "bad keypoints", "$[0].keypoints[2] is [1.0]: expected [x, y]"),
    (keypoints(P, P, [1, 2, 2, 2]), "bad keypoints", "$[0].keypoints[2] is [1.0, 2.0, 2.0, 2.0]"),
    (keypoints(P, [1, 2, 7], P), "bad keypoints", "$[0].keypoints[1][2] is 7: expected v of 0, 1"),
    (keypoints(P, [1, 2, 0.5], P), "bad keypoints", "$[0].keypoints[1][2] is 0.5"),
    (keypoints(P, P, [float("nan"), 2]), "bad keypoints", "$[0].keypoints[2] is [nan, 2.0]"),
    (keypoints(P, P, [1, float("inf"), 2]), "bad keypoints", "$[0].keypoints[2] is [1.0, inf"),
    (keypoints(P, P, [1, 1e300, 2]), "bad keypoints", "$[0].keypoints[2] is [1.0, 1e+300"),
    (keypoints(P, P, [-1.1e7, 1]), "bad keypoints", "$[0].keypoints[2] is [-11000000.0, 1.0]"),
    ([LIST[0] | {"box": [1, 2, 3, 1.1e7]}], "bad box", "$[0].box is [1.0, 2.0, 3.0, 11000000.0]"),
    ([LIST[0] | {"label": 2**63}], "bad annotation", "$[0].label: Expected `int` <= 9223372"),
    ([LIST[0] | {"label": -(2**63) - 1}], "bad annotation", "$[0].label: Expected `int` >= -9"),
    (keypoints(P, P, [1, 2, float("nan")]), "bad keypoints", "$[0].keypoints[2][2] is nan"),
    (keypoints(P, P, [1, "2"]), "bad annotation", "$[0].keypoints[2][1]: Expected `float | null`"),
    ([{"box": [0, 0, 1, 1]}], "bad annotation", "$[0]: Object missing required field `keypoints`"),
    ([LIST[0] | {"box": [3, 2, 1, 4]}], "bad box", "$[0].box is [3.0, 2.0, 1.0, 4.0]: it ends"),
    ([LIST[0] | {"box": [1, 4, 3, 2]}], "bad box", "$[0].box is [1.0, 4.0, 3.0, 2.0]: it ends"),
    ([LIST[0] | {"box": [1, 2, 3]}], "bad box", "$[0].box is [1.0, 2.0, 3.0]: expected four"),
    ([LIST[0] | {"box": [1, 2, 3, float("nan")]}], "bad box", "$[0].box is [1.0, 2.0, 3.0, nan]"),
    (3, "bad annotation", "$: Expected `array`, got `int`"),
    ("", "bad annotation", "$: not valid JSON"),
    ("[{", "bad annotation", "$: not valid JSON"),
    (b"\xff\xfe[\x00", "bad annotation", "$: not valid JSON"),
    (b'[{"label": "\xff"}]', "bad annotation", "$: not valid JSON"),
    ("[" * 100_000, "bad annotation", "$: not valid JSON: maximum recursion depth"),
    (keypoints(P, P, [None, 2]), "bad keypoints", "$[0].keypoints[2] is [None, 2.0]: expected"),
    (keypoints(P, P, [-1.1e7, -1]), "bad keypoints", "$[0].keypoints[2] is [-11000000.0, -1.0]"),
]


@pytest.mark.parametrize(("value", "reason", "detail"), FAULTS)
def test_a_fault_rejects_its_file_alone(folder, value, reason, detail):
    annotations = folder(one=LIST, two=value, zz=LIST)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two, last = read_all(annotations)
    assert (two.key, two.reason) == ("two.jpg", reason)
    assert two.detail.startswith(f"{annotations / 'two.json'}: {detail}")
    assert not isinstance(one, Rejected)
    assert not isinstance(last, Rejected)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (TORCHVISION | {"bboxes": [[1, 2, 3, 4]]}, "$.bboxes holds 1 boxes, $.keypoints 2 objects"),
        (TORCHVISION | {"bboxes": [[1, 2, 3, 4], [9, 6, 7, 8]]}, "$.bboxes[1] is [9.0, 6.0"),
        ({"keypoints": [[[1, 2, 7], [3, 4, 1], [0, 0, 0]]]}, "$.keypoints[0][0][2] is 7"),
        ({"keypoints": [[[1, 2, 2]]]}, "$.keypoints[0] holds 1 keypoints"),
    ],
)
def test_a_fault_in_torchvision_style_is_located(folder, value, detail):
    _, two = read_all(folder(one=TORCHVISION, two=value))
    assert f"two.json: {detail}" in two.detail


def test_a_fault_in_named_style_is_located(folder):
    _, two = read_all(folder(one=NAMED, two=NAMED | {"nose": [1, 2, 9]}))
    assert "two.json: $.nose[2] is 9" in two.detail


def test_points_that_mean_missing_are_zeroed_and_counted_apart(folder):
    points = [[-1, -1], [0, 0], [-0.25, 5]]
    source = read("json", folder(one=keypoints(*points)), skeleton=FACE)
    found = next(source.samples).instances[0].keypoints.tolist()
    assert found == [[0, 0, 0], [0, 0, 0], [0.25, 5.5, 2]]
    assert source.counts == {per_image_json.NEGATIVE: 1, per_image_json.AT_ORIGIN: 1}
    flagged = keypoints([-1, -1, 2], [0, 0, 1], [None, float("nan"), 0])
    source = read("json", folder(one=flagged), skeleton=FACE)
    assert next(source.samples).instances[0].visibility.tolist() == [2, 1, 0]
    assert source.counts == {ZEROED: 1}


@pytest.mark.parametrize("style", ["list", "torchvision", "named"])
def test_null_is_a_point_that_is_not_labelled_in_every_style(folder, style):
    points = [[1, 2], None, [3, 4, 1]]
    value = {
        "list": [{"keypoints": points}],
        "torchvision": {"keypoints": [points]},
        "named": dict(zip(FACE.keypoints, points, strict=True)),
    }[style]
    (sample,) = read_all(folder(one=value))
    assert sample.instances[0].visibility.tolist() == [2, 0, 1]


@pytest.mark.parametrize("box", ["box", "bbox"])
@pytest.mark.parametrize("label", ["label", "category", "labels"])
def test_other_names_of_keys_are_read_in_list_style(folder, box, label):
    item = {box: [1, 2, 3, 4], "keypoints": [P, P, P], label: "cat"}
    source = read("json", folder(one=[item]), skeleton=FACE)
    (cat,) = next(source.samples).instances
    assert (cat.category, cat.bbox_xyxy.tolist()) == ("cat", [1, 2, 3, 4])
    assert source.counts == {}


def test_torchvision_style_has_boxes_or_bboxes_and_labels(folder):
    value = {"boxes": TORCHVISION["bboxes"], "labels": [3, 5], **TORCHVISION}
    del value["bboxes"]
    source = read("json", folder(one=value), skeleton=FACE)
    (sample,) = source.samples
    assert [i.category_id for i in sample.instances] == [3, 5]
    assert sample.instances[1].bbox_xyxy.tolist() == [5, 6, 7, 8]
    _, two = read_all(folder(one=value, two=value | {"labels": [3]}))
    assert "$.labels holds 1 labels, $.keypoints 2 objects" in two.detail


def test_keys_that_are_not_read_are_counted_by_name(folder):
    item = LIST[0] | {"score": 0.5, "bbox": [9, 9, 9, 9]}
    source = read("json", folder(one=[item, item], two=[item]), skeleton=FACE)
    assert [s.instances[0].bbox_xyxy.tolist() for s in source.samples] == [[1, 2, 3, 4]] * 2
    assert source.counts == {"keys not read: score": 3, "keys not read: bbox": 3}


def test_a_coco_file_is_answered_with_what_to_do(folder):
    value = {"images": [], "annotations": [], "categories": []}
    with pytest.raises(FormatError, match=r"a COCO file .* read it as format coco"):
        read("json", folder(one=value))


def test_a_single_file_is_answered_with_the_format_it_may_be(tmp_path):
    (tmp_path / "a.json").touch()
    with pytest.raises(FormatError, match=r"give the folder .* read as format coco"):
        read("json", tmp_path / "a.json")


def test_hidden_files_are_left_out_and_counted(folder, tmp_path):
    annotations = folder(one=LIST)
    (annotations / "._one.json").write_bytes(b"\0\5")
    (annotations / ".DS_Store").touch()
    (annotations / ".ipynb_checkpoints").mkdir()
    (annotations / ".ipynb_checkpoints" / "one.json").touch()
    (tmp_path / "images" / "._one.jpg").touch()
    source = read("json", annotations, skeleton=FACE)
    assert [s.key for s in source.samples] == ["one.jpg"]
    assert source.counts == {per_image_json.HIDDEN: 3}
    assert list(annotation_files(annotations)) == [annotations / "one.json"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "._a.jpg").touch()
    assert not listing.holds_images(tmp_path / "only")


def test_no_room_for_the_listing_says_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(per_image_json, "TABLES", "PRAGMA max_page_count = 3;" + listing.TABLES)
    annotations = folder(**{"x" * 100 + str(n): LIST for n in range(60)})
    with pytest.raises(JobError, match="full: point TMPDIR to a folder"):
        read_all(annotations)


def test_an_oversized_file_is_rejected_unread(folder, monkeypatch):
    annotations = folder(one=LIST, two=LIST * 3)
    monkeypatch.setattr(listing, "MAX_BYTES", 300)
    _, two = read_all(annotations)
    assert two.reason == "bad annotation"
    assert "bytes: expected at most 300" in two.detail


def test_a_missing_image_and_two_images_are_rejected(folder, tmp_path):
    annotations = folder(one=LIST, two=LIST, zz=LIST)
    (tmp_path / "images" / "one.jpg").unlink()
    (tmp_path / "images" / "two.PNG").write_bytes(b"")
    one, two, last = read_all(annotations)
    assert (one.key, one.reason) == ("one.json", "image missing")
    assert str(annotations / "one.json") in one.detail
    assert (two.key, two.reason) == ("two.json", "two images for one annotation")
    assert "both two.PNG and two.jpg have its stem" in two.detail
    assert last.key == "zz.jpg"


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".WebP", ".bmp", ".tif", ".TIFF"])
def test_an_image_is_found_by_any_known_extension(folder, tmp_path, suffix):
    annotations = folder(sub__one=LIST)
    (tmp_path / "images" / "sub" / "one.jpg").rename(tmp_path / "images" / "sub" / f"one{suffix}")
    assert [s.key for s in read_all(annotations)] == [f"sub/one{suffix}"]


def test_images_without_an_annotation_are_counted(folder, tmp_path):
    annotations = folder(one=LIST)
    (tmp_path / "images" / "other.png").write_bytes(b"")
    source = read("json", annotations, skeleton=FACE)
    assert source.counts == {"images without an annotation file": 1}


def test_where_images_are_looked_for(folder, tmp_path):
    annotations = folder(one=LIST)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match=r"no images found .*images\): give `images`"):
        read_all(annotations)
    (told,) = read_all(annotations, images=tmp_path / "elsewhere")
    assert told.key == "one.jpg"
    (tmp_path / "elsewhere" / "one.jpg").rename(annotations / "one.jpg")
    (beside,) = read_all(annotations)
    assert beside.image.uri == str(annotations / "one.jpg")


def test_a_skeleton_is_asked_for_with_the_number_of_keypoints(folder):
    for value in (LIST, TORCHVISION):
        with pytest.raises(
            FormatError, match=r"names of its 3 keypoints: give `skeleton`, a JSON file"
        ):
            read("json", folder(one=value))
    with pytest.raises(FormatError, match=r"style named .* give `skeleton`"):
        read("json", folder(one={}))


@pytest.mark.parametrize("given", [str, Path, load_skeleton])
def test_a_skeleton_may_be_given_by_name_or_file(folder, tmp_path, given):
    path = tmp_path / "face.json"
    path.write_text('{"name": "f", "keypoints": ["a", "b", "c"]}')
    labels = kpdata.read(folder(one=LIST), format="json", skeleton=given(path))
    assert labels.skeleton.keypoints == ("a", "b", "c")
    with pytest.raises(SchemaError, match="no skeleton 'horse'"):
        kpdata.read(folder(one=LIST), format="json", skeleton="horse")


def test_a_file_an_empty_folder_and_nothing_are_told_apart(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "a.json").write_text("[]")
    for name, what in (("a.json", "is a file"), ("nothing", "no such folder")):
        with pytest.raises(FormatError, match=f"{name}: {what}: give the folder of the JSON files"):
            read("json", tmp_path / name)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(FormatError, match=r"holds no \.json file"):
        read("json", tmp_path / "annotations")


def test_a_symlink_out_of_the_folder_is_refused_and_one_inside_is_read(folder, tmp_path):
    annotations = folder(one=LIST, two=LIST, zz=LIST)
    (tmp_path / "secret.json").write_text(json.dumps(LIST))
    for name, target in (("two", tmp_path / "secret.json"), ("zz", annotations / "one.json")):
        (annotations / f"{name}.json").unlink()
        (annotations / f"{name}.json").symlink_to(target)
    _, two, last = read_all(annotations)
    assert (two.key, two.reason) == ("two.jpg", "unsafe path")
    assert "two.json: is a symlink that leads out" in two.detail
    assert len(last.instances) == 2


def test_symlinks_to_nothing_to_themselves_and_to_folders_do_no_harm(folder, tmp_path):
    annotations = folder(one=LIST, two=LIST, zz=LIST)
    for name, target in (("two", "none.json"), ("zz", "zz.json")):
        (annotations / f"{name}.json").unlink()
        (annotations / f"{name}.json").symlink_to(annotations / target)
    (annotations / "loop").symlink_to(annotations)
    (annotations / "folder.json").symlink_to(annotations)
    one, two, last = read_all(annotations)
    assert len(one.instances) == 2
    assert (two.reason, two.key) == ("bad annotation", "two.jpg")
    assert (last.reason, last.key) == ("bad annotation", "zz.jpg")


def test_names_that_are_not_utf8_are_read(folder, tmp_path):
    annotations = folder(**{"caf\udce9": LIST})
    (sample,) = read_all(annotations)
    assert sample.key == "caf\udce9.jpg"


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    problem = "none: cannot list it: No such file"
    with scratch_database(listing.TABLES) as db, pytest.raises(FormatError, match=problem):
        FilePairs(db, tmp_path, tmp_path / "none")
