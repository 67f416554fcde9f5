"""What asks for much memory or time is bounded, and says so."""

import json
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

import kpdata as kp
from kpdata.core.errors import FormatError, SchemaError
from kpdata.core.skeleton import Skeleton
from kpdata.formats import read
from kpdata.formats.base import Source
from kpdata.pipelines.conversion import convert
from kpdata.pipelines.plan.make import ShardPlan
from kpdata.pipelines.request import Request
from kpdata.pipelines.run.worker_count import worker_count
from kpdata.shards.manifest import read_manifest


def test_workers_are_no_more_than_memory_and_shards_allow(monkeypatch):
    request = Request(skeleton=Skeleton("one", ("a",)), workers=300, crop=64)
    pending = [ShardPlan(f"{n}", "train", 1000, "") for n in range(1000)]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 1 << 30}))
    assert worker_count(request, pending) == 5
    assert worker_count(request, pending[:3]) == 3


def test_names_in_counts_are_bounded(tmp_path, tiny_coco):
    source = read("coco", tiny_coco / "annotations.json")
    names = Counter({f"keys not read: {n:06}": 1 for n in range(100_000)})
    names["keys not read: usual"] = 50
    crowded = Source(
        source.skeleton, source.samples, source.images_root, source.annotation_files, names,
        source.has_boxes,
    )  # fmt: skip
    convert(crowded, Request.of(crowded, format="coco"), tmp_path / "out")
    counts = read_manifest(tmp_path / "out").counts
    assert len(counts) < 600
    assert counts["keys not read: usual"] == 50
    assert sum(n for what, n in counts.items() if what.startswith("others, under")) > 99_000


def test_a_preview_of_too_many_pictures_is_refused(tiny_coco, tmp_path):
    words = ["augment-preview", "coco", tiny_coco / "annotations.json", "--rows", 100]
    words += ["--augment", 1000, "--out", tmp_path / "sheet.png"]
    command = [sys.executable, "-m", "kpdata", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "which are 100,100 pictures: a sheet holds at most 2,000" in result.stderr


def test_shards_are_not_converted_into_their_own_folder(tiny_shards, tmp_path):
    for path in tiny_shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FormatError, match="which lies in"):
        kp.convert(kp.open(tmp_path), tmp_path / "inner", progress=False)
    assert not (tmp_path / "inner").exists()


def test_a_json_file_of_many_keys_is_read_in_time(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"")
    (tmp_path / "labels").mkdir()
    value = {f"key {n}": [1, 2] for n in range(100_000)}
    (tmp_path / "labels" / "1.json").write_text(json.dumps(value))
    before = time.process_time()
    with pytest.raises(SchemaError, match="100,000 names, at most 1,000 are read"):
        read("json", tmp_path / "labels")
    assert time.process_time() - before < 10
