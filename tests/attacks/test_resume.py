"""What an interrupted conversion left is kept only if it is still what was written."""

import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from kpdata.checks.verify import verify
from kpdata.core.sample import ImageRef, Instance, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats.base import Source
from kpdata.pipelines.conversion import Conversion, convert
from kpdata.pipelines.request import Request

SKELETON = Skeleton("one", ("a",))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:02}.png"), pixels)
    return folder


def source(images):
    samples = [
        Sample(path.name, ImageRef(path.name), (Instance(np.array([[3, 4, 2]], np.float32)),))
        for path in sorted(images.iterdir())
    ]
    return Source(SKELETON, iter(samples), images, (), Counter(), has_boxes=False)


def interrupted(images, out):
    """A conversion that was stopped before it was sealed, all of its shards written."""
    found = source(images)
    request = Request.of(found, format="json", shards=3)
    with Conversion.plan(found, request, out) as conversion:
        for shard in conversion.shards:
            conversion.write_function()(shard)
    return request


def resumed(images, out, request):
    outcome = convert(source(images), request, out)
    assert verify(out)[1] == []
    return outcome


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_whole_shards_are_kept(images, tmp_path):
    request = interrupted(images, tmp_path / "out")
    outcome = resumed(images, tmp_path / "out", request)
    assert (outcome.kept_samples, outcome.written_samples) == (30, 0)


@pytest.mark.parametrize("at", [0, 200, -1])
def test_a_flipped_byte_in_a_finished_shard_has_it_written_anew(images, tmp_path, at):
    fresh = convert(source(images), interrupted(images, tmp_path / "a"), tmp_path / "a")
    request = interrupted(images, tmp_path / "out")
    shard = min((tmp_path / "out").glob("*.tfrecord"))
    flip(shard, at)
    outcome = resumed(images, tmp_path / "out", request)
    assert outcome.written_samples > 0
    assert outcome.manifest.root_hash == fresh.manifest.root_hash


def test_every_changed_byte_of_a_report_has_its_shard_written_anew(images, tmp_path):
    request = interrupted(images, tmp_path / "whole")
    fresh = convert(source(images), request, tmp_path / "fresh").manifest.root_hash
    report = min((tmp_path / "whole/.kpdata/reports").iterdir()).name
    size = (tmp_path / "whole/.kpdata/reports" / report).stat().st_size
    for at in range(0, size - 1, max(1, size // 12)):
        out = tmp_path / f"out{at}"
        shutil.copytree(tmp_path / "whole", out)
        flip(out / ".kpdata/reports" / report, at)
        outcome = resumed(images, out, request)
        assert outcome.written_samples > 0
        assert outcome.manifest.root_hash == fresh


def test_shards_of_one_size_that_were_exchanged_are_written_anew(images, tmp_path):
    request = interrupted(images, tmp_path / "out")
    fresh = convert(source(images), request, tmp_path / "fresh").manifest.root_hash
    first, second, *_ = sorted((tmp_path / "out").glob("*.tfrecord"))
    data = second.read_bytes()
    size = first.stat().st_size
    first.write_bytes((data * (size // len(data) + 1))[:size])
    assert resumed(images, tmp_path / "out", request).manifest.root_hash == fresh
