import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import FormatError, SchemaError
from kpdata.core.sample import Rejected
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17
from kpdata.formats import read
from kpdata.formats._lib.json_stream import decode
from kpdata.formats._lib.per_image import BACKSLASHES, RESPELT, UNANNOTATED, UNMARKED
from kpdata.formats.base import Unusable
from kpdata.formats.labelme import read as labelme_files
from kpdata.formats.labelme.read import LabelmeFile, read_shapes

FACE = Skeleton(name="face", keypoints=("left_eye", "right_eye", "nose"))


def shape(kind, label, *points, group=None, **more):
    """A shape with every key that labelme writes."""
    fixed = {"description": "", "flags": {}, "mask": None}
    named = {"label": label, "points": list(points), "group_id": group, "shape_type": kind}
    return named | fixed | more


def point(label, x, y, group=None, **more):
    return shape("point", label, [x, y], group=group, **more)


def box(label, x0, y0, x1, y1, group=None):
    return shape("rectangle", label, [x0, y0], [x1, y1], group=group)


def labelme(*shapes, image="one.jpg", **more):
    size = {"imageHeight": 48, "imageWidth": 64}
    head = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image}
    return head | {"imageData": None} | size | more


EYES = (point("left_eye", 30, 10), point("right_eye", 20.25, 10.5))
HEAD = box("head", 40, 30, 10, 5)


def objects_of(*shapes):
    """(label, box, {name: [x, y, v]}) of each object, and what was counted."""
    value = decode("a.json", "$", json.dumps(labelme(*shapes)).encode(), LabelmeFile)
    contents = read_shapes(value)
    found = [
        (one.label, one.box, {name: one.keypoints[path] for name, path in one.names.items()})
        for one in contents.objects
    ]
    return found, contents.counts


def refusal(*shapes):
    with pytest.raises(Unusable) as refused:
        objects_of(*shapes)
    return f"{refused.value.reason}: {refused.value}"


def test_a_file_as_labelme_writes_it(folder, tmp_path):
    source = read("labelme", folder(one=labelme(*EYES, HEAD)), skeleton=FACE)
    (sample,) = source.samples
    (head,) = sample.instances
    assert (sample.key, sample.image.name) == ("one.jpg", "one.jpg")
    assert sample.image.uri == str(tmp_path / "images" / "one.jpg")
    assert (sample.image.width, sample.image.height) == (64, 48)
    assert head.keypoints.tolist() == [[30, 10, 2], [20.25, 10.5, 2], [0, 0, 0]]
    assert head.bbox_xyxy.tolist() == [10, 5, 40, 30]
    assert (head.category, head.category_id) == ("head", 1)
    assert source.has_boxes
    assert source.convention.startswith("continuous pixels from the image's corner")
    assert source.counts == {UNMARKED: 1}


def test_nothing_is_added_to_coordinates_and_the_corner_is_a_place_like_any_other():
    (found,), _ = objects_of(point("a", 0, 0), point("b", -1, -2), point("c", 64, 48))
    assert found[2] == {"a": [0, 0, 2], "b": [-1, -2, 2], "c": [64, 48, 2]}


coordinates = st.floats(-1e6, 1e6)
corners = st.tuples(coordinates, coordinates, coordinates, coordinates)


@st.composite
def people(draw):
    """Objects as (label, box, {name: [x, y, v]}): each with a keypoint or a box."""
    triples = st.tuples(coordinates, coordinates, st.sampled_from([1, 2])).map(list)
    names = st.text(min_size=1, max_size=5).map(str.strip).filter(bool)
    points = st.dictionaries(names, triples, max_size=4)
    boxes = st.none() | corners.map(
        lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
    )
    one = st.tuples(st.text(max_size=5).map(str.strip), boxes, points)
    one = one.filter(lambda o: o[1] or o[2])
    found = draw(st.lists(one, max_size=5))
    return [(label if xyxy else None, xyxy, points) for label, xyxy, points in found]


