"""``verify`` finds every kind of damage, forgery and leak, and nothing in a sound dataset."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kpdata.checks.verify import verify
from kpdata.core.errors import DatasetError
from kpdata.core.progress import Progress
from kpdata.core.sample import Sample
from kpdata.core.skeletons import COCO17
from kpdata.shards import records, tfds, tfrecord
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import MANIFEST, QUARANTINE, Manifest, read_manifest, write_manifest
from kpdata.shards.wire.example_pb2 import Example
from kpdata.storage.files import file_blake3

Payloads = list[bytes]


def faults(folder: Path) -> str:
    """All faults, a line each."""
    return "\n".join(verify(folder)[1])


def shard_paths(folder: Path, split: str = "train") -> list[Path]:
    return [folder / shard.name for shard in read_manifest(folder).splits[split].shards]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x20
    path.write_bytes(data)


def reseal(folder: Path, **changes: Any) -> None:
    """Forge: replace values (``split__train__records``), then give the root hash that fits."""
    content = json.loads((folder / MANIFEST).read_text())
    for path, value in changes.items():
        *above, key = path.split("__")
        place = content
        for name in above:
            place = place[int(name) if name.isdigit() else name]
        place[key] = value
    (folder / MANIFEST).write_text(json.dumps(content))
    seal(folder, read_manifest(folder))


def seal(folder: Path, manifest: Manifest) -> None:
    """Forge: what follows from the manifest follows it."""
    write_manifest(folder, manifest)
    for name, content in tfds.metadata(manifest).items():
        (folder / name).write_bytes(content)


def rewrite(folder: Path, split: str, change: Callable[[Payloads], Sequence[bytes]]) -> None:
    """Forge: change the payloads of a split's first shard; every CRC and hash fits."""
    manifest = read_manifest(folder)
    path = shard_paths(folder, split)[0]
    payloads = [payload for _, payload in tfrecord.read(path)]
    with tfrecord.Writer(path) as writer:
        for payload in change(payloads):
            writer.write(payload)
    info = manifest.splits[split]
    shard = msgspec.structs.replace(
        info.shards[0], records=writer.records, bytes=writer.bytes, blake3=writer.blake3
    )
    info = msgspec.structs.replace(info, shards=(shard, *info.shards[1:]))
    splits = manifest.splits | {split: info}
    seal(folder, msgspec.structs.replace(manifest, splits=splits))


def first(folder: Path, split: str, copy: int = 0) -> Sample:
    return next(s for s in Dataset.open(folder)[split] if s.view.copy == copy)


def with_sample(sample: Sample) -> Callable[[Payloads], Sequence[bytes]]:
    """A change that puts ``sample`` in place of the first record."""
    return lambda payloads: [records.encode(sample), *payloads[1:]]


def test_a_sound_dataset_has_no_fault(tiny_shards):
    seen = []

    class Count(Progress):
        def advance(self, count: int = 1) -> None:
            seen.append(count)

    manifest, found = verify(tiny_shards, Count())
    assert found == []
    assert manifest == read_manifest(tiny_shards)
    shards = [shard for info in manifest.splits.values() for shard in info.shards]
    assert seen == [1] * len(shards)


def test_a_folder_without_a_manifest_is_no_dataset(shards):
    (shards / MANIFEST).unlink()
    with pytest.raises(DatasetError, match="is not a dataset"):
        verify(shards)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_placed(shards, part):
    path = shard_paths(shards)[1]
    flip(path, int(part * path.stat().st_size))
    message = faults(shards)
    assert f"{path}: record " in message
    assert "CRC does not match" in message


@pytest.mark.parametrize("removed", [1, 17, 1000])
def test_a_truncated_shard_is_found(shards, removed):
    path = shard_paths(shards)[0]
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size - removed)
    expected = f"{path} has {size - removed:,} bytes, the manifest says {size:,}"
    assert expected in faults(shards)


def test_a_missing_shard_is_found(shards):
    path = shard_paths(shards)[0]
    path.unlink()
    assert f"{path} is missing: the manifest lists it" in faults(shards)


def test_an_extra_shard_is_found(shards):
    extra = shards / "train-00009-of-00010.tfrecord"
    extra.write_bytes(shard_paths(shards)[0].read_bytes())
    assert faults(shards) == f"{extra} is not in the manifest"


def test_swapped_shards_are_found(shards):
    """Of equal size, so that only the hash tells them apart."""
    one, other = shard_paths(shards)
    payloads = [payload for _, payload in tfrecord.read(one)]
    rewrite(shards, "train", lambda _: payloads)
    with tfrecord.Writer(other) as writer:
        for payload in reversed(payloads):
            writer.write(payload)
    reseal(
        shards,
        splits__train__shards__1__bytes=writer.bytes,
        splits__train__shards__1__blake3=writer.blake3,
        splits__train__shards__1__records=writer.records,
    )
    assert "another file" not in faults(shards)
    one.rename(shards / "aside")
    other.rename(one)
    (shards / "aside").rename(other)
    message = faults(shards)
    for path in (one, other):
        assert f"{path}: its {len(payloads)} records are whole, but its BLAKE3 differs" in message


