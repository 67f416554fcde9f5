"""COCO files as other tools and datasets write them: what is meant is read, and it is said."""

import json

import cv2
import numpy as np
import pytest

from kpdata.core.errors import FormatError
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, COCO_WHOLEBODY133, CROWDPOSE14
from kpdata.formats.base import LABELLED, ZEROED
from kpdata.formats.coco import mend
from kpdata.formats.coco.read import PARTS, read
from kpdata.formats.coco.write import write as write_coco

BOAT = {"id": 1, "name": "boat", "keypoints": ["bow", "stern", "mast"], "skeleton": [[1, 2]]}
LABELS = [20, 30, 2, 40, 30, 1, 0, 0, 0]


def annotation(number, **changes):
    return {
        "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 4,
        "bbox": [10, 10, 50, 40], "keypoints": LABELS,
    } | changes  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Writes a file with one image per annotation."""

    def write(*annotations, categories=(BOAT,), images=None, **more):
        numbers = range(1, len(annotations) + 1)
        images = images or [{"id": n, "file_name": f"{n}.png"} for n in numbers]
        value = {"images": images, "annotations": annotations, "categories": categories} | more
        path = tmp_path / "a.json"
        path.write_text(json.dumps(value))
        (tmp_path / "images").mkdir(exist_ok=True)
        return path

    return write


def test_an_annotation_of_an_unknown_category_is_refused_like_one_of_an_unknown_image(write):
    path = write(annotation(1), annotation(2, category_id=4))
    first, second, refused = read(path).samples
    assert (len(first.instances), len(second.instances)) == (1, 0)
    assert refused.reason == "annotation of an unknown category"
    assert "$.annotations[1].category_id: no category has the id 4" in refused.detail


@pytest.mark.parametrize("category", [BOAT | {"keypoints": []}, {"id": 1, "name": "boat"}])
def test_a_skeleton_names_what_the_file_does_not(write, category):
    path = write(annotation(1, keypoints=LABELS + [1, 1, 2] * 11), categories=[category])
    with pytest.raises(FormatError, match=r"holds 14: give `skeleton`, .* lsp14, crowdpose14"):
        read(path)
    source = read(path, skeleton=CROWDPOSE14)
    (sample,) = source.samples
    assert source.skeleton is CROWDPOSE14
    assert sample.instances[0].keypoints[:2].tolist() == [[20.5, 30.5, 2], [40.5, 30.5, 1]]
    with pytest.raises(FormatError, match="coco17 has 17 keypoints, category 'boat' 14"):
        read(path, skeleton=COCO17)


def test_more_names_than_numbers_are_an_error_that_a_skeleton_solves(write):
    path = write(annotation(1, keypoints=LABELS[:6]), annotation(2, keypoints=LABELS[:6]))
    with pytest.raises(FormatError, match="names 3 keypoints, but each of its annotations holds 2"):
        read(path)
    first, _ = read(path, skeleton=Skeleton("two", ("bow", "stern"))).samples
    assert first.instances[0].keypoints.shape == (2, 3)


def test_one_annotation_of_another_length_costs_its_image_alone(write):
    first, refused = read(write(annotation(1), annotation(2, keypoints=LABELS[:6]))).samples
    assert len(first.instances) == 1
    assert refused.reason == "bad keypoints"


def test_nested_keypoints_are_read_and_counted(write):
    nested = [LABELS[:3], LABELS[3:6], LABELS[6:]]
    source = read(write(annotation(1, keypoints=nested)))
    (sample,) = source.samples
    assert sample.instances[0].keypoints.tolist() == [[20.5, 30.5, 2], [40.5, 30.5, 1], [0, 0, 0]]
    assert source.counts[mend.NESTED] == 1


def test_nan_and_null_are_counted_once(write):
    nan = float("nan")
    source = read(write(annotation(1, keypoints=[20, 20, 2, nan, nan, 0, None, None, 0])))
    list(source.samples)
    assert source.counts == {mend.NULLS: 2}
    assert ZEROED not in source.counts


WHOLEBODY = {"id": 1, "name": "person", "keypoints": COCO17.keypoints}


def wholebody(number, **changes):
    parts = {"foot": 6, "face": 68, "lefthand": 21, "righthand": 21}
    more = {f"{name}_kpts": [n, 1, 2] * count for n, (name, count) in enumerate(parts.items())}
    valid = {f"{name}_valid": True for name in parts}
    return annotation(number, keypoints=[9, 9, 2] * 17) | more | valid | changes


def test_coco_wholebody_is_read_as_its_133_keypoints(write):
    body = annotation(3, keypoints=[9, 9, 2] * 17)
    path = write(wholebody(1), wholebody(2, face_valid=False), body, categories=[WHOLEBODY])
    source = read(path)
    whole, faceless, bodily = (sample.instances[0].keypoints for sample in source.samples)
    assert source.skeleton is COCO_WHOLEBODY133
    assert whole[:, 0].tolist() == [9.5] * 17 + [0.5] * 6 + [1.5] * 68 + [2.5] * 21 + [3.5] * 21
    assert (whole[:, 2] == 2).all()
    assert not faceless[23:91].any()
    assert faceless[91:, 2].all()
    assert bodily[:17, 2].all()
    assert not bodily[17:].any()
    assert PARTS not in source.counts


@pytest.mark.parametrize("names", [COCO_WHOLEBODY133.keypoints, [f"p{n}" for n in range(133)]])
def test_133_keypoints_in_one_list_are_read_as_they_stand(write, names):
    listed = annotation(1, keypoints=[value for n in range(133) for value in (n, 1, 2)])
    path = write(listed, categories=[{"id": 1, "name": "person", "keypoints": names}])
    for skeleton in (None, COCO_WHOLEBODY133):
        source = read(path, skeleton=skeleton)
        (sample,) = source.samples
        assert sample.instances[0].keypoints[:, 0].tolist() == [n + 0.5 for n in range(133)]
        assert PARTS not in source.counts


def test_coco_wholebody_can_be_read_as_coco_and_its_parts_are_counted(write):
    source = read(write(wholebody(1), categories=[WHOLEBODY]), skeleton=COCO17)
    (sample,) = source.samples
    assert sample.instances[0].keypoints.shape == (17, 3)
    assert source.counts[PARTS] == 1
    source = read(write(wholebody(1, keypoints=LABELS)))
    assert (len(source.skeleton), source.counts[PARTS]) == (3, 1)


def test_a_part_of_another_length_costs_its_image(write):
    (refused,) = read(write(wholebody(1, foot_kpts=[1, 2]), categories=[WHOLEBODY])).samples
    assert "$.annotations[0].foot_kpts holds 2 numbers: expected 18" in refused.detail


ONES = [20, 30, 1, 40, 30, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "file", "expected"),
    [
        ({}, [ONES, ONES], 2),
        ({"visibility": "coco"}, [ONES, ONES], 1),
        ({}, [ONES, LABELS], 1),
        ({"visibility": "labelled"}, [ONES, LABELS], 2),
    ],
)
def test_v_of_one_means_labelled_where_no_keypoint_has_two(write, options, file, expected):
    path = write(*(annotation(n, keypoints=one) for n, one in enumerate(file, start=1)))
    source = read(path, **options)
    first, _ = source.samples
    assert first.instances[0].visibility.tolist() == [expected, expected, 0]
    assert bool(source.counts[LABELLED]) == (expected == 2)
    assert ("1 is visible" in source.convention) == (expected == 2)


@pytest.mark.parametrize(
    ("info", "options", "x"),
    [
        ({}, {}, 20.5),
        ({"description": "Exported from roboflow.com"}, {}, 20),
        ({"contributor": "Label Studio"}, {}, 20),
        ({"contributor": "Label Studio"}, {"pixel_origin": "center"}, 20.5),
        ({}, {"pixel_origin": "corner"}, 20),
        ({"description": "COCO 2017 Dataset"}, {}, 20.5),
    ],
)
def test_the_pixels_origin_is_the_tools_unless_it_is_given(write, info, options, x):
    source = read(write(annotation(1), info=info), **options)
    (sample,) = source.samples
    assert sample.instances[0].keypoints[0].tolist() == [x, x + 10, 2]
    assert sample.instances[0].bbox_xyxy.tolist() == [10, 10, 60, 50]
    assert source.convention.startswith("continuous pixels") == (x == 20)
    assert any("corner" in what for what in source.counts) == (x == 20 and not options)


@pytest.mark.parametrize(
    "key", [{"video_id": 7}, {"vid_id": "v7"}, {"extra": {"name": "boat.png"}}, {"group": "g"}]
)
def test_what_the_file_says_belongs_together_is_a_group(write, key):
    images = [{"id": n, "file_name": f"{n}.png"} | key for n in (1, 2)]
    source = read(write(annotation(1), annotation(2), images=images))
    first, second = source.samples
    assert (
        first.group
        == second.group
        == str(next(iter(key.values()))).removeprefix("{'name': '").removesuffix("'}")
    )
    assert source.groups_from_names == ("group" not in key)
    assert source.groups_are_numbers == ("video_id" in key)
    if "group" not in key:
        (said,) = (what for what in source.counts if what.startswith("images grouped by"))
        assert source.counts[said] == 2


def test_coordinates_survive_a_write_and_a_read_where_all_are_occluded(write, tmp_path):
    source = read(write(annotation(1, keypoints=ONES)), visibility="coco")
    (before,) = source.samples
    cv2.imwrite(str(tmp_path / "images" / "1.png"), np.zeros((80, 100, 3), np.uint8))
    write_coco([before], source.skeleton, tmp_path / "out", tmp_path / "images")
    (after,) = read(tmp_path / "out" / "annotations.json").samples
    assert after.instances[0].keypoints.tolist() == before.instances[0].keypoints.tolist()
