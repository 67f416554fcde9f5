"""Names that some disk or reader refuses: both writers change them, and lose no sample."""

import json
import os

import numpy as np
import pytest

import kpdata
from kpdata.core.sample import ImageRef, Instance, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats._lib.writing import SAFE
from kpdata.formats.coco import read as coco
from kpdata.formats.coco import write as coco_writer
from kpdata.formats.yolo import read as yolo
from kpdata.formats.yolo import write as yolo_writer
from kpdata.images import codec
from kpdata.storage.names import safe_name

PNG = codec.encode(np.arange(8 * 6 * 3, dtype=np.uint8).reshape(6, 8, 3), "png")
SKELETON = Skeleton("dart", ("tip", "tail"))
LONG = "x" * 255
NAMES = {
    "./x.png": "x.png",
    "./": "image",
    "": "image",
    ".": "image",
    "a//b.png": "a/b.png",
    "a/./b.png/": "a/b.png",
    "a:b.png": "a%3Ab.png",
    "C:/b.png": "C%3A/b.png",
    "d\\b.png": "d/b.png",
    "line\nend\x1b[2J\x9b.png": "line%0Aend%1B[2J%C2%9B.png",
    "caf\udce9.png": "caf%E9.png",
    "dir\udcff/b.png": "dir%FF/b.png",
    LONG: f"{'x' * 226}~a67e38b5",
    f"{'y' * 251}.png": f"{'y' * 222}~cbf24a82.png",
    f"{'ü' * 127}/{'ü' * 125}.png": None,
    "plain é 人.png": "plain é 人.png",
    "50%20off?*.png": "50%20off?*.png",
}


def written(writer, samples, out):
    return writer.write(samples, SKELETON, out, max_quarantine=0.0)


def sample(number, name):
    dart = Instance(np.array([[1, 2, 2], [3, 4, 2]]), np.array([1, 1, 5, 5]))
    return Sample(str(number), ImageRef(name=name, data=PNG), (dart,), split="train")


@pytest.mark.parametrize(("name", "safe"), NAMES.items(), ids=range(len(NAMES)))
def test_a_name_becomes_one_that_any_disk_takes(name, safe):
    found = safe_name(name.replace("\\", "/"))
    assert safe in (None, found)
    assert safe_name(found) == found
    assert all(0 < len(part.encode()) <= 235 for part in found.split("/"))


@pytest.mark.parametrize(
    ("writer", "read", "file"),
    [(coco_writer, coco, "train.json"), (yolo_writer, yolo, "data.yaml")],
    ids=["coco", "yolo"],
)
def test_all_names_are_written_and_read_back(tmp_path, writer, read, file):
    twins = ["a%3Ab.png", "./x.png", "x.png", "a/b.png", f"{LONG[:-1]}y"]
    samples = [sample(number, name) for number, name in enumerate([*NAMES, *twins])]
    counts = written(writer, samples, tmp_path / "out")
    assert counts["images"] == len(samples)
    assert counts[SAFE] == len(NAMES) - 2 + 2
    again = list(read.read(tmp_path / "out" / file).samples)
    assert len({one.image.name for one in again}) == len(samples)
    assert all(isinstance(one, Sample) and len(one.instances) == 1 for one in again)
    first = sorted(os.walk(tmp_path / "out" / "images"))[0]
    written(writer, samples, tmp_path / "twice")
    assert sorted(os.walk(tmp_path / "twice" / "images"))[0][1:] == first[1:]


def test_shards_with_odd_names_are_written_back(tmp_path):
    folder = tmp_path / "images"
    for name in (names := ["x.png", "a/b.png", "a:b.png", LONG]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)
    annotation = {"category_id": 1, "keypoints": [1, 2, 2], "bbox": [1, 1, 4, 4], "area": 16}
    given = ["./x.png", "a//b.png", *names[2:]]
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(given, start=1)],
        "annotations": [{"id": n, "image_id": n, **annotation} for n in range(1, 5)],
        "categories": [{"id": 1, "name": "boat", "keypoints": ["bow"]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    labels = kpdata.read(tmp_path / "a.json", folder)
    shards = kpdata.convert(labels, tmp_path / "shards", split="train=100", progress=False)
    for name in ("coco", "yolo"):
        counts = kpdata.write(shards, tmp_path / name, format=name, progress=False)
        assert counts["images"] == 4
        assert counts[SAFE] == 4


def test_files_whose_names_are_not_utf_8_are_written(tmp_path):
    for folder, suffix, data in (
        ("images", ".png", PNG),
        ("labels", ".txt", b"0 .5 .5 1 1 .5 .5 2"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / os.fsdecode(b"caf\xe9" + suffix.encode())).write_bytes(data)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [boat]\nkpt_shape: [1, 3]\n")
    for name in ("coco", "yolo"):
        labels = kpdata.read(tmp_path / "data.yaml")
        counts = kpdata.write(labels, tmp_path / "out" / name, format=name, progress=False)
        assert counts["images"] == counts[SAFE] == 1
    assert [p.name for p in (tmp_path / "out/yolo/images/train").iterdir()] == ["caf%E9.png"]
