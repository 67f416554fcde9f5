"""The wire: nothing is lost on it, nothing wrong is read from it, and its bytes are pinned."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpdata.core.errors import DatasetError, KpdataError, SchemaError
from kpdata.core.sample import WHOLE_IMAGE, ImageRef, Instance, Sample, View
from kpdata.images import codec
from kpdata.shards import records, tfrecord
from kpdata.shards.wire.example_pb2 import Example

GOLDEN = Path(__file__).parents[1] / "golden"
K = 3

golden = runpy.run_path(str(GOLDEN / "make.py"))


@st.composite
def instances(draw: st.DrawFn, width: int, height: int) -> Instance:
    """K keypoints and perhaps a box, which may lie up to one image's size outside."""
    x, y = (st.floats(-s, 2 * s, width=32, allow_subnormal=False) for s in (width, height))
    row = st.tuples(x, y, st.sampled_from([1, 2])) | st.just((0.0, 0.0, 0))
    low, high = draw(st.tuples(x, y)), draw(st.tuples(x, y))
    box = [*np.minimum(low, high), *np.maximum(low, high)]
    return Instance(
        keypoints=draw(st.lists(row, min_size=K, max_size=K)),
        bbox_xyxy=draw(st.none() | st.just(box)) if any(box) else None,
        area=draw(st.none() | st.floats(1, 1e8, width=32)),
        is_crowd=draw(st.booleans()),
        category=draw(st.text(max_size=8)),
        category_id=draw(st.integers(-(2**63), 2**63 - 1)),
        id=draw(st.integers(-(2**63), 2**63 - 1)),
        head_size=draw(st.none() | st.floats(1, 1000, width=32)),
    )


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    width, height = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))
    key = draw(st.text(max_size=20))
    image = ImageRef(
        name=draw(st.text(max_size=20)),
        width=width,
        height=height,
        data=draw(st.binary(max_size=300)),
        format=draw(st.sampled_from(["jpeg", "png"])),
    )
    view = View(
        transform=[[draw(st.floats(0.125, 8, width=32)), 0, 0.5], [draw(st.integers(-9, 9)), 2, 1]],
        source_width=draw(st.integers(1, 20_000)),
        source_height=draw(st.integers(1, 20_000)),
        copy=draw(st.integers(0, 1000)),
        seed=draw(st.integers(0, 2**63 - 1)),
        instance=draw(st.integers(WHOLE_IMAGE, 99)),
    )
    found = draw(st.lists(instances(width, height), max_size=3))
    return Sample(key, image, tuple(found), group=draw(st.none() | st.text(min_size=1)), view=view)


@given(samples())
def test_decoding_an_encoded_sample_gives_it_back(sample):
    again = records.decode(records.encode(sample), K)
    assert (again.key, again.group) == (sample.key, sample.split_group)
    assert again.view == sample.view
    assert replace(again.image, sha256=None) == sample.image
    assert len(again.instances) == len(sample.instances)
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    for after, before in zip(again.instances, sample.instances, strict=True):
        np.testing.assert_allclose(after.keypoints, before.keypoints, **tolerance)
        np.testing.assert_array_equal(after.visibility, before.visibility)
        same = ("is_crowd", "category", "category_id", "id", "area", "head_size")
        assert [getattr(after, n) for n in same] == [getattr(before, n) for n in same]
        assert (after.bbox_xyxy is None) == (before.bbox_xyxy is None)
        if before.bbox_xyxy is not None:
            np.testing.assert_allclose(after.bbox_xyxy, before.bbox_xyxy, **tolerance)


@given(samples())
def test_equal_samples_give_equal_bytes_whole_or_in_parts(sample):
    data = records.encode(sample)
    assert records.encode(replace(sample)) == data
    head, image, rest = records.encode_parts(sample)
    assert image is sample.image.data
    assert head + image + rest == data


@given(samples())
def test_the_spelled_out_bytes_are_those_of_protobuf(sample):
    data = records.encode(sample)
    example = Example()
    example.ParseFromString(data)
    assert example.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_images_of_every_length_are_framed_right(size):
    sample = golden["samples"]()[1]
    sample = replace(sample, image=replace(sample.image, data=bytes(size)))
    assert records.decode(records.encode(sample), K).image.data == bytes(size)


def test_what_is_stored_is_normalised_and_counted():
    sample = golden["samples"]()[0]
    example = Example()
    example.ParseFromString(records.encode(sample))
    feature = example.features.feature
    assert feature["image/object/keypoint/x"].float_list.value[:3] == [1.5 / 4, 3.25 / 4, 0]
    assert feature["image/object/keypoint/y"].float_list.value[:3] == [0.5 / 2, 1.75 / 2, 0]
    assert feature["image/object/keypoint/num"].int64_list.value == [2, 0]
    assert feature["image/object/bbox/xmax"].float_list.value == [3.5 / 4, 0]
    assert feature["image/object/class/text"].bytes_list.value == [b"boat", "Köln".encode()]
    assert feature["kpdata/copy"].int64_list.value == [2]
    assert set(feature) == {name for name, _, _ in records.FEATURES}


def test_a_sample_without_a_group_is_its_own_by_its_images_name():
    assert records.decode(records.encode(golden["samples"]()[1]), K).group == "empty.png"


@pytest.mark.parametrize(
    "change", [{"view": None}, {"image": ImageRef("a")}, {"image": ImageRef("a", data=b"x")}]
)
def test_a_sample_that_no_record_can_hold_is_a_programmers_mistake(change):
    with pytest.raises(ValueError, match="empty: a record needs image bytes, their size"):
        records.encode(replace(golden["samples"]()[1], **change))


