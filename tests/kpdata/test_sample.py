"""The schema: what it refuses, in which words, and that packing loses nothing."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import ImageError, SchemaError
from kpdata.core.sample import (
    WHOLE_IMAGE,
    ImageRef,
    Instance,
    Sample,
    View,
    pack,
    unpack_sample,
    with_keypoints,
)
from kpdata.images import codec

GOOD = [[1.5, 2.5, 2], [3.0, 4.0, 1], [0, 0, 0]]
IDENTITY = np.eye(2, 3)

coordinates = st.floats(-1e6, 1e6, width=32)
labelled = st.tuples(coordinates, coordinates, st.sampled_from([1, 2]))
keypoints = st.lists(labelled | st.just((0, 0, 0)), min_size=3, max_size=3)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).map(
    lambda sides: np.sort(np.reshape(sides, (2, 2)), axis=0).reshape(-1)
)
instances = st.builds(
    Instance,
    keypoints=keypoints,
    bbox_xyxy=st.none() | boxes,
    area=st.none() | st.floats(0, 1e9),
    is_crowd=st.booleans(),
    category=st.text(),
    category_id=st.integers(0, 2**31),
    id=st.integers(0, 2**62),
    head_size=st.none() | st.floats(0, 1e4),
)
pictures = st.builds(
    ImageRef,
    name=st.text(),
    uri=st.text(),
    width=st.none() | st.integers(1, 10_000),
    height=st.none() | st.integers(1, 10_000),
    data=st.none() | st.binary(),
    format=st.none() | st.sampled_from(["jpeg", "png"]),
)
views = st.builds(
    lambda shift, copy, instance: View([[2, 0, shift], [0, 3, 1]], 640, 480, copy, 7, instance),
    coordinates,
    st.integers(0, 9),
    st.integers(WHOLE_IMAGE, 9),
)
samples = st.builds(
    Sample,
    key=st.text(),
    image=pictures,
    instances=st.lists(instances, max_size=3).map(tuple),
    split=st.none() | st.text(),
    group=st.none() | st.text(),
    view=st.none() | views,
)


def test_keypoints_become_float32_rows_of_three():
    instance = Instance(keypoints=[1.5, 2.5, 2, 0, 0, 0])
    assert instance.keypoints.shape == (2, 3)
    assert instance.keypoints.dtype == np.float32
    np.testing.assert_array_equal(instance.xy, [[1.5, 2.5], [0, 0]])
    np.testing.assert_array_equal(instance.visibility, [2, 0])
    assert instance.num_labelled == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 4)), r"shape \(K, 3\), got \(2, 4\)"),
        (np.zeros(4), r"shape \(K, 3\), got \(4,\)"),
        (np.zeros((1, 2, 3)), r"shape \(K, 3\), got \(1, 2, 3\)"),
        (np.float32(3), r"shape \(K, 3\), got \(\)"),
        ([[1, 2, 2], [1, 2]], "must be numbers, K rows"),
        ([["a", 2, 2]], "must be numbers, K rows"),
        ([[1, 2, 2], [np.nan, 2, 2]], r"keypoint 1 is not finite: \[nan, 2\.0, 2\.0\]"),
        ([[1, np.inf, 2]], "keypoint 0 is not finite"),
        ([[1, 1e39, 2]], "keypoint 0 is not finite"),
        ([[1, 2, 2], [1, 2, 7]], "keypoint 1 has visibility 7: expected 0, 1 or 2"),
        ([[1, 2, -1]], "keypoint 0 has visibility -1"),
        ([[1, 2, 0.5]], "keypoint 0 has visibility 0.5"),
        (
            [[1, 2, 2], [0, 5, 0]],
            r"keypoint 1 is not labelled \(v = 0\) yet lies at \[0\.0, 5\.0\]: expected x = y = 0",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_unusable_keypoints_are_refused_by_row_and_value(values, message):
    with pytest.raises(SchemaError, match=message):
        Instance(keypoints=values)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([10, 0, 9, 5], "ends before it begins"),
        ([0, 10, 5, 9], "ends before it begins"),
        ([0, 0, np.nan, 5], "must be 4 finite numbers"),
        ([0, 0, np.inf, 5], "must be 4 finite numbers"),
        ([0, 0, 5], "must be 4 finite numbers"),
        ([[0, 0, 5, 5]], "must be 4 finite numbers"),
        ("box", "must be 4 finite numbers"),
        (["a", 0, 5, 5], "must be 4 finite numbers"),
    ],
)
def test_unusable_boxes_are_refused_with_their_value(box, message):
    with pytest.raises(SchemaError, match=f"bbox_xyxy {message}"):
        Instance(GOOD, bbox_xyxy=box)


@pytest.mark.parametrize("name", ["area", "head_size"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 1e39])
def test_areas_and_head_sizes_are_finite_and_not_negative(name, value):
    with pytest.raises(SchemaError, match=f"{name} is .*: expected a finite number of 0 or more"):
        Instance(GOOD, **{name: value})


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [-3, -4, 700, 900]])
def test_empty_boxes_and_boxes_beyond_the_image_are_labels_and_kept(box):
    np.testing.assert_array_equal(Instance(GOOD, bbox_xyxy=box).bbox_xyxy, box)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ([[1, 0, 0], [0, np.nan, 0]], "transform must be 6 finite numbers"),
        ([1, 0, 0, 0, 1], "transform must be 6 finite numbers"),
        ("identity", "transform must be 6 finite numbers, got 'identity'"),
        (np.eye(3), "transform must be 6 finite numbers"),
        (np.zeros((2, 3)), "transform cannot be inverted"),
        ([[1, 2, 0], [2, 4, 0]], "transform cannot be inverted"),
    ],
)
def test_a_transform_must_be_a_finite_invertible_affine(transform, message):
    with pytest.raises(SchemaError, match=message):
        View(transform, 640, 480)


def test_everything_is_frozen():
    instance, image = Instance(GOOD), ImageRef("a.jpg")
    view = View(IDENTITY, 640, 480)
    for value, name in (
        (instance, "keypoints"),
        (image, "name"),
        (view, "transform"),
        (Sample("a", image), "key"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


@given(samples)
def test_unpacking_a_packed_sample_gives_it_back(sample):
    again = unpack_sample(pack(sample))
    assert again == sample
    assert pack(again) == pack(sample)
    assert [i.keypoints.tolist() for i in again.instances] == [
        i.keypoints.tolist() for i in sample.instances
    ]


@given(samples, st.text(min_size=1))
def test_samples_that_differ_in_one_value_are_unequal(sample, suffix):
    assert sample == replace(sample)
    assert sample != replace(sample, key=sample.key + suffix)


def test_equality_looks_inside_arrays():
    moved = [[1.5, 2.5, 2], [3.0, 4.5, 1], [0, 0, 0]]
    assert Instance(GOOD) == Instance(GOOD)
    assert Instance(GOOD) != Instance(moved)
    assert View(IDENTITY, 640, 480) != View(IDENTITY * 2, 640, 480)
    assert Instance(GOOD) != "an instance"


def test_new_keypoints_lose_their_place_where_not_labelled():
    moved = with_keypoints(Instance(GOOD, area=5.0), np.array([[1, 2, 2], [3, 4, 0], [5, 6, 1]]))
    np.testing.assert_array_equal(moved.keypoints, [[1, 2, 2], [0, 0, 0], [5, 6, 1]])
    assert moved.area == 5.0


def test_a_sample_without_bytes_says_so_when_asked_for_pixels():
    with pytest.raises(ImageError, match=r"a\.jpg: this sample carries no image bytes"):
        codec.decode_stored(ImageRef("a.jpg", uri="/data/a.jpg"))