@pytest.mark.parametrize(
    ("label", "name", "v"),
    [
        ("bow ", "bow", 2),
        (" bow_occluded", "bow", 1),
        ("bow (Hidden)", "bow", 1),
        ("bow-invisible", "bow", 1),
        ("occluded", "occluded", 2),
        ("unoccluded", "unoccluded", 2),
    ],
)
def test_blanks_around_labels_and_marks_behind_them_are_no_names(label, name, v):
    ((_, _, points),), _ = objects_of(point(label, 20, 30))
    assert points == {name: [20, 30, v]}


def test_labels_in_other_upper_and_lower_case_are_one_keypoint(folder):
    annotations = folder(
        one=labelme(point("Bow", 1, 2), point("stern", 3, 4)),
        two=labelme(point("bow ", 5, 6), point("STERN", 7, 8), image="two.jpg"),
    )
    source = read("labelme", annotations)
    first, second = source.samples
    assert source.skeleton.keypoints == ("bow", "stern")
    assert first.instances[0].keypoints.tolist() == [[1, 2, 2], [3, 4, 2]]
    assert second.instances[0].keypoints.tolist() == [[5, 6, 2], [7, 8, 2]]
    assert source.counts == {RESPELT: 2}


def test_names_that_differ_in_case_alone_stay_two_where_the_skeleton_has_both(folder):
    both = Skeleton("both", ("bow", "Bow"))
    source = read("labelme", folder(one=labelme(point("Bow", 1, 2), point("bow", 3, 4))),
                  skeleton=both)  # fmt: skip
    (sample,) = source.samples
    assert sample.instances[0].keypoints.tolist() == [[3, 4, 2], [1, 2, 2]]


def test_most_of_a_known_skeletons_names_are_a_hint(folder):
    names = COCO17.keypoints[:16]
    points = [point(name, n, n) for n, name in enumerate(names)]
    (hint,) = read("labelme", folder(one=labelme(*points))).hints
    assert "16 of the 17 keypoints of coco17" in hint
    assert "give `skeleton` coco17" in hint
    assert read("labelme", folder(one=labelme(*points)), skeleton=COCO17).hints == ()
    assert read("labelme", folder(one=labelme(*EYES))).hints == ()


OCCLUDED = [
    {"flags": {"occluded": True}},
    {"flags": {"visible": False}},
    {"description": "Occluded "},
    {"difficult": True},
]


@given(people(), st.randoms(use_true_random=False), st.booleans())
def test_what_is_written_is_read(found, random, four_corners):
    shapes = []
    for group, (label, xyxy, points) in enumerate(found):
        if xyxy and four_corners:
            x0, y0, x1, y1 = xyxy
            around = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
            shapes.append(shape("rectangle", label, *around, group=group))
        elif xyxy:
            (x0, x1), (y0, y1) = (random.sample(xyxy[axis::2], 2) for axis in (0, 1))
            shapes.append(box(label, x0, y0, x1, y1, group=group))
        for name, (x, y, v) in points.items():
            more = random.choice(OCCLUDED) if v == 1 else {}
            shapes.append(point(name, x, y, group=group, **more))
    random.shuffle(shapes)
    read_back, _ = objects_of(*shapes)
    assert in_order(read_back) == in_order(found)


def in_order(found):
    return sorted((str(label), str(xyxy), sorted(points.items())) for label, xyxy, points in found)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.none()), min_size=2, max_size=5))
def test_disjoint_rectangles_do_for_group_ids(names):
    shapes = []
    for group, found in enumerate(names):
        shapes.append(box("cat", 10 * group, 0, 10 * group + 8, 8, group=group))
        shapes += [point(name, 10 * group + 4, 4, group=group) for name in found]
    without = [each | {"group_id": None} for each in shapes]
    assert objects_of(*without) == objects_of(*shapes)


