"""MPII files as SciPy writes them, in the layouts that the real one is known to have."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from mpii_files import EMPTY, image, person, point, save, structs

from kpdata.core.errors import FormatError
from kpdata.core.sample import Rejected, Sample
from kpdata.core.skeletons import MPII16
from kpdata.formats import read
from kpdata.formats.mpii import read as mpii


def only(path: Path) -> Sample:
    (sample,) = mpii.read(path).samples
    assert isinstance(sample, Sample), sample
    return sample


def refused(path: Path) -> Rejected:
    (rejected,) = mpii.read(path).samples
    assert isinstance(rejected, Rejected)
    assert str(path) in rejected.detail
    return rejected


@pytest.mark.parametrize("compressed", [True, False])
def test_keypoints_lie_by_id_half_a_pixel_up_and_left(tmp_path: Path, compressed: bool) -> None:
    points = [point(9, 620.5, 12, is_visible="1"), point(0, 5, 7.25, is_visible=1)]
    path = save(tmp_path, [image("a.jpg", structs([person(points)]))], do_compression=compressed)
    source = mpii.read(path)
    (sample,) = source.samples
    assert isinstance(sample, Sample)
    keypoints = sample.instances[0].keypoints
    assert keypoints[MPII16.index("right_ankle")].tolist() == [4.5, 6.75, 2]
    assert keypoints[MPII16.index("head_top")].tolist() == [620, 11.5, 2]
    assert sample.instances[0].num_labelled == 2
    assert sample.key == sample.image.name == "a.jpg"
    assert sample.image.uri == str(tmp_path / "images" / "a.jpg")
    assert (source.skeleton, source.has_boxes) == (MPII16, True)
    assert source.annotation_files == (path,)


@pytest.mark.parametrize(
    ("flag", "visibility", "unknown"),
    [
        ({"is_visible": "1"}, 2, 0),
        ({"is_visible": "0"}, 1, 0),
        ({"is_visible": 1}, 2, 0),
        ({"is_visible": 0}, 1, 0),
        ({"is_visible": np.bool_(False)}, 1, 0),
        ({"is_visible": EMPTY}, 2, 1),
        ({"is_visible": ""}, 2, 1),
        ({}, 2, 1),
    ],
)
def test_visibility_comes_as_number_as_text_or_not_at_all(
    tmp_path: Path, flag: dict[str, Any], visibility: int, unknown: int
) -> None:
    source = mpii.read(
        save(tmp_path, [image("a.jpg", structs([person([point(3, 5, 5, **flag)])]))])
    )
    (sample,) = source.samples
    assert isinstance(sample, Sample)
    assert sample.instances[0].visibility.tolist() == [0] * 3 + [visibility] + [0] * 12
    assert source.counts[mpii.NOT_SAID] == unknown


def test_the_box_is_a_square_of_200_times_scale_around_objpos(tmp_path: Path) -> None:
    placed = person([point(0, 5, 5)], scale=1.5, objpos=structs([{"x": 301, "y": 201}]))
    sample = only(save(tmp_path, [image("a.jpg", structs([placed, person([])]))]))
    with_box, without = sample.instances
    assert with_box.bbox_xyxy is not None
    assert with_box.bbox_xyxy.tolist() == [150.5, 50.5, 450.5, 350.5]
    assert without.bbox_xyxy is None
    assert [instance.id for instance in sample.instances] == [1, 2]


def test_the_head_size_is_that_of_mpiis_own_evaluation(tmp_path: Path) -> None:
    headless = person([point(0, 5, 5)], x1=EMPTY)
    sample = only(save(tmp_path, [image("a.jpg", structs([person([point(0, 5, 5)]), headless]))]))
    assert sample.instances[0].head_size == pytest.approx(0.6 * 50)
    assert sample.instances[1].head_size is None


def test_people_and_lists_may_be_missing(tmp_path: Path) -> None:
    people = {
        "nobody.jpg": EMPTY,
        "no-points.jpg": structs([{"x1": 1, "y1": 1, "x2": 2, "y2": 2}]),
        "empty-points.jpg": structs([{"annopoints": EMPTY}]),
    }
    samples = list(mpii.read(save(tmp_path, [image(*both) for both in people.items()])).samples)
    assert all(isinstance(sample, Sample) for sample in samples)
    assert [len(sample.instances) for sample in samples] == [0, 1, 1]
    assert [i.num_labelled for sample in samples for i in sample.instances] == [0, 0]


def test_images_of_the_test_set_are_left_out_and_counted(tmp_path: Path) -> None:
    images = [image(f"{n}.jpg", structs([person([point(0, 5, 5)])])) for n in range(3)]
    source = mpii.read(save(tmp_path, images, [1, 0, 1]))
    samples = list(source.samples)
    assert [(sample.key, sample.split) for sample in samples] == [
        ("0.jpg", "train"),
        ("2.jpg", "train"),
    ]
    assert source.counts[mpii.TEST] == 1


def test_a_videos_frames_are_one_group(tmp_path: Path) -> None:
    images = [image(f"{n}.jpg", EMPTY, vididx=index) for n, index in enumerate((7, 8, 7, EMPTY))]
    samples = list(mpii.read(save(tmp_path, images)).samples)
    assert [s.group for s in samples] == ["video 7", "video 8", "video 7", None]
    assert not mpii.read(save(tmp_path, images)).groups_from_names


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ([point(16, 5, 5)], "id is 16: expected 0 to 15"),
        ([point(2, 5, 5), point(2, 6, 6)], "two points of id 2"),
        ([point(2, 5, 5, is_visible=3)], "is_visible is 3.0"),
        ([point(2, 5, 5, is_visible=1.0000001)], "is_visible is 1.0000001"),
        ([point(2, 5, 5, is_visible="yes")], "is_visible is 'yes'"),
        ([point(2, np.nan, 5)], r"x and y are \[nan, 5.0\]"),
        ([point(2, 5, 2e7)], r"x and y are \[5.0, 20000000.0\]"),
        ([point(2, EMPTY, 5)], "x is empty"),
        ([point(2, "left", 5)], "x is a MATLAB char: expected an array of numbers"),
        ([point(2, [1, 2], 5)], r"x has shape \(1, 2\): expected one number"),
        ([{"x": 5, "y": 5}], "no field id: expected MPII's, among x, y"),
    ],
)
def test_a_point_at_fault_costs_its_image_alone(
    tmp_path: Path, points: list[dict[str, Any]], fault: str
) -> None:
    sound = image("sound.jpg", structs([person([point(0, 5, 5)])]))
    path = save(tmp_path, [image("a.jpg", structs([person([]), person(points)])), sound])
    rejected, sample = mpii.read(path).samples
    assert isinstance(sample, Sample)
    assert isinstance(rejected, Rejected)
    assert rejected.key == "a.jpg"
    assert re.search(rf"image 1 \(a.jpg\): person 2: {fault}", rejected.detail)


@pytest.mark.parametrize("scale", [-1, np.nan, 1e9])
def test_a_scale_that_nobody_has_is_refused(tmp_path: Path, scale: float) -> None:
    odd = person([], scale=scale, objpos=structs([{"x": 1, "y": 1}]))
    assert "person 1: scale is" in refused(save(tmp_path, [image("a.jpg", structs([odd]))])).detail


def test_more_people_than_any_record_holds_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, [image("a.jpg", structs([{"x1": 1}] * 10_001))])
    assert "annorect has shape (1, 10001)" in refused(path).detail


def test_another_file_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    path = save(tmp_path, [image("a.jpg", EMPTY)])
    scipy.io.savemat(path, {"joints": np.zeros((3, 14, 2))})
    with pytest.raises(FormatError, match=f"{path}: has no variable 'RELEASE', it holds 'joints'"):
        mpii.read(path)
    scipy.io.savemat(path, {"RELEASE": structs([{"annolist": EMPTY}])})
    with pytest.raises(FormatError, match=f"{path}: no field img_train: .* among annolist"):
        mpii.read(path)
    scipy.io.savemat(path, {"RELEASE": 5.0})
    with pytest.raises(FormatError, match=f"{path}: RELEASE is a MATLAB double: expected a struct"):
        mpii.read(path)


def test_every_image_needs_a_flag(tmp_path: Path) -> None:
    path = save(tmp_path, [image("a.jpg", EMPTY), image("b.jpg", EMPTY)], [1])
    with pytest.raises(FormatError, match=r"annolist has shape \(1, 2\), but img_train \(1, 1\)"):
        mpii.read(path)


@pytest.mark.parametrize("index", [1.5, -1.0, np.nan, 1e8])
def test_a_video_that_has_no_number_is_refused(tmp_path: Path, index: float) -> None:
    path = save(tmp_path, [image("a.jpg", EMPTY, vididx=index)])
    assert f"vididx is {index}: expected a video's number" in refused(path).detail


def test_a_name_longer_than_any_is_not_repeated(tmp_path: Path) -> None:
    rejected = refused(save(tmp_path, [image("a" * 5000, EMPTY)]))
    assert rejected.key == "image 1"
    assert "name has 5,000 characters" in rejected.detail
    assert len(rejected.detail) < 1000


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    images = [image("a.jpg", structs([person([point(0, 5, 5)])]))]
    path = save(tmp_path, images, do_compression=True)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=str(path)):
            list(mpii.read(path).samples)


@given(
    st.dictionaries(
        st.integers(0, 15),
        st.tuples(
            st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32), st.sampled_from("01")
        ),
    ),
    st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    points: dict[int, tuple[float, float, str]],
    compressed: bool,
) -> None:
    listed = [point(n, x, y, is_visible=flag) for n, (x, y, flag) in points.items()]
    path = save(
        tmp_path_factory.mktemp("mpii"),
        [image("a.jpg", structs([person(listed)]))],
        do_compression=compressed,
    )
    expected = np.zeros((16, 3), np.float32)
    for n, (x, y, flag) in points.items():
        expected[n] = x - 0.5, y - 0.5, 1 + int(flag)
    np.testing.assert_array_equal(only(path).instances[0].keypoints, expected)


def test_the_registry_knows_it(tmp_path: Path) -> None:
    assert read("mpii", save(tmp_path, [image("a.jpg", EMPTY)])).skeleton == MPII16