REGENERATE = (
    "the wire has changed. If that is meant, run `python tests/golden/make.py`, commit the new "
    "files with it, and raise records.SCHEMA_VERSION"
)


@pytest.mark.parametrize("name", ["record.bin", "shard.tfrecord"])
def test_the_wire_is_the_golden_one_to_the_byte(tmp_path, name):
    golden["write"](tmp_path)
    assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes(), REGENERATE


def test_golden_records_read_as_what_was_given():
    payloads = [payload for _, payload in tfrecord.read(GOLDEN / "shard.tfrecord")]
    full, empty = (records.decode(payload, K) for payload in payloads)
    assert payloads[0] == (GOLDEN / "record.bin").read_bytes()
    assert full.instances == golden["samples"]()[0].instances
    assert full.view == golden["samples"]()[0].view
    assert (full.key, full.image.name) == ("sub/000001.jpg", "sub/000001.png")
    assert full.group == "video 1"
    assert codec.decode_stored(full.image)[0].tolist() == [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 255],
    ]
    assert (empty.key, empty.instances) == ("empty", ())


def damaged(name: str, kind: str | None, values: list) -> bytes:
    """The golden record with one feature replaced; ``kind`` None takes it away."""
    example = Example()
    example.ParseFromString((GOLDEN / "record.bin").read_bytes())
    del example.features.feature[name]
    if kind:
        getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString()


LISTS = {
    "bytes": ("bytes_list", [b"x"]),
    "float": ("float_list", [1.0]),
    "int64": ("int64_list", [1]),
}


@pytest.mark.parametrize("feature", records.FEATURES, ids=lambda feature: feature.name)
def test_every_feature_is_required_in_its_kind_and_length(feature):
    name = feature.name
    with pytest.raises(DatasetError, match=f"feature {name} is missing"):
        records.decode(damaged(name, None, []), K)
    other, values = LISTS["float" if feature.kind != "float" else "int64"]
    expected = LISTS[feature.kind][0]
    with pytest.raises(DatasetError, match=f"feature {name} is a {other}, expected a {expected}"):
        records.decode(damaged(name, other, values), K)
    kind, values = LISTS[feature.kind]
    with pytest.raises(DatasetError, match=r"feature \S+ has \d+ values, expected \d+") as caught:
        records.decode(damaged(name, kind, values * 9), K)
    if name != "image/object/class/label":  # which says how many instances there are
        assert f"feature {name} has 9 values" in str(caught.value)


def test_another_skeletons_record_is_told_by_its_length():
    with pytest.raises(
        DatasetError,
        match=r"keypoint/x has 6 values, expected 34 \(2 instances × 17 keypoints\)",
    ):
        records.decode((GOLDEN / "record.bin").read_bytes(), 17)


@pytest.mark.parametrize("data", [b"\xff", b"not an example", b"\x0a\xff"])
def test_bytes_that_are_no_example_say_so(data):
    with pytest.raises(DatasetError, match=r"not a tf\.train\.Example"):
        records.decode(data, K)


def test_an_empty_record_misses_its_first_feature():
    with pytest.raises(DatasetError, match="feature image/encoded is missing"):
        records.decode(b"", K)


@pytest.mark.parametrize(
    "name",
    ["image/filename", "image/source_id", "image/format", "image/key/sha256", "kpdata/group"],
)
def test_text_that_is_not_utf_8_names_its_feature(name):
    with pytest.raises(DatasetError, match=rf"feature {name} is not UTF-8: b'\\xff'"):
        records.decode(damaged(name, "bytes_list", [b"\xff"]), K)


@pytest.mark.parametrize(
    ("name", "kind", "values", "error", "message"),
    [
        (
            "image/object/class/text",
            "bytes_list",
            [b"boat", b"K\xf6ln"],
            DatasetError,
            "instance 1: feature image/object/class/text is not UTF-8",
        ),
        (
            "image/object/keypoint/visibility",
            "int64_list",
            [2, 7, 0, 0, 0, 0],
            SchemaError,
            "instance 0: keypoint 1 has visibility 7",
        ),
        (
            "image/object/keypoint/visibility",
            "int64_list",
            [2, 0, 0, 0, 0, 0],
            SchemaError,
            "instance 0: keypoint 1 is not labelled",
        ),
        (
            "image/object/keypoint/y",
            "float_list",
            [0.1, float("nan"), 0, 0, 0, 0],
            SchemaError,
            "instance 0: keypoint 1 is not finite",
        ),
        (
            "image/object/bbox/xmin",
            "float_list",
            [0.9, 0],
            SchemaError,
            "instance 0: bbox_xyxy ends before it begins",
        ),
        ("image/object/area", "float_list", [1, -1], SchemaError, r"instance 1: area is -1\.0"),
        ("image/width", "int64_list", [0], DatasetError, "image/width × image/height is 0 × 2"),
        ("kpdata/transform", "float_list", [0] * 6, SchemaError, "transform cannot be inverted"),
    ],
)
def test_values_that_no_sample_may_hold_are_refused_by_instance(name, kind, values, error, message):
    with pytest.raises(error, match=message):
        records.decode(damaged(name, kind, values), K)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 7)), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_flipped_bits_give_a_sample_or_an_error_of_ours(flips):
    data = bytearray((GOLDEN / "record.bin").read_bytes())
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    sample_or_error(bytes(data))


@settings(max_examples=500)
@given(st.binary())
def test_random_bytes_give_a_sample_or_an_error_of_ours(data):
    assert isinstance(sample_or_error(data), KpdataError)


def sample_or_error(data: bytes) -> Sample | KpdataError:
    try:
        return records.decode(data, K)
    except KpdataError as error:
        return error