def test_swapped_shards_of_two_splits_are_found(shards):
    (val,), (test,) = shard_paths(shards, "val"), shard_paths(shards, "test")
    val.rename(shards / "aside")
    test.rename(val)
    (shards / "aside").rename(test)
    message = faults(shards)
    assert str(val) in message
    assert str(test) in message


@pytest.mark.parametrize(
    ("old", "new"),
    [('"seed": 2', '"seed": 1'), ("annotations.json", "other.json"), ("left_hip", "left_hop")],
)
def test_an_edited_manifest_does_not_match_its_root_hash(shards, old, new):
    text = (shards / MANIFEST).read_text()
    assert old in text
    (shards / MANIFEST).write_text(text.replace(old, new))
    assert "the manifest does not match its root hash" in faults(shards)


@pytest.mark.parametrize("what", ["samples", "records", "copies", "instances"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_forged_counts_are_found(shards, split, what):
    found = getattr(read_manifest(shards).splits[split], what)
    reseal(shards, **{f"splits__{split}__{what}": found + 1})
    expected = f"split {split} holds {found} {what}, the manifest says {found + 1}"
    assert faults(shards) == expected


def test_a_forged_record_count_of_a_shard_is_found(shards):
    reseal(shards, splits__train__shards__0__records=7)
    assert faults(shards) == f"{shard_paths(shards)[0]} holds 6 records, the manifest says 7"


def test_forged_visibility_counts_are_found(shards):
    rows = [list(row) for row in read_manifest(shards).splits["val"].visibility]
    rows[3][1] += 1
    rows[3][2] -= 1
    reseal(shards, splits__val__visibility=rows)
    assert faults(shards) == "split val: the manifest counts its keypoints' visibility otherwise"


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("change", [lambda p: p.unlink(), lambda p: p.write_text("{}\n")])
def test_changed_metadata_is_found(shards, name, change):
    change(shards / name)
    assert faults(shards) == f"{shards / name} is missing or does not follow from the manifest"


@pytest.mark.parametrize("change", [lambda p: p.unlink(), lambda p: p.write_text("{}\n")])
def test_a_changed_quarantine_is_found(shards, change):
    change(shards / QUARANTINE)
    assert faults(shards) == f"{shards / QUARANTINE} is missing or was changed"


def test_an_image_that_was_exchanged_is_found_though_every_checksum_is_right(shards):
    stated, other = first(shards, "val").image.sha256, first(shards, "train").image.data

    def exchange(payloads: Payloads) -> Payloads:
        example = Example.FromString(payloads[0])
        example.features.feature["image/encoded"].bytes_list.value[0] = other
        return [example.SerializeToString(deterministic=True), *payloads[1:]]

    rewrite(shards, "val", exchange)
    place = f"{shard_paths(shards, 'val')[0]}: record 0 at byte 0"
    assert f"{place}: image/key/sha256 is {stated}, but the image's bytes" in faults(shards)


def test_a_record_that_does_not_parse_is_found_though_every_checksum_is_right(shards):
    rewrite(shards, "val", lambda payloads: [payloads[0], b"not an example"])
    message = faults(shards)
    path = shard_paths(shards, "val")[0]
    assert f"{path}: record 1 at byte " in message
    assert "not a tf.train.Example" in message


def test_a_source_image_in_two_splits_is_found(shards):
    rewrite(shards, "test", with_sample(replace(first(shards, "train"), group="another")))
    key = first(shards, "train").key
    assert f"leak: image '{key}' is in split train and in split test" in faults(shards)


def test_a_group_in_two_splits_is_found(shards):
    group = first(shards, "train").group
    rewrite(shards, "test", with_sample(replace(first(shards, "test"), group=group)))
    assert faults(shards) == f"leak: group '{group}' is in split train and in split test"


def test_one_picture_in_two_splits_is_found_under_another_name(shards):
    train, test = first(shards, "train"), first(shards, "test")
    image = replace(test.image, data=train.image.data, sha256=train.image.sha256)
    rewrite(shards, "test", with_sample(replace(test, image=image)))
    leak = f"picture of sha256 '{train.image.sha256}' is in split train and in split test"
    assert faults(shards) == f"leak: {leak}"


def test_a_copy_outside_train_is_found(shards):
    test = first(shards, "test")
    copy = replace(test, view=replace(test.view, copy=1))
    rewrite(shards, "test", with_sample(copy))
    assert f"record 0 at byte 0: {test.key} is an augmented copy in split test" in faults(shards)


def test_a_fault_in_one_shard_does_not_hide_those_in_others(shards):
    paths = [*shard_paths(shards, "train"), *shard_paths(shards, "test")]
    for path in paths:
        flip(path, 30)
    (shards / QUARANTINE).write_text("{}\n")
    message = faults(shards)
    for path in (*paths, shards / QUARANTINE):
        assert str(path) in message


def test_the_forger_of_these_tests_leaves_no_other_trace(shards):
    """What the tests above find is the fault they made, not the forging itself."""
    before = read_manifest(shards)
    rewrite(shards, "test", lambda payloads: payloads)
    reseal(shards)
    assert read_manifest(shards) == before
    assert faults(shards) == ""
    assert file_blake3(shard_paths(shards)[0]) == before.splits["train"].shards[0].blake3
    assert before.skeleton == COCO17
