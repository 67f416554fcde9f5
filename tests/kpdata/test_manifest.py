"""The manifest: trusted in nothing when read, whole or absent when written."""

import json
import re

import pytest

from kpdata.core.errors import DatasetError
from kpdata.core.skeletons import COCO17
from kpdata.shards.manifest import MANIFEST, compute_root_hash, read_manifest, write_manifest
from kpdata.storage.atomic import write_atomically
from kpdata.storage.files import file_blake3, file_sha256


def edit(shards, **changes):
    """Replace values in ``kpdata.json``; a double underscore leads one level down."""
    content = json.loads((shards / MANIFEST).read_text())
    for path, value in changes.items():
        *above, key = path.split("__")
        place = content
        for name in above:
            place = place[name]
        place[key] = value
    (shards / MANIFEST).write_text(json.dumps(content))


def test_what_was_written_is_read(shards):
    manifest = read_manifest(shards)
    again = write_manifest(shards, manifest)
    assert again == manifest == read_manifest(shards)
    assert list(manifest.splits) == ["train", "val", "test"]
    assert manifest.skeleton == COCO17
    assert manifest.splits["train"].copies == manifest.splits["train"].samples == 6
    assert len(manifest.splits["train"].shards) == 2


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"software": {"kpdata": "9"}}, True),
        ({"root_hash": "0"}, True),
        ({"skeleton__name": "other"}, False),
        ({"mapping": [{"name": "nose", "how": "missing"}]}, False),
        ({"source__format": "other"}, False),
        ({"options__seed": 1}, False),
        ({"splits__train__copies": 0}, False),
        ({"counts__something": 1}, False),
        ({"quarantine__image missing": 1}, False),
        ({"quarantine_sha256": "0"}, False),
        ({"sizes__max_width": 1}, False),
        ({"references": "0"}, False),
        ({"source__options": {"category": "cat"}}, False),
    ],
)
def test_the_root_hash_covers_all_but_the_software(shards, changes, same):
    before = read_manifest(shards)
    assert compute_root_hash(before) == before.root_hash
    edit(shards, **changes)
    after = read_manifest(shards)
    assert after != before
    assert (compute_root_hash(after) == before.root_hash) == same


def test_the_root_hash_does_not_depend_on_the_order_of_keys(shards):
    content = json.loads((shards / MANIFEST).read_text())
    content["options"] = dict(reversed(content["options"].items()))
    (shards / MANIFEST).write_text(json.dumps(content))
    manifest = read_manifest(shards)
    assert compute_root_hash(manifest) == manifest.root_hash


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"not json",
        b"\0" * 1000,
        b"\xff\xfe",
        b'{"options": {"a": "\xff"}}',
        b"[" * 1_000_000,
        b'{"options": {"a": ' + b"[" * 1_000_000,
        b'{"schema_version": 1e400}',
    ],
)
def test_a_damaged_manifest_is_named(shards, data):
    (shards / MANIFEST).write_bytes(data)
    with pytest.raises(DatasetError, match=r"kpdata\.json: not a manifest: "):
        read_manifest(shards)


def test_a_manifest_cut_anywhere_is_refused(shards):
    data = (shards / MANIFEST).read_bytes().rstrip()
    for cut in range(0, len(data), 97):
        (shards / MANIFEST).write_bytes(data[:cut])
        with pytest.raises(DatasetError, match="not a manifest"):
            read_manifest(shards)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 1}, "schema version 1, this kpdata reads 2: convert the annotations"),
        ({"schema_version": 3, "new": 1}, "schema version 3, this kpdata reads 2: convert"),
        ({"schema_version": "1"}, r"Expected `int`, got `str` - at `\$\.schema_version`"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"splits__train__records": "many"}, r"got `str` - at `\$\.splits\[...\]\.records`"),
        ({"splits__train__shards": None}, r"got `null` - at `\$\.splits\[...\]\.shards`"),
        ({"skeleton__keypoints": ["a", "a"]}, "keypoints: the name 'a' is given twice"),
        ({"skeleton__edges": [["nose", "x"]]}, "edges: 'x' is not among the keypoints"),
    ],
)
def test_a_manifest_with_wrong_values_says_which(shards, changes, message):
    edit(shards, **changes)
    with pytest.raises(DatasetError, match=message) as caught:
        read_manifest(shards)
    assert str(caught.value).startswith(f"{shards / MANIFEST}: ")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "../train-00000-of-00001.tfrecord",
        "/etc/passwd",
        "sub/train-00000-of-00001.tfrecord",
        "train-00000-of-00001.tfrecord\n",
        "train-0-of-1.tfrecord",
        "train-00001-of-00002.tfrecord",
        "train-00000-of-00003.tfrecord",
        "test-00000-of-00002.tfrecord",
        "",
    ],
)
def test_a_shards_name_is_that_of_its_place_and_can_never_lead_out_of_the_folder(shards, name):
    content = json.loads((shards / MANIFEST).read_text())
    content["splits"]["train"]["shards"][0]["name"] = name
    (shards / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=re.escape(f"{name!r} is not the name of shard 0")):
        read_manifest(shards)


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/escaped", "Train", "a/b", "a-b", "", "a\n"]
)
def test_a_splits_name_can_never_lead_out_of_a_folder(shards, name):
    content = json.loads((shards / MANIFEST).read_text())
    content["splits"][name] = content["splits"].pop("train") | {"shards": []}
    (shards / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=re.escape(f"{name!r} is not a split's name")):
        read_manifest(shards)


@pytest.mark.parametrize("rows", [0, 16, 18])
def test_visibility_is_counted_for_each_keypoint_of_the_skeleton(shards, rows):
    edit(shards, splits__val__visibility=[[0, 0, 0]] * rows)
    expected = f"split val counts visibility for {rows} keypoints, the skeleton has 17"
    with pytest.raises(DatasetError, match=expected):
        read_manifest(shards)


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match=r"is not a dataset: it has no kpdata\.json.*same comm"):
        read_manifest(tmp_path)
    with pytest.raises(DatasetError, match="is not a dataset"):
        read_manifest(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_and_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        DatasetError, match=r"file is a file: give the folder that holds kpdata\.json"
    ):
        read_manifest(tmp_path / "file")
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(DatasetError, match=r"kpdata\.json: Is a directory"):
        read_manifest(tmp_path)


def test_a_manifest_of_absurd_size_is_not_read(tmp_path):
    with open(tmp_path / MANIFEST, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DatasetError, match="larger than any manifest"):
        read_manifest(tmp_path)


def test_an_atomic_write_replaces_or_leaves_the_old(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kpdata.storage.atomic.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"never")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_hashes_of_a_file_are_the_standard_ones(tmp_path):
    """The values for "abc" of FIPS 180-4 and of BLAKE3's own test tools."""
    (tmp_path / "a").write_bytes(b"abc")
    assert file_blake3(tmp_path / "a") == (
        "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    )
    assert file_sha256(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