def test_shapes_of_a_group_are_one_object_and_objects_come_in_the_order_of_their_first_shapes():
    found, _ = objects_of(
        point("nose", 1, 1, group="b"),
        box("dog", 0, 0, 9, 9, group=7),
        point("nose", 5, 5, group=7),
        box("cat", 0, 0, 2, 2, group="b"),
        box("ant", 3, 3, 4, 4, group=1),
    )
    assert [label for label, _, _ in found] == ["cat", "dog", "ant"]
    assert found[2][2] == {}


def test_without_group_ids_points_are_one_object_and_a_rectangle_is_its_box():
    assert objects_of(*EYES)[0] == [
        (None, None, {"left_eye": [30, 10, 2], "right_eye": [20.25, 10.5, 2]})
    ]
    outside = box("head", 0, 0, 1, 1)
    for rectangle in (outside, outside | {"group_id": 3}):
        ((label, _, points),), _ = objects_of(*EYES, rectangle)
        assert (label, len(points)) == ("head", 2)
    assert objects_of(outside)[0] == [("head", [0, 0, 1, 1], {})]
    assert objects_of()[0] == []


def test_points_without_group_ids_go_to_the_rectangle_that_they_lie_in():
    left, right = box("cat", 0, 0, 10, 10), box("dog", 20, 0, 30, 10)
    found, _ = objects_of(point("nose", 30, 10), point("nose", 0, 0), left, right)
    assert [(label, points["nose"][0]) for label, _, points in found] == [("dog", 30), ("cat", 0)]
    found, _ = objects_of(point("nose", 5, 5), left, right)
    assert [(label, len(points)) for label, _, points in found] == [("cat", 1), ("dog", 0)]


def test_a_group_without_a_rectangle_takes_the_one_without_a_group_that_it_lies_in():
    grouped = [point("nose", 5, 5, group=1), point("tail", 6, 6, group=1)]
    other = [point("nose", 25, 5, group=2), box("ant", 20, 0, 30, 10, group=2)]
    found, _ = objects_of(*grouped, box("cat", 0, 0, 10, 10), *other)
    assert [(label, len(points)) for label, _, points in found] == [("cat", 2), ("ant", 1)]
    found, _ = objects_of(*grouped, *other)
    assert [(label, len(points)) for label, _, points in found] == [(None, 2), ("ant", 1)]


NOSE, FAR = point("nose", 5, 5), point("nose", 50, 5)
CAT, DOG = box("cat", 0, 0, 10, 10), box("dog", 5, 5, 15, 15)
UNCLEAR = [
    (
        [NOSE, FAR],
        "$.shapes[0] (nose) and $.shapes[1] (nose) are two points of one name in what looks like "
        "one object: set a group_id of its own for each object",
    ),
    ([NOSE | {"group_id": 4}, FAR | {"group_id": 4}], "are two points of one name"),
    ([NOSE, NOSE, CAT, box("ant", 30, 0, 40, 9)], "are two points of one name"),
    (
        [CAT | {"group_id": 4}, DOG | {"group_id": 4}],
        "$.shapes[0] (cat) and $.shapes[1] (dog) are two rectangles of group_id 4: set a group_id",
    ),
    (
        [NOSE | {"group_id": 4}, FAR],
        "$.shapes[1] (nose) has no group_id, but other points have: set the group_id of its object",
    ),
    (
        [CAT, DOG, NOSE],
        "$.shapes[2] (nose): it lies in 2 of the 2 rectangles that may be its box, not in one: set "
        "the same group_id for the shapes of each object",
    ),
    ([FAR, CAT, DOG], "$.shapes[0] (nose): it lies in 0 of the 2 rectangles"),
    (
        [NOSE | {"group_id": 4}, point("tail", 50, 5, group=4), CAT],
        "$.shapes[0] (nose): its group lies in 0 of the 1 rectangles",
    ),
    (
        [NOSE | {"group_id": 4}, CAT, NOSE | {"group_id": 5}],
        "$.shapes[2] (nose) lies in $.shapes[1] (cat), as does $.shapes[0] (nose) of another",
    ),
    (
        [NOSE | {"group_id": 4}, CAT, point("tail", 6, 6)],
        "$.shapes[2] (tail) lies in $.shapes[1] (cat), as does $.shapes[0] (nose) of another",
    ),
    (
        [NOSE | {"group_id": 4}, CAT | {"group_id": 4}, point("tail", 6, 6)],
        "$.shapes[2] (tail) lies in $.shapes[1] (cat), as does $.shapes[0] (nose) of another",
    ),
    (
        [NOSE | {"group_id": 4}, CAT | {"group_id": 4}, DOG, point("tail", 6, 6)],
        "$.shapes[3] (tail): it lies in 2 of the 2 rectangles that may be its box",
    ),
]


