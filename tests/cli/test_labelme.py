"""``kpdata convert labelme``: from the annotator's folder to shards, and back."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import kpdata as library
from kpdata.core.skeletons import COCO17

Kpdata = Callable[..., Any]


def _shapes(annotation: dict[str, Any], group: int) -> list[dict[str, Any]]:
    """A COCO annotation as labelme's shapes, in its own coordinates."""
    x, y, width, height = annotation["bbox"]
    corners = [[x + width, y], [x, y + height]]
    box = {"label": "person", "points": corners, "group_id": group, "shape_type": "rectangle"}
    shapes = [box | {"flags": {}}]
    for name, i in zip(COCO17.keypoints, range(0, 51, 3), strict=True):
        x, y, v = annotation["keypoints"][i : i + 3]
        point = {"label": name, "points": [[x + 0.5, y + 0.5]], "shape_type": "point"}
        if v:
            shapes.append(point | {"group_id": group, "flags": {"occluded": v == 1}})
    return shapes


@pytest.fixture
def folder(tiny_coco: Path, tmp_path: Path) -> Path:
    """``tiny_coco`` as labelme would have saved it: annotations/ beside images/."""
    content = json.loads((tiny_coco / "annotations.json").read_text())
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").symlink_to(tiny_coco / "images")
    for image in content["images"]:
        found = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        shapes = [shape for group, a in enumerate(found) for shape in _shapes(a, group)]
        picture = (tiny_coco / "images" / image["file_name"]).read_bytes()
        value = {
            "version": "5.4.1", "flags": {}, "shapes": shapes,
            "imagePath": f"..\\images\\{image['file_name']}",
            "imageData": base64.b64encode(picture).decode(),
            "imageHeight": image["height"], "imageWidth": image["width"],
        }  # fmt: skip
        path = (tmp_path / "annotations" / image["file_name"]).with_suffix(".json")
        path.write_text(json.dumps(value))
    return tmp_path / "annotations"


def _instances(shards: Path) -> dict[str, list[tuple[list[Any], list[Any], str]]]:
    dataset = library.open(shards)
    return {
        sample.image.name: [
            (i.keypoints.round(2).tolist(), i.bbox_xyxy.round(2).tolist(), i.category)
            for i in sample.instances
        ]
        for split in dataset.splits
        for sample in dataset[split]
    }


@pytest.mark.parametrize("options", [[], ["--skeleton", "coco17"]])
def test_labelme_and_coco_make_the_same_of_the_same_labels(
    folder: Path, tiny_coco: Path, kpdata: Kpdata, tmp_path: Path, options: list[str]
) -> None:
    assert kpdata("convert", "labelme", folder, "--out", tmp_path / "a", *options).code == 0
    coco = tiny_coco / "annotations.json"
    assert kpdata("convert", "coco", coco, "--out", tmp_path / "b").code == 0
    assert library.open(tmp_path / "a").skeleton == COCO17
    assert _instances(tmp_path / "a") == _instances(tmp_path / "b")
    said = kpdata("inspect", tmp_path / "a").out
    assert "continuous pixels from the image's corner" in said
    assert "image paths with \\, read as /" in said
    assert "points with flag occluded, v = 1" in said


def test_images_of_another_size_and_missing_ones_are_quarantined(
    folder: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    first, second, *_ = sorted(folder.iterdir())
    for path, change in ((first, {"imageWidth": 7}), (second, {"imagePath": "none.jpg"})):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    arguments = (
        "convert",
        "labelme",
        folder,
        "--out",
        tmp_path / "out",
        "--max-quarantine",
        "50",
        "--json",
    )
    assert kpdata(*arguments).code == 0
    lines = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    reasons = {line["reason"]: line["detail"] for line in map(json.loads, lines)}
    assert set(reasons) == {"size mismatch", "image missing"}
    assert "its annotation says 7 × 48" in reasons["size mismatch"]
    assert f"{second}: $.imagePath names 'none.jpg': no such image" in reasons["image missing"]


def test_an_image_is_taken_upright_as_labelme_shows_it(kpdata: Kpdata, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the raw picture's top is the upright one's right
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    shapes = [{"label": "nose", "points": [[40, 60]], "shape_type": "point"}]
    size = {"imageHeight": 64, "imageWidth": 48}
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.jpg"} | size))
    out = tmp_path.with_name("upright")
    assert kpdata("convert", "labelme", tmp_path, "--out", out, "--split", "train=100").code == 0
    (sample,) = library.open(out)["train"]
    assert (sample.image.width, sample.image.height) == (48, 64)
    assert sample.instances[0].keypoints.tolist() == [[40, 60, 2]]
    arguments = ("--out", tmp_path.with_name("raw"), "--split", "train=100", "--exif", "ignored")
    assert "try the other value of --exif" in kpdata("convert", "labelme", tmp_path, *arguments).err


def test_labelme_goes_to_coco_and_back(folder: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    for out, to in (("shards", "shards"), ("coco", "coco")):
        assert kpdata("convert", "labelme", folder, "--to", to, "--out", tmp_path / out).code == 0
    coco = tmp_path / "coco/annotations.json"
    assert kpdata("convert", "coco", coco, "--out", tmp_path / "back").code == 0
    assert _instances(tmp_path / "back") == _instances(tmp_path / "shards")
