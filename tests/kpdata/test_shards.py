"""Reading a shard folder: whole, in order, and clear about what is wrong."""

import json
from itertools import pairwise

import numpy as np
import pytest

import kpdata
from kpdata.core.errors import DatasetError
from kpdata.core.skeletons import COCO17
from kpdata.core.splits import stable_hash
from kpdata.images import codec
from kpdata.shards.dataset import Dataset, read_record


def test_a_dataset_tells_its_skeleton_and_splits(tiny_shards):
    dataset = kpdata.open(str(tiny_shards))
    assert dataset.skeleton.keypoints == COCO17.keypoints
    assert dataset.splits == ("train", "val", "test")
    assert [len(dataset[split]) for split in dataset.splits] == [12, 4, 2]
    assert [len(dataset.manifest.splits[split].shards) for split in dataset.splits] == [2, 1, 1]


def test_iterating_gives_every_record_of_every_shard_once(tiny_shards):
    dataset = Dataset.open(tiny_shards)
    for split in dataset.splits:
        samples = list(dataset[split])
        by_shard = [s for shard in dataset[split].shards for _, s in dataset.read_shard(shard)]
        assert samples == by_shard
        assert len({(s.key, s.view.copy) for s in samples}) == len(samples) == len(dataset[split])
    everything = {s.key for split in dataset.splits for s in dataset[split]}
    assert everything == {str(number) for number in range(1, 13)}


def test_originals_carry_the_files_own_bytes_and_the_annotations_coordinates(
    tiny_shards, tiny_coco
):
    coco = json.loads((tiny_coco / "annotations.json").read_text())
    people = {}
    for annotation in coco["annotations"]:
        people.setdefault(str(annotation["image_id"]), []).append(annotation)
    dataset = Dataset.open(tiny_shards)
    originals = [s for split in dataset.splits for s in dataset[split] if not s.view.copy]
    assert len(originals) == 12
    for sample in originals:
        assert sample.image.data == (tiny_coco / "images" / sample.image.name).read_bytes()
        np.testing.assert_array_equal(sample.view.transform, np.eye(2, 3))
        assert [i.id for i in sample.instances] == [a["id"] for a in people[sample.key]]
        for instance, annotation in zip(sample.instances, people[sample.key], strict=True):
            expected = np.reshape(annotation["keypoints"], (17, 3))
            expected[expected[:, 2] > 0, :2] += 0.5  # pixel indices → continuous pixels
            np.testing.assert_allclose(instance.keypoints, expected, atol=0.01)
            assert instance.area == pytest.approx(annotation["area"])


def test_pixels_have_the_size_that_the_record_states(tiny_shards):
    for sample in Dataset.open(tiny_shards)["train"]:
        assert (
            codec.decode_stored(sample.image).shape
            == (sample.image.height, sample.image.width, 3)
            == (48, 64, 3)
        )


def test_records_lie_in_the_order_of_their_hash(tiny_shards):
    """Hence shuffled: neighbours in the source are strangers in a shard."""
    keys = [s.key for s in Dataset.open(tiny_shards)["train"] if not s.view.copy]
    assert sorted(keys, key=stable_hash) == keys
    assert keys != sorted(keys, key=int)


def test_a_record_is_found_from_any_working_directory(tiny_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_shards.parent)
    dataset = Dataset.open(tiny_shards.name)
    shard = dataset["train"].shards[0]
    offset, sample = next(dataset.read_shard(shard))
    uri = dataset.record_uri(shard, offset)
    monkeypatch.chdir(tmp_path)
    assert read_record(uri) == sample


def test_an_unknown_split_is_told_which_there_are(tiny_shards):
    with pytest.raises(DatasetError, match="has no split 'dev'; it has train, val, test"):
        Dataset.open(tiny_shards)["dev"]


def test_a_folder_that_is_no_dataset_says_so(tmp_path):
    with pytest.raises(DatasetError, match="is not a dataset"):
        kpdata.open(tmp_path)


def test_a_missing_shard_is_named(shards):
    dataset = Dataset.open(shards)
    path = dataset.shard_path(dataset["val"].shards[0])
    path.unlink()
    with pytest.raises(DatasetError, match=f"{path} is missing: the manifest lists it"):
        list(dataset["val"])


def test_a_damaged_record_is_named_with_shard_number_and_offset(shards):
    dataset = Dataset.open(shards)
    shard = dataset["train"].shards[1]
    path = dataset.shard_path(shard)
    offsets = [offset for offset, _ in dataset.read_shard(shard)]
    data = bytearray(path.read_bytes())
    data[offsets[3] + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=f"{path}: record 3 at byte {offsets[3]}: .*damaged"):
        list(dataset["train"])


def test_a_record_of_another_skeleton_is_named_with_shard_number_and_offset(shards, reseal):
    content = json.loads((shards / "kpdata.json").read_text())
    content["skeleton"] = {"name": "two", "keypoints": ["a", "b"]}
    for split in content["splits"].values():
        split["visibility"] = split["visibility"][:2]
    (shards / "kpdata.json").write_text(json.dumps(content))
    reseal(shards)
    with pytest.raises(
        DatasetError, match=r"tfrecord: record 0 at byte 0: feature \S+ has \d+ values, expected"
    ):
        list(Dataset.open(shards)["train"])


def test_one_record_is_found_by_its_uri(tiny_shards):
    dataset = Dataset.open(tiny_shards)
    shard = dataset["train"].shards[0]
    found = list(dataset.read_shard(shard))
    assert all(first < second for (first, _), (second, _) in pairwise(found))
    for offset, sample in found:
        assert read_record(dataset.record_uri(shard, offset)) == sample


def test_a_uri_into_a_shard_that_was_cut_meanwhile_says_so(shards):
    dataset = Dataset.open(shards)
    shard = dataset["train"].shards[0]
    *_, (offset, _) = dataset.read_shard(shard)
    uri, path = dataset.record_uri(shard, offset), dataset.shard_path(shard)
    for cut in (offset, offset + 5):
        with open(path, "r+b") as file:
            file.truncate(cut)
        with pytest.raises(DatasetError, match=f"at byte {offset}: the file is cut short"):
            read_record(uri)