@pytest.mark.parametrize(("shapes", "told"), UNCLEAR)
def test_what_could_belong_together_in_two_ways_is_refused(shapes, told):
    assert refusal(*shapes).startswith("objects not told apart: ")
    assert told in refusal(*shapes)


FAULTS = [
    (shape("point", "a", [1, 2], [3, 4]), "bad keypoints: $.shapes[0].points is [(1.0, 2.0), (3.0"),
    (shape("point", "a"), "bad keypoints: $.shapes[0].points is []: expected one [x, y]"),
    (shape("point", "a", [1, 2, 3]), "bad annotation: $.shapes[0].points[0]: Expected `array` of"),
    (shape("point", "a", [1, "2"]), "bad annotation: $.shapes[0].points[0][1]: Expected `float`"),
    (point("a", 1, 1, points=None), "bad annotation: $.shapes[0].points: Expected `array`, got"),
    (point("", 1, 1), "bad keypoints: $.shapes[0].label is empty: expected the keypoint's name"),
    (shape("rectangle", "a", [1, 2]), "bad box: $.shapes[0].points is [(1.0, 2.0)]: expected two"),
    (box("a", 1, 2, 3, float("nan")), "bad box: $.shapes[0].points is [(1.0, 2.0), (3.0, nan)]"),
    (box("a", 1, 2, 1.1e7, 3), "within 1e+07 pixels"),
]


@pytest.mark.parametrize(("one", "told"), FAULTS)
def test_a_shape_at_fault_is_located(one, told):
    assert told in refusal(one)


@pytest.mark.parametrize(
    ("value", "reason", "told"),
    [
        (labelme(point("nose", 1, 1.1e7)), "bad keypoints", "$.shapes[0] (nose) is [1.0, 1100000"),
        (labelme(point("nose", float("nan"), 1)), "bad keypoints", "$.shapes[0] (nose) is [nan"),
        (labelme(point("chin", 1, 1)), "bad keypoints", "$.shapes[0] (chin) is not a keypoint of"),
        (labelme(NOSE, FAR), "objects not told apart", "$.shapes[0] (nose) and $.shapes[1] (nose)"),
        (labelme({"points": []}), "bad annotation", "$.shapes[0]: Object missing required field"),
        (labelme(point(3, 1, 1)), "bad annotation", "$.shapes[0].label: Expected `str`, got `int`"),
        (labelme(point("a", 1, 1, 1.5)), "bad annotation", "$.shapes[0].group_id: Expected `int |"),
        (labelme(image=3), "bad annotation", "$.imagePath: Expected `str | null`, got `int`"),
        ([], "bad annotation", "$: Expected `object`, got `array`"),
        ({"nose": [1, 2]}, "bad annotation", "$: Object missing required field `shapes`"),
        ({"keypoints": [[[1, 2]]]}, "bad annotation", "missing required field `shapes`"),
        ("{", "bad annotation", "$: not valid JSON"),
    ],
)
def test_a_fault_rejects_its_file_alone(folder, value, reason, told):
    if isinstance(value, dict) and value.get("imagePath") == "one.jpg":
        value["imagePath"] = "two.jpg"
    annotations = folder(one=labelme(*EYES), two=value, zz=labelme(NOSE, image="zz.jpg"))
    one, two, last = read("labelme", annotations, skeleton=FACE).samples
    assert (two.key, two.reason) == ("two.jpg", reason)
    assert two.detail.startswith(f"{annotations / 'two.json'}: ")
    assert told in two.detail
    assert not isinstance(one, Rejected)
    assert not isinstance(last, Rejected)


