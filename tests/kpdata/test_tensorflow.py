"""TensorFlow reads our bytes, also by its Object Detection names, and we read TensorFlow's."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from kpdata.core.sample import Sample
from kpdata.images import codec
from kpdata.shards import records, tfrecord
from kpdata.shards.dataset import Dataset

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

GOLDEN = Path(__file__).parents[1] / "golden"
TYPES = {"bytes": tf.string, "float": tf.float32, "int64": tf.int64}

golden = runpy.run_path(str(GOLDEN / "make.py"))


def parse(payload: bytes) -> dict[str, np.ndarray]:
    """What ``tf.io.parse_single_example`` makes of a record, by our table of features."""
    spec = {
        name: tf.io.FixedLenFeature([int(length)] if length != "1" else [], TYPES[kind])
        if length.isdigit()
        else tf.io.VarLenFeature(TYPES[kind])
        for name, kind, length in records.FEATURES
    }
    return {name: value.numpy() for name, value in parsed_dense(payload, spec).items()}


def parsed_dense(payload: bytes, spec: dict[str, object]) -> dict[str, tf.Tensor]:
    parsed = tf.io.parse_single_example(payload, spec)
    return {
        name: tf.sparse.to_dense(value) if isinstance(value, tf.SparseTensor) else value
        for name, value in parsed.items()
    }


def assert_same(parsed: dict[str, np.ndarray], sample: Sample) -> None:
    """Every parsed feature against the sample's own value."""
    image, instances, view = sample.image, sample.instances, sample.view
    size = np.array([image.width, image.height])
    scalars = {
        "image/encoded": image.data,
        "image/format": image.format.encode(),
        "image/height": image.height,
        "image/width": image.width,
        "image/filename": image.name.encode(),
        "image/source_id": sample.key.encode(),
        "image/key/sha256": image.sha256.encode(),
        "kpdata/source/height": view.source_height,
        "kpdata/source/width": view.source_width,
        "kpdata/copy": view.copy,
        "kpdata/seed": view.seed,
        "kpdata/instance": view.instance,
        "kpdata/group": sample.group.encode(),
    }
    assert {name: parsed[name] for name in scalars} == scalars
    none = np.zeros(4)
    boxes = [none if i.bbox_xyxy is None else i.bbox_xyxy for i in instances]
    boxes = np.reshape(boxes, (-1, 4)) / np.tile(size, 2)
    keypoints = np.reshape([i.keypoints for i in instances], (-1, 3))
    arrays = {
        "image/object/bbox/xmin": boxes[:, 0],
        "image/object/bbox/ymin": boxes[:, 1],
        "image/object/bbox/xmax": boxes[:, 2],
        "image/object/bbox/ymax": boxes[:, 3],
        "image/object/area": [i.area or 0 for i in instances],
        "image/object/is_crowd": [i.is_crowd for i in instances],
        "image/object/class/label": [i.category_id for i in instances],
        "image/object/id": [i.id for i in instances],
        "image/object/keypoint/x": keypoints[:, 0] / size[0],
        "image/object/keypoint/y": keypoints[:, 1] / size[1],
        "image/object/keypoint/visibility": keypoints[:, 2],
        "image/object/keypoint/num": [i.num_labelled for i in instances],
        "kpdata/object/head_size": [i.head_size or 0 for i in instances],
        "kpdata/transform": view.transform.reshape(-1),
    }
    for name, expected in arrays.items():
        np.testing.assert_allclose(parsed[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)
    text = [i.category.encode() for i in instances]
    assert parsed["image/object/class/text"].tolist() == text
    assert set(parsed) == {*scalars, *arrays, "image/object/class/text"}


def test_tensorflow_reads_every_feature_of_the_golden_records():
    dataset = tf.data.TFRecordDataset(str(GOLDEN / "shard.tfrecord"))
    payloads = list(dataset.as_numpy_iterator())
    assert payloads == [payload for _, payload in tfrecord.read(GOLDEN / "shard.tfrecord")]
    for payload in payloads:
        assert_same(parse(payload), records.decode(payload, golden["NUM_KEYPOINTS"]))
    assert parse(payloads[0])["image/object/id"].tolist() == [4_000_000_001, 2]
    assert parse(payloads[0])["kpdata/transform"].tolist() == [-0.5, 0, 4, 0, 0.5, -1]


def test_tensorflow_reads_whole_shards_in_our_order(tiny_shards):
    dataset = Dataset.open(tiny_shards)
    for split in dataset.splits:
        paths = [str(dataset.shard_path(shard)) for shard in dataset[split].shards]
        payloads = list(tf.data.TFRecordDataset(paths).as_numpy_iterator())
        assert len(payloads) == len(dataset[split])
        for payload, sample in zip(payloads, dataset[split], strict=True):
            assert_same(parse(payload), sample)


def test_tensorflow_decodes_the_same_pixels(tiny_shards):
    for sample in Dataset.open(tiny_shards)["val"]:
        pixels = tf.io.decode_jpeg(sample.image.data, channels=3, dct_method="INTEGER_ACCURATE")
        assert np.abs(pixels.numpy().astype(int) - codec.decode_stored(sample.image)).max() <= 3


def as_tensorflow_writes_it(sample: Sample) -> bytes:
    """Our record taken apart and built anew with TensorFlow's own classes."""
    parsed = parse(records.encode(sample))
    features = {}
    for name, kind, _ in records.FEATURES:
        values = np.atleast_1d(parsed[name]).tolist()
        features[name] = {
            "bytes": lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)),
            "float": lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v)),
            "int64": lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=v)),
        }[kind](values)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def test_we_read_what_tensorflow_writes(tmp_path):
    path = tmp_path / "train-00000-of-00001.tfrecord"
    samples = golden["samples"]()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for sample in samples:
            writer.write(as_tensorflow_writes_it(sample))
    found = [records.decode(payload, golden["NUM_KEYPOINTS"]) for _, payload in tfrecord.read(path)]
    assert [s.instances for s in found] == [s.instances for s in samples]
    assert [s.view for s in found] == [s.view for s in samples]
    assert [records.encode(s) for s in found] == [records.encode(s) for s in samples]


