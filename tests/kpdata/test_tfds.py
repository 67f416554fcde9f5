"""TensorFlow Datasets opens a shard folder as it is."""

import json

import numpy as np
import pytest

from kpdata.images import codec
from kpdata.shards import records
from kpdata.shards.dataset import Dataset

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS is not installed")

ARRAYS = {
    "image/object/area": lambda i: i.area,
    "image/object/is_crowd": lambda i: i.is_crowd,
    "image/object/class/label": lambda i: i.category_id,
    "image/object/id": lambda i: i.id,
    "image/object/keypoint/num": lambda i: i.num_labelled,
}


@pytest.fixture(scope="module")
def builder(tiny_shards):
    return tfds.builder_from_directory(str(tiny_shards))


def test_the_splits_and_their_shards_are_those_of_the_manifest(builder, tiny_shards):
    dataset = Dataset.open(tiny_shards)
    assert set(builder.info.splits) == set(dataset.splits)
    for split in dataset.splits:
        info = builder.info.splits[split]
        assert info.num_examples == len(dataset[split])
        assert info.shard_lengths == [shard.records for shard in dataset[split].shards]
        assert info.num_bytes == sum(shard.bytes for shard in dataset[split].shards)
        assert info.filenames == [shard.name for shard in dataset[split].shards]


def test_every_feature_of_the_wire_is_declared(builder):
    assert set(builder.info.features) == {name for name, _, _ in records.FEATURES}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_value_of_every_split_is_ours(builder, tiny_shards, split):
    samples = list(Dataset.open(tiny_shards)[split])
    found = list(tfds.as_numpy(builder.as_dataset(split=split)))
    assert len(found) == len(samples)
    names = ("image/source_id", "kpdata/copy")
    by_name = {tuple(example[name] for name in names): example for example in found}
    for sample in samples:
        example = by_name[sample.key.encode(), sample.view.copy]
        size = np.array([sample.image.width, sample.image.height])
        keypoints = np.concatenate([i.keypoints for i in sample.instances])
        for axis, name in enumerate("xy"):
            normalised = keypoints[:, axis] / size[axis]
            np.testing.assert_allclose(
                example[f"image/object/keypoint/{name}"], normalised, rtol=1e-5
            )
        np.testing.assert_array_equal(example["image/object/keypoint/visibility"], keypoints[:, 2])
        boxes = np.array([i.bbox_xyxy for i in sample.instances]) / np.tile(size, 2)
        for place, side in enumerate(("xmin", "ymin", "xmax", "ymax")):
            np.testing.assert_allclose(
                example[f"image/object/bbox/{side}"], boxes[:, place], rtol=1e-5
            )
        for name, value in ARRAYS.items():
            expected = [value(instance) for instance in sample.instances]
            np.testing.assert_allclose(example[name], expected, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(example["kpdata/transform"], sample.view.transform.ravel())
        assert example["image/filename"] == sample.image.name.encode()
        assert example["image/key/sha256"] == sample.image.sha256.encode()
        assert example["kpdata/group"] == sample.group.encode()
        assert example["image/object/class/text"].tolist() == [b"person"] * len(sample.instances)
        assert example["image/encoded"].shape == codec.decode_stored(sample.image).shape
        difference = np.abs(
            example["image/encoded"].astype(int) - codec.decode_stored(sample.image)
        )
        assert difference.mean() < 3  # two JPEG decoders round differently


def test_the_metadata_is_part_of_no_hash_and_has_no_foreign_key(tiny_shards):
    info = json.loads((tiny_shards / "dataset_info.json").read_text())
    assert info["fileFormat"] == "tfrecord"
    assert info["description"] == "coco17 keypoints from coco"
    lengths = [length for split in info["splits"] for length in split["shardLengths"]]
    assert all(isinstance(length, str) for length in lengths)