def test_too_many_points_and_rectangles_are_refused(monkeypatch):
    monkeypatch.setattr(labelme_files, "MAX_SHAPES", 2)
    polygons = [shape("polygon", "a")] * 3
    assert len(objects_of(*EYES, *polygons)[0]) == 1
    told = "bad annotation: $.shapes holds more than 2 points and rectangles"
    assert refusal(*EYES, NOSE) == told


def test_other_shapes_are_left_out_whatever_they_hold_and_counted():
    kinds = ["polygon", "polygon", "line", "circle", "linestrip", "mask", "rotation", None]
    found, counts = objects_of(*(shape(kind, "a", "no point", group=4) for kind in kinds))
    assert found == []
    assert counts == {
        "shapes left out: polygon": 2,
        "shapes left out: line": 1,
        "shapes left out: circle": 1,
        "shapes left out: linestrip": 1,
        "shapes left out: mask": 1,
        "shapes left out: rotation": 1,
        "shapes left out: without a type": 1,
    }


@pytest.mark.parametrize(
    ("more", "v", "counted"),
    [
        ({}, 2, None),
        ({"flags": None, "description": None}, 2, None),
        ({"flags": {"occluded": True}}, 1, "points with flag occluded, v = 1"),
        ({"flags": {"Hidden": True}}, 1, "points with flag hidden, v = 1"),
        ({"flags": {"invisible": True}}, 1, "points with flag invisible, v = 1"),
        ({"flags": {"occluded": False}}, 2, None),
        ({"flags": {"visible": False}}, 1, "points with flag visible off, v = 1"),
        ({"flags": {"visible": True}}, 2, None),
        ({"flags": {"visible": False, "occluded": True}}, 1, "points with flag occluded, v = 1"),
        ({"flags": {"visible": True, "occluded": False}}, 2, None),
        ({"flags": {"visible": False, "occluded": False}}, 2, labelme_files.BOTH_OFF),
        ({"flags": {"blurred": True, "other": False}}, 2, "flags not read: blurred"),
        ({"flags": {"occluded": "yes"}}, 2, "flags not read: occluded"),
        ({"description": " Occluded"}, 1, "points described as occluded, v = 1"),
        ({"description": "not occluded"}, 2, None),
        ({"description": 1}, 2, None),
        ({"difficult": True}, 1, "points marked difficult, v = 1"),
        ({"difficult": False}, 2, None),
        ({"visible": False, "score": 0.5, "attributes": {}, "kie_linking": []}, 2, None),
    ],
)
def test_visibility_is_read_from_marks_that_mean_one_thing(more, v, counted):
    ((_, _, points),), counts = objects_of(point("a", 1, 2, **more))
    assert points == {"a": [1, 2, v]}
    assert counts == ({counted: 1} if counted else {})


@pytest.mark.parametrize("more", [{"description": "hidden"}, {"difficult": True}])
def test_marks_that_contradict_each_other_are_refused(more):
    told = refusal(point("a", 1, 2, flags={"visible": True}, **more))
    assert told.startswith("bad keypoints: $.shapes[0] (a) has flag visible, but is also ")


def test_a_rectangles_marks_say_nothing_of_its_points():
    rectangle = CAT | {"flags": {"occluded": True}, "difficult": True}
    ((_, _, points),), counts = objects_of(rectangle, NOSE)
    assert points["nose"][2] == 2
    assert counts == {}


