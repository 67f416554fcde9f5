import copy
import json
import random
import re
import time
import warnings

import numpy as np
import pytest

from kpdata.core.errors import FormatError, ImageError, JobError, SchemaError
from kpdata.core.sample import Rejected
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.formats import read
from kpdata.formats.base import ZEROED
from kpdata.formats.coco import mend
from kpdata.formats.coco import read as coco
from kpdata.formats.coco.categories import FAULTY_EDGES, FROM_ZERO, OTHER_EDGES
from kpdata.storage.image_files import safe_path


def document(**changes):
    """Three images of boats with four keypoints: two instances, one crowd, none."""
    boat = {
        "id": 7, "name": "boat", "supercategory": "thing",
        "keypoints": ["bow", "stern", "left_rail", "right_rail"],
        "skeleton": [[1, 2], [3, 4]],
    }  # fmt: skip
    first = {
        "id": 11, "image_id": 1, "category_id": 7, "iscrowd": 0, "area": 50.25,
        "bbox": [1.5, 2, 10, 20], "num_keypoints": 3, "segmentation": [[1, 2, 3, 4]],
        "keypoints": [10, 20, 2, 11.25, 21, 1, 0, 0, 0, 13, 23, 2],
    }  # fmt: skip
    second = first | {"id": 12, "keypoints": [0] * 12, "num_keypoints": 0}
    crowd = first | {
        "id": 13, "image_id": 2, "iscrowd": 1, "keypoints": [],
        "segmentation": {"counts": [1, 2], "size": [3, 4]},
    }  # fmt: skip
    made = {
        "info": {"description": "boats"},
        "images": [
            {"id": 1, "file_name": "a/one.jpg", "width": 64, "height": 48},
            {"id": 2, "file_name": "two.jpg", "width": 32, "height": 24},
            {"id": 3, "file_name": "three.jpg", "width": 16, "height": 12},
        ],
        "annotations": [first, second, crowd],
        "categories": [boat],
    }
    return made | changes


@pytest.fixture
def save(tmp_path):
    def write(value):
        (tmp_path / "images").mkdir(exist_ok=True)
        path = tmp_path / "boats.json"
        text = value if isinstance(value, str) else json.dumps(value)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def changed(where, key, value):
    """The document with ``annotations[where][key]`` replaced, or removed where value is ..."""
    made = document()
    made["annotations"] = copy.deepcopy(made["annotations"])
    if value is ...:
        del made["annotations"][where][key]
    else:
        made["annotations"][where][key] = value
    return made


def test_what_is_read_of_images_and_annotations(save, tmp_path):
    source = coco.read(save(document()))
    one, two, three = source.samples
    assert source.skeleton.name == "boat"
    assert source.skeleton.edges == (("bow", "stern"), ("left_rail", "right_rail"))
    assert source.skeleton.flip_pairs == (("left_rail", "right_rail"),)
    assert (source.has_boxes, source.counts, source.images_root) == (
        True, {}, tmp_path / "images",
    )  # fmt: skip
    assert (one.key, one.split, one.image.name) == ("1", None, "a/one.jpg")
    assert one.image.uri == str(tmp_path / "images" / "a" / "one.jpg")
    assert (one.image.width, one.image.height) == (64, 48)
    boat = one.instances[0]
    assert boat.keypoints.tolist() == [
        [10.5, 20.5, 2],
        [11.75, 21.5, 1],
        [0, 0, 0],
        [13.5, 23.5, 2],
    ]
    assert boat.bbox_xyxy.tolist() == [1.5, 2, 11.5, 22]
    assert (boat.area, boat.category, boat.category_id, boat.id) == (50.25, "boat", 7, 11)
    assert (two.key, three.key) == ("2", "3")


def test_crowds_instances_without_keypoints_and_empty_images_are_kept(save):
    one, two, three = coco.read(save(document())).samples
    assert [i.num_labelled for i in one.instances] == [3, 0]
    assert two.instances[0].is_crowd
    assert two.instances[0].num_labelled == 0
    assert two.instances[0].keypoints.shape == (4, 3)
    assert three.instances == ()


