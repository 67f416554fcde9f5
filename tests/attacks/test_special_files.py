"""Pipes, devices and files without an end in the place of files: a message, at once."""

import os
import threading

import pytest

import kpdata as kp
from kpdata.checks.verify import verify
from kpdata.core.errors import KpdataError
from kpdata.formats import read
from kpdata.formats.settings import load_config, load_skeleton
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import MANIFEST, QUARANTINE
from kpdata.storage.atomic import write_atomically
from kpdata.storage.bounded import open_regular, read_bounded
from kpdata.train.infer import media
from kpdata.train.run.folder import RunFolder

KINDS = ["pipe", "/dev/zero", "/proc/kmsg"]


def put(kind, path):
    """Let ``path`` be such a file; the real devices are only linked to."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
    return path


@pytest.fixture(params=KINDS)
def special(request):
    return lambda path: put(request.param, path)


@pytest.mark.parametrize("name", ["data.yaml", "a.json", "joints.mat", "CollectedData_me.csv"])
def test_annotations(special, tmp_path, name):
    path = special(tmp_path / name)
    form = {"yaml": "yolo", "json": "coco", "mat": "lsp", "csv": "deeplabcut"}[name.split(".")[1]]
    with pytest.raises(KpdataError):
        read(form, path)


def test_what_is_to_be_recognised(special, tmp_path):
    with pytest.raises(KpdataError, match="a: cannot be read: it is a pipe or a device"):
        kp.read(special(tmp_path / "a"))


@pytest.mark.parametrize("load", [load_skeleton, load_config])
def test_settings(special, tmp_path, load):
    with pytest.raises(KpdataError, match=r"cannot read|not a (JSON|TOML)"):
        load(special(tmp_path / "settings.json"))


def test_a_manifest(special, tmp_path):
    special(tmp_path / MANIFEST)
    with pytest.raises(KpdataError, match=MANIFEST):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("name", [QUARANTINE, "dataset_info.json"])
def test_files_beside_a_manifest(special, tmp_path, tiny_shards, name):
    for path in tiny_shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    special(tmp_path / name)
    _, faults = verify(tmp_path)
    assert any(name in fault for fault in faults)


def test_a_shard(special, tmp_path, tiny_shards):
    for path in tiny_shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    special(min(tmp_path.glob("*.tfrecord")))
    _, faults = verify(tmp_path)
    assert faults


@pytest.mark.parametrize("name", ["config.json", "state.json", "dataset.json"])
def test_a_run(special, tmp_path, name):
    special(tmp_path / name)
    folder = RunFolder(tmp_path)
    load = {"config.json": folder.config, "state.json": folder.state, "dataset.json": folder.info}
    with pytest.raises(KpdataError):
        load[name]()


def test_a_video(special, tmp_path):
    path = special(tmp_path / "clip.mp4")
    item = media.Item(path, "clip", None)
    with pytest.raises(KpdataError, match="no frame of it"):
        list(media.read(item))


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"abc"
    assert read_bounded(tmp_path / "a", 3) == b"abc"


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    heard = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_atomically(tmp_path / "pipe", b"certificate")
    reader.join(timeout=20)
    assert heard == [b"certificate"]
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "null").symlink_to(os.devnull)
    write_atomically(tmp_path / "null", b"certificate")
    assert (tmp_path / "null").is_symlink()
    assert (tmp_path / "null").is_char_device()


def test_the_file_that_a_link_names_is_replaced(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