def test_the_skeleton_is_all_points_names_in_the_order_of_names(folder):
    first = labelme(point("p10", 1, 1), point("p2", 2, 2), image="one.jpg")
    second = labelme(point("nose", 3, 3), point("p2", 4, 4), image="two.jpg")
    source = read("labelme", folder(one=first, two=second))
    assert source.skeleton.keypoints == ("nose", "p2", "p10")
    one, two = source.samples
    assert one.instances[0].keypoints.tolist() == [[0, 0, 0], [2, 2, 2], [1, 1, 2]]
    assert two.instances[0].keypoints.tolist() == [[3, 3, 2], [4, 4, 2], [0, 0, 0]]
    assert source.counts == {UNMARKED: 2}


def test_the_names_of_a_file_that_is_refused_are_none(folder):
    bad = labelme(NOSE, FAR, point("typo", 1, 1), image="one.jpg")
    source = read("labelme", folder(one=bad, two=labelme(*EYES, image="two.jpg")))
    assert source.skeleton.keypoints == ("left_eye", "right_eye")
    assert [type(sample) is Rejected for sample in source.samples] == [True, False]


def test_the_names_of_a_built_in_skeleton_are_that_skeleton(folder):
    names = reversed(COCO17.keypoints)
    source = read("labelme", folder(one=labelme(*(point(name, 1, 2) for name in names))))
    assert source.skeleton is COCO17
    assert next(source.samples).instances[0].category == "person"


def test_no_points_and_too_many_names_say_so(folder, monkeypatch):
    with pytest.raises(FormatError, match=r"no file has a shape of type point, .* give `skeleton`"):
        read("labelme", folder(one=labelme(CAT)))
    many = labelme(*(point(f"p{n}", 1, 2) for n in range(1001)))
    with pytest.raises(SchemaError, match="the labels of all points: keypoints: 1,001 names"):
        read("labelme", folder(one=many))


def test_rectangles_alone_are_objects_without_keypoints_where_a_skeleton_is_given(folder):
    (sample,) = read("labelme", folder(one=labelme(CAT)), skeleton=FACE).samples
    assert sample.instances[0].keypoints.tolist() == [[0, 0, 0]] * 3


@pytest.mark.parametrize(
    ("path", "counted"),
    [
        ("b.jpg", 0),
        ("../images/b.jpg", 0),
        ("/home/somebody/b.jpg", 0),
        ("..\\images\\b.jpg", 1),
        ("C:\\data\\b.jpg", 1),
    ],
)
def test_the_image_is_the_one_that_the_file_names(folder, tmp_path, path, counted):
    annotations = folder(sub__one=labelme(NOSE, image=path))
    (tmp_path / "images/sub/b.jpg").touch()
    (tmp_path / "images/sub/b.png").touch()
    source = read("labelme", annotations, skeleton=FACE)
    assert [sample.key for sample in source.samples] == ["sub/b.jpg"]
    assert source.counts[BACKSLASHES] == counted


def test_a_name_with_a_backslash_of_its_own_is_itself(folder, tmp_path):
    annotations = folder(one=labelme(NOSE, image="a\\b.jpg"))
    for name in ("a\\b.jpg", "b.jpg"):
        (tmp_path / "images" / name).touch()
    assert next(read("labelme", annotations, skeleton=FACE).samples).key == "a\\b.jpg"


def test_a_file_that_names_no_image_has_that_of_its_stem(folder):
    values = {"one": labelme(NOSE, image=None), "two": labelme(NOSE, image="")}
    del values["one"]["imagePath"]
    source = read("labelme", folder(**values), skeleton=FACE)
    assert [sample.key for sample in source.samples] == ["one.jpg", "two.jpg"]