def test_our_file_is_tensorflows_to_the_byte(tmp_path):
    payloads = [b"", b"payload", bytes(100_000)]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    with tfrecord.Writer(tmp_path / "ours") as ours:
        for payload in payloads:
            ours.write(payload)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def object_detection_decode(payload: bytes, num_keypoints: int) -> dict[str, tf.Tensor]:
    """Names, types and shapes as the Object Detection API's example decoder asks for them."""
    keys = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/format": tf.io.FixedLenFeature((), tf.string, default_value="jpeg"),
        "image/filename": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/key/sha256": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/source_id": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/height": tf.io.FixedLenFeature((), tf.int64, default_value=1),
        "image/width": tf.io.FixedLenFeature((), tf.int64, default_value=1),
        "image/object/bbox/xmin": tf.io.VarLenFeature(tf.float32),
        "image/object/bbox/xmax": tf.io.VarLenFeature(tf.float32),
        "image/object/bbox/ymin": tf.io.VarLenFeature(tf.float32),
        "image/object/bbox/ymax": tf.io.VarLenFeature(tf.float32),
        "image/object/class/label": tf.io.VarLenFeature(tf.int64),
        "image/object/class/text": tf.io.VarLenFeature(tf.string),
        "image/object/area": tf.io.VarLenFeature(tf.float32),
        "image/object/is_crowd": tf.io.VarLenFeature(tf.int64),
        "image/object/keypoint/x": tf.io.VarLenFeature(tf.float32),
        "image/object/keypoint/y": tf.io.VarLenFeature(tf.float32),
        "image/object/keypoint/visibility": tf.io.VarLenFeature(tf.int64),
    }
    dense = parsed_dense(payload, keys)
    sides = [dense[f"image/object/bbox/{side}"] for side in ("ymin", "xmin", "ymax", "xmax")]
    places = [dense[f"image/object/keypoint/{axis}"] for axis in ("y", "x")]
    visible = tf.reshape(dense["image/object/keypoint/visibility"], [-1, num_keypoints]) > 0
    keypoints = tf.reshape(tf.stack(places, axis=1), [-1, num_keypoints, 2])  # (N, K, 2) of y, x
    return {
        "image": tf.io.decode_image(dense["image/encoded"], channels=3, expand_animations=False),
        "source_id": dense["image/source_id"],
        "boxes": tf.stack(sides, axis=1),
        "classes": dense["image/object/class/label"],
        "class_text": dense["image/object/class/text"],
        "is_crowd": tf.cast(dense["image/object/is_crowd"], tf.bool),
        "area": dense["image/object/area"],
        "keypoints": tf.where(visible[..., None], keypoints, float("nan")),
        "keypoint_visibilities": visible,
    }


def test_an_object_detection_style_reader_gets_boxes_classes_and_keypoints(tiny_shards):
    dataset = Dataset.open(tiny_shards)
    paths = [str(dataset.shard_path(shard)) for shard in dataset["train"].shards]
    k = len(dataset.skeleton)
    decoded = tf.data.TFRecordDataset(paths).map(lambda data: object_detection_decode(data, k))
    for tensors, sample in zip(decoded.as_numpy_iterator(), dataset["train"], strict=True):
        n, (height, width) = len(sample.instances), tensors["image"].shape[:2]
        assert (width, height) == (sample.image.width, sample.image.height)
        assert tensors["source_id"].decode() == sample.key
        assert tensors["keypoints"].shape == (n, k, 2)
        assert tensors["boxes"].shape == (n, 4)
        assert tensors["class_text"].tolist() == [b"person"] * n
        assert tensors["classes"].tolist() == [1] * n
        assert not tensors["is_crowd"].any()
        for i, instance in enumerate(sample.instances):
            yx = tensors["keypoints"][i] * (height, width)
            expected = np.where(instance.visibility[:, None] > 0, instance.xy, np.nan)
            np.testing.assert_allclose(yx[:, ::-1], expected, atol=1e-3)
            np.testing.assert_array_equal(
                tensors["keypoint_visibilities"][i], instance.visibility > 0
            )
            box = tensors["boxes"][i] * (height, width, height, width)
            np.testing.assert_allclose(box[[1, 0, 3, 2]], instance.bbox_xyxy, atol=1e-3)
            assert tensors["area"][i] == pytest.approx(instance.area)