def test_the_order_of_the_arrays_does_not_matter(save):
    expected = list(coco.read(save(document())).samples)
    for order in (sorted(document()), sorted(document(), reverse=True)):
        assert list(coco.read(save({key: document()[key] for key in order})).samples) == expected


def test_images_keep_the_files_order_and_so_do_their_annotations(save):
    rng = random.Random(3)
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(3000)]
    template = document()["annotations"][0]
    annotations = [template | {"id": i, "image_id": i // 2} for i in range(6000)]
    rng.shuffle(images)
    rng.shuffle(annotations)
    samples = list(coco.read(save(document(images=images, annotations=annotations))).samples)
    assert [s.key for s in samples] == [str(image["id"]) for image in images]
    wanted = {i: [a["id"] for a in annotations if a["image_id"] == i] for i in range(0, 3000, 500)}
    by_key = {int(s.key): [i.id for i in s.instances] for s in samples}
    assert {i: by_key[i] for i in wanted} == wanted
    assert by_key.keys() == set(range(3000))


def test_an_unlabelled_keypoint_with_coordinates_is_zeroed_and_counted(save):
    source = coco.read(save(changed(0, "keypoints", [5, 6, 0, 5, 0, 0, 1, 1, 2, 0, 0, 0])))
    keypoints = next(source.samples).instances[0].keypoints
    assert keypoints.tolist() == [[0, 0, 0], [0, 0, 0], [1.5, 1.5, 2], [0, 0, 0]]
    assert source.counts == {"keypoints with v = 0 but coordinates, zeroed": 2}


@pytest.mark.parametrize("value", [..., None])
def test_an_annotation_without_keypoints_has_none_labelled(save, value):
    one, *_ = coco.read(save(changed(0, "keypoints", value))).samples
    assert one.instances[0].num_labelled == 0


@pytest.mark.parametrize("key", ["bbox", "area", "iscrowd", "num_keypoints", "segmentation"])
def test_optional_fields_may_be_missing(save, key):
    source = coco.read(save(changed(0, key, ...)))
    boat = next(source.samples).instances[0]
    assert source.has_boxes
    assert (boat.bbox_xyxy is None) == (key == "bbox")
    assert (boat.area is None) == (key == "area")
    assert not boat.is_crowd


def test_a_source_has_boxes_where_any_instance_has_one(save):
    made = document()
    for entry in made["annotations"][:2]:
        del entry["bbox"]
    assert coco.read(save(made)).has_boxes
    del made["annotations"][2]["bbox"]
    assert not coco.read(save(made)).has_boxes


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_ids_of_64_bits_are_read(save, number):
    made = document()
    made["images"][0]["id"] = made["annotations"][0]["image_id"] = number
    made["annotations"][1]["image_id"] = made["annotations"][0]["id"] = number
    made["categories"][0]["id"] = number
    for entry in made["annotations"]:
        entry["category_id"] = number
    instance = next(coco.read(save(made)).samples).instances[0]
    assert (instance.id, instance.category_id) == (number, number)


def test_a_byte_order_mark_and_indented_text_are_read(save):
    text = "\ufeff" + json.dumps(document(), indent=2)
    assert len(list(coco.read(save(text)).samples)) == 3


VALUE_FAULTS = [
    ("keypoints", [1, 2, 2], "bad keypoints", r"keypoints holds 3 numbers: expected 12"),
    ("keypoints", [1] * 15, "bad keypoints", r"keypoints holds 15 numbers"),
    ("keypoints", [1, 1, 2] * 3 + [1, 1, 7], "bad keypoints", r"keypoints\[11\] is 7: .*0, 1 or 2"),
    ("keypoints", [1, 1, 1.5] * 4, "bad keypoints", r"keypoints\[2\] is 1.5: expected v"),
    ("keypoints", [1, 1, -1] * 4, "bad keypoints", r"keypoints\[2\] is -1: expected v"),
    ("keypoints", [1, float("nan"), 2] * 4, "bad keypoints", r"keypoints\[1\] is nan: .*finite"),
    ("keypoints", [1, 1, 2, float("inf"), 1, 2] * 2, "bad keypoints", r"keypoints\[3\] is inf"),
    ("keypoints", [1, 1, float("nan")] * 4, "bad keypoints", r"keypoints\[2\] is nan"),
    ("keypoints", [1e300, 1, 2] * 4, "bad keypoints", r"keypoints\[0\] is 1e\+300"),
    ("bbox", [1, 2, -3, 4], "bad box", r"bbox is \[1.0, 2.0, -3.0, 4.0\]"),
    ("bbox", [1, 2, 3, float("nan")], "bad box", r"bbox is .*nan\]"),
    ("bbox", [float("-inf"), 2, 3, 4], "bad box", r"bbox is \[-inf"),
    ("bbox", [1, 2, 3], "bad box", r"bbox holds 3 numbers"),
    ("bbox", [1e38, 2, 3, 4], "bad box", r"bbox is \[1e\+38"),
    ("bbox", [1, 2, 3, 1.1e7], "bad box", r"11000000.0\]: expected .* within 1e\+07 pixels"),
    ("keypoints", [1, 1, 2, 1, -1.1e7, 2] * 2, "bad keypoints", r"keypoints\[4\] is -11000000.0"),
    ("keypoints", [1, 1, 1e300] * 4, "bad keypoints", r"keypoints\[2\] is 1e\+300: expected v"),
    ("area", -1, "bad area", r"area is -1.0: expected 0 to 1e\+14 square pixels"),
    ("area", 1.1e14, "bad area", r"area is 110000000000000.0: expected 0 to 1e\+14"),
    ("area", float("nan"), "bad area", r"area is nan"),
    ("area", "big{}", "bad area", r"area is 'big{}': expected a number"),
    ("keypoints", [1, None, 2] * 4, "bad keypoints", r"keypoints\[1\] is nan"),
    ("keypoints", [1, 2, 2, "x"], "bad keypoints", r"keypoints is \[1, 2, 2, 'x'\]: .* numbers"),
    ("keypoints", "many", "bad keypoints", r"keypoints is 'many': expected a list of numbers"),
    ("bbox", {"x": 1}, "bad box", r"bbox is {'x': 1}: expected a list of numbers"),
    ("iscrowd", "perhaps", "bad iscrowd", r"iscrowd is 'perhaps': expected 0 or 1"),
]


@pytest.mark.parametrize(("key", "value", "reason", "detail"), VALUE_FAULTS)
def test_a_value_at_fault_rejects_its_image_alone(save, key, value, reason, detail):
    path = save(changed(1, key, value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two, three = coco.read(path).samples
    assert isinstance(one, Rejected)
    assert (one.key, one.reason) == ("1", reason)
    assert one.detail.startswith(f"{path}: $.annotations[1].")
    assert re.search(detail, one.detail), one.detail
    assert not isinstance(two, Rejected)
    assert not isinstance(three, Rejected)


def test_a_crowd_with_keypoints_of_a_wrong_length_is_rejected(save):
    _, two, _ = coco.read(save(changed(2, "keypoints", [1, 2, 2]))).samples
    assert isinstance(two, Rejected)


STRUCTURAL_FAULTS = [
    (document(categories=[]), "no category has keypoints: give the person_keypoints file"),
    (document(categories=[{"id": 7, "name": "boat"}]),
     "category 'boat' does not name its keypoints, of which an annotation holds 4: give"),
    (document(categories=[{"id": 7, "name": "boat"}], annotations=[]),
     "no category has keypoints, and there are no annotations"),
    ({k: v for k, v in document().items() if k != "categories"}, "has no array 'categories'"),
    ({k: v for k, v in document().items() if k != "images"}, "has no array 'images'"),
    (document(images=document()["images"] + document()["images"][1:2]),
     r"\$\.images\[3\]\.id: 2 is also the id of \$\.images\[1\]"),
    (changed(1, "image_id", ...), r"\$\.annotations\[1\]: .*missing required field `image_id`"),
    (changed(1, "category_id", ...), r"\$\.annotations\[1\]: .*`category_id`"),
    (document(images=[{"id": 1}]), r"\$\.images\[0\]: .*missing required field `file_name`"),
    (document(images=[{"file_name": "x"}]), r"\$\.images\[0\]: .*missing required field `id`"),
    (changed(1, "image_id", 2**63), r"\$\.annotations\[1\]\.image_id: .*9223372036854775807"),
    (changed(1, "category_id", -(2**63) - 1), r"\$\.annotations\[1\]\.category_id: "),
    (document(images=[{"id": 2**63, "file_name": "x"}]), r"\$\.images\[0\]\.id: "),
    (document(categories=[document()["categories"][0] | {"id": 2**63}]),
     r"\$\.categories\[0\]\.id: "),
    (document(annotations=[3]), r"\$\.annotations\[0\]: Expected `object`, got `int`"),
    (document(annotations={}), r"\$\.annotations is not an array"),
    (document(images=[{"id": 1, "file_name": 5}]), r"images\[0\]\.file_name: Expected `str`"),
    (document(categories=document()["categories"] * 2), r"\$\.categories\[1\]\.id: 7 stands twice"),
    (json.dumps(document())[:-100], r"ends inside \$\.(annotations|categories)\[\d\], after \d+"),
    ("", "is empty"),
    ("not json", "starts with b'not json'"),
    (json.dumps([1, 2]), "expected a JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "message"), STRUCTURAL_FAULTS)
def test_a_fault_of_structure_stops_the_reader_naming_the_json_path(save, value, message):
    path = save(value)
    with pytest.raises(FormatError, match=message) as caught:
        coco.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def with_category(**changes):
    return document(categories=[document()["categories"][0] | changes])


@pytest.mark.parametrize(
    ("skeleton", "edges", "counts"),
    [
        ([[1, 2], [2, 9]], [], {OTHER_EDGES: 2}),
        ([[1, 2], [0, 4], [2]], [], {OTHER_EDGES: 3}),
        ([[1, 2], [3, 3], ["bow", "stern"], [1.0, 2], [1], 7], [("bow", "stern")],
         {FAULTY_EDGES: 5}),
        ([[0, 1], [2, 3]], [("bow", "stern"), ("left_rail", "right_rail")],
         {FROM_ZERO: 2}),
        ("bow-stern", [], {FAULTY_EDGES: 1}),
    ],
)  # fmt: skip
def test_faulty_edges_are_left_out_or_read_from_zero_and_counted(save, skeleton, edges, counts):
    source = coco.read(save(with_category(skeleton=skeleton)))
    assert source.skeleton.edges == tuple(edges)
    assert source.counts == counts


REPAIRS = [
    ("keypoints", [], {mend.EMPTY: 1}),
    ("bbox", [], {mend.EMPTY: 1}),
    ("iscrowd", None, {mend.FLAGS: 1}),
    ("iscrowd", 0.0, {mend.FLAGS: 1}),
    ("iscrowd", "0", {mend.FLAGS: 1}),
    ("iscrowd", "false", {mend.FLAGS: 1}),
    ("iscrowd", False, {}),
    ("image_id", 1.0, {mend.WHOLE: 1}),
    ("image_id", "1", {}),
    ("category_id", "7", {mend.WHOLE: 1}),
    ("id", ..., {mend.NUMBERS: 1}),
    ("id", "eleven", {mend.NUMBERS: 1}),
    ("id", 2**70, {mend.NUMBERS: 1}),
    ("id", 11, {mend.NUMBERS: 1}),
    ("keypoints", [None, None, 0, 1, float("nan"), 0] * 2,
     {ZEROED: 2, mend.NULLS: 4}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "counts"), REPAIRS)
def test_what_can_be_mended_is_read_and_counted(save, key, value, counts):
    source = coco.read(save(changed(1, key, value)))
    one, _, _ = source.samples
    second = one.instances[1]
    assert source.counts == counts
    assert len({instance.id for instance in one.instances}) == 2
    assert (second.num_labelled, second.is_crowd, second.category_id) == (0, False, 7)
    assert (second.bbox_xyxy is None) == (key == "bbox")


def test_crowds_by_any_flag_are_crowds(save):
    for value in ("1", "true", 1.0, True):
        one, *_ = coco.read(save(changed(1, "iscrowd", value))).samples
        assert one.instances[1].is_crowd


def test_sizes_that_say_nothing_are_unknown_and_decimals_are_numbers(save):
    images = [
        {"id": 1.0, "file_name": "a.jpg", "width": 0, "height": 48.0},
        {"id": "2", "file_name": "b.jpg", "width": None, "height": "24"},
        {"id": "three", "file_name": "c.jpg", "width": "", "height": 12},
    ]
    made = changed(0, "image_id", "three") | {"images": images}
    source = coco.read(save(made))
    samples = list(source.samples)
    assert [s.key for s in samples] == ["1", "2", "three"]
    assert [(s.image.width, s.image.height) for s in samples] == [
        (None, 48),
        (None, 24),
        (None, 12),
    ]
    assert [len(s.instances) for s in samples] == [1, 1, 1]
    assert source.counts == {mend.SIZES: 2, mend.WHOLE: 3}


def test_an_annotation_of_an_unknown_image_is_quarantined_alone(save):
    path = save(changed(1, "image_id", 99))
    *samples, orphan = coco.read(path).samples
    assert [len(s.instances) for s in samples] == [1, 1, 0]
    assert (orphan.key, orphan.reason) == ("99", "annotation of an unknown image")
    assert orphan.detail.startswith(f"{path}: $.annotations[1].image_id: no image has the id 99: ")


def test_new_numbers_of_annotations_are_free_ones(save):
    made = document()
    numbers = [5, 5, 2**63 - 1]
    made["annotations"] = [
        entry | {"id": id_} for entry, id_ in zip(made["annotations"], numbers, strict=True)
    ]
    one, two, _ = coco.read(save(made)).samples
    assert [i.id for s in (one, two) for i in s.instances] == [5, 6, 2**63 - 1]


def test_categories_with_the_same_keypoints_are_read_together(save):
    boat = document()["categories"][0]
    ship = boat | {"id": 8, "name": "ship", "skeleton": []}
    other = {"id": 9, "name": "anchor", "keypoints": None}
    made = changed(1, "category_id", 8) | {"categories": [ship, boat, other]}
    source = coco.read(save(made))
    one, *_ = source.samples
    assert [(i.category, i.category_id) for i in one.instances] == [("boat", 7), ("ship", 8)]
    assert source.skeleton.edges == (("bow", "stern"), ("left_rail", "right_rail"))
    assert source.counts == {}
    ships = coco.read(save(made), category="ship")
    assert [len(s.instances) for s in ships.samples] == [1, 0, 0]
    assert ships.counts == {"annotations of other categories": 2}


@pytest.mark.parametrize("name", ["images/a.jpg", "a.jpg", "images\\a.jpg"])
def test_images_are_found_by_their_names_beside_the_file(tmp_path, name):
    path = tmp_path / "train" / "_annotations.coco.json"
    place = path.parent / name.replace("\\", "/")
    place.parent.mkdir(parents=True)
    place.touch()
    (tmp_path / "images").mkdir()
    path.write_text(json.dumps(document(images=[{"id": 1, "file_name": name}], annotations=[])))
    source = coco.read(path)
    (found,) = source.samples
    assert (source.images_root, found.image.uri) == (path.parent, str(place))
    assert source.counts == ({coco.RENAMED: 1} if "\\" in name else {})


def test_an_absolute_name_inside_the_images_folder_is_relative_and_counted(tmp_path, save):
    names = [str(tmp_path / "images/sub/a.jpg"), "/etc/passwd", str(tmp_path / "images/../x.jpg")]
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    source = coco.read(save(document(images=images, annotations=[])))
    found = [s.image.name for s in source.samples]
    assert found == ["sub/a.jpg", "/etc/passwd", "../x.jpg"]
    assert source.counts == {coco.RENAMED: 2}
    for name in found[1:]:
        with pytest.raises(ImageError, match="leads out of the images folder"):
            safe_path(str(tmp_path / "images"), name)


def test_a_keypoint_named_twice_is_located(save):
    twice = document()["categories"][0] | {"keypoints": ["bow", "bow", "a", "b"], "skeleton": []}
    with pytest.raises(SchemaError, match=r"\$\.categories\[0\]: keypoints: the name 'bow'"):
        coco.read(save(document(categories=[twice])))


def two_categories():
    person = {"id": 1, "name": "person", "keypoints": ["nose"], "skeleton": None}
    other = {"id": 11, "name": "anchor"}
    made = document(categories=[other, *document()["categories"], person])
    template = {"image_id": 1, "category_id": 1, "keypoints": [5, 6, 2]}
    made["annotations"] = [
        *document()["annotations"],
        template | {"id": 100},
        template | {"id": 101, "bbox": [0, 0, 1, 1]},
        {"id": 102, "image_id": 3, "category_id": 11},
    ]
    return made


def test_one_of_several_categories_must_be_chosen(save):
    path = save(two_categories())
    with pytest.raises(FormatError, match=r"several .* give `category`: 'boat', 'person'"):
        coco.read(path)
    for unknown in ("cat", "anchor"):
        with pytest.raises(FormatError, match=f"no category '{unknown}' .* 'boat', 'person'"):
            read("coco", path, category=unknown)
    boats = read("coco", path, category="boat")
    assert boats.counts == {"annotations of other categories": 3}
    assert [len(s.instances) for s in boats.samples] == [2, 1, 0]
    people = read("coco", path, category="person")
    assert people.counts == {"annotations of other categories": 4}
    one, two, three = people.samples
    assert one.instances[0].keypoints.tolist() == [[5.5, 6.5, 2]]
    assert (two.instances, three.instances) == ((), ())


@pytest.mark.parametrize("known", [COCO17, LSP14])
def test_a_built_in_skeleton_is_recognised_by_its_names(save, known):
    category = {"id": 1, "name": "person", "keypoints": list(known.keypoints), "skeleton": [[1, 2]]}
    assert coco.read(save(document(categories=[category], annotations=[]))).skeleton is known


@pytest.mark.parametrize("folder", ["train2017", "../train2017", "images", "../images/train2017"])
def test_the_images_folder_is_found_by_the_files_name(tmp_path, folder):
    path = tmp_path / "annotations" / "person_keypoints_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(document()))
    with pytest.raises(FormatError, match=r"no images found .*: give `images`"):
        coco.read(path)
    (path.parent / folder).mkdir(parents=True)
    root = coco.read(path).images_root
    assert root.resolve() == (path.parent / folder).resolve()


def test_missing_files_and_folders_are_told_apart(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        coco.read(tmp_path / "a.json")
    with pytest.raises(FormatError, match="is a folder"):
        coco.read(tmp_path)


def test_no_room_for_the_index_says_what_to_do(save, monkeypatch):
    monkeypatch.setattr(coco, "TABLES", coco.TABLES + "PRAGMA max_page_count = 5;")
    images = [{"id": i, "file_name": "x" * 100} for i in range(1000)]
    with pytest.raises(JobError, match="full: point TMPDIR to a folder"):
        coco.read(save(document(images=images, annotations=[])))


def test_the_real_file(real_data):
    path = real_data / "coco_mini" / "person_keypoints_train2017.json"
    source = read("coco", path)
    assert source.images_root == path.parent / "train2017"
    assert source.skeleton is COCO17
    samples = list(source.samples)
    raw = json.loads(path.read_bytes())
    assert [s.key for s in samples] == [str(image["id"]) for image in raw["images"]]
    found = {i.id: i for s in samples for i in s.instances}
    assert len(found) == len(raw["annotations"]) == 172
    for entry in raw["annotations"]:
        instance = found[entry["id"]]
        expected = np.array(entry["keypoints"], float).reshape(-1, 3)
        expected[expected[:, 2] > 0, :2] += 0.5
        np.testing.assert_allclose(instance.keypoints, expected, atol=1e-4)
        assert instance.area == entry["area"]
        assert instance.is_crowd == bool(entry["iscrowd"])
        assert instance.num_labelled == entry["num_keypoints"]


def test_many_categories_take_no_quadratic_time(tmp_path):
    categories = [{"id": number, "name": "x"} for number in range(60_000)]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    before = time.process_time()
    with pytest.raises(FormatError, match="no category has keypoints"):
        coco.read(path, images=tmp_path)
    assert time.process_time() - before < 3