@pytest.mark.parametrize("path", ["none.jpg", "..", "/", "\0", "../secret.jpg", "..\\secret.jpg"])
def test_an_image_that_is_not_there_is_said_to_be_missing(folder, tmp_path, path):
    (tmp_path / "secret.jpg").touch()
    annotations = folder(one=labelme(NOSE, image=path))
    (rejected,) = read("labelme", annotations, skeleton=FACE).samples
    assert (rejected.key, rejected.reason) == ("one.jpg", "image missing")
    assert f"{annotations / 'one.json'}: $.imagePath names " in rejected.detail
    assert f"at its place below {tmp_path / 'images'}; pictures embedded as" in rejected.detail


def test_two_files_of_one_image_are_not_both_read(folder):
    annotations = folder(one=labelme(NOSE, image="two.jpg"), two=labelme(FAR, image="two.jpg"))
    one, two = read("labelme", annotations, skeleton=FACE).samples
    assert one.key == "two.jpg"
    assert (two.reason, two.key) == ("two annotations for one image", "two.jpg")
    assert "two.json: another file before it has its image two.jpg, too: remove" in two.detail


def test_images_that_no_file_names_are_counted(folder, tmp_path):
    annotations = folder(one=labelme(NOSE, image="b.jpg"))
    (tmp_path / "images/b.jpg").touch()
    (tmp_path / "images/c.jpg").touch()
    source = read("labelme", annotations, skeleton=Skeleton("nose", ("nose",)))
    assert len(list(source.samples)) == 1
    assert source.counts == {UNANNOTATED: 1}


@pytest.mark.parametrize(
    ("width", "height", "stated", "counted"),
    [
        (64, 48, (64, 48), 0),
        (64.0, 48, (64, 48), 0),
        (None, None, (None, None), 0),
        (-1, -1, (None, None), 1),
        (64, 0.5, (64, None), 1),
        ("64", 2**31, (None, None), 1),
        (float("nan"), float("inf"), (None, None), 1),
    ],
)
def test_a_stated_size_is_handed_on_if_it_is_one(folder, width, height, stated, counted):
    value = labelme(NOSE, imageWidth=width, imageHeight=height)
    source = read("labelme", folder(one=value), skeleton=FACE)
    image = next(source.samples).image
    assert (image.width, image.height) == stated
    assert source.counts[labelme_files.SIZES] == counted


def test_embedded_pictures_take_no_more_memory_than_a_file(folder):
    size = 30_000_000
    names = ("one", "two", "zz")
    annotations = folder(
        **{name: labelme(NOSE, image=f"{name}.jpg", imageData="A" * size) for name in names}
    )
    tracemalloc.start()
    samples = list(read("labelme", annotations).samples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [sample.instances[0].keypoints.tolist() for sample in samples] == [[[5, 5, 2]]] * 3
    assert peak < 3.5 * size  # the first file is looked at as a whole, to tell its style


def test_a_keypoint_called_shapes_is_no_labelme_file(folder):
    source = read("json", folder(one={"shapes": [1, 2]}))
    assert source.skeleton.keypoints == ("shapes",)


def test_files_of_labelme_among_those_of_format_json_say_so(folder):
    with pytest.raises(FormatError, match=r"a file of labelme's .*: read it as format labelme"):
        read("json", folder(one=labelme(*EYES, HEAD)), skeleton=FACE)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ([{"keypoints": [[1, 2]] * 3}], "$: Expected `array`, got `object`"),
        ({"keypoints": [[[1, 2]] * 3]}, "$: Object missing required field `keypoints`"),
        ({"nose": [1, 2]}, "Expected `array | null`"),
    ],
)
def test_a_labelme_file_among_those_of_another_style_is_rejected(folder, first, told):
    one, two = read("json", folder(one=first, two=labelme(NOSE)), skeleton=FACE).samples
    assert not isinstance(one, Rejected)
    assert two.reason == "bad annotation"
    assert told in two.detail
