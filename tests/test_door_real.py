"""The front door's example, step by step as README has it, on real LSP and COCO data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kpdata as kp


@pytest.fixture(scope="module")
def coco(real_data: Path) -> kp.Labels:
    folder = real_data / "coco_mini"
    return kp.read(folder / "person_keypoints_train2017.json", images=folder / "train2017")


def test_lsp_is_read_by_its_content_and_looked_at(real_data: Path, tmp_path: Path) -> None:
    labels = kp.read(str(real_data / "lsp" / "joints.mat"))
    assert repr(labels) == "lsp: lsp14, 14 keypoints, 2,000 images"
    assert labels[0].pixels().shape == (160, 70, 3)
    assert labels[1999].name == "im2000.jpg"
    assert (labels[0].split, labels[-1].split) == ("train", "test")
    labels[0].show(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) == 512
    ds = kp.convert(
        labels, tmp_path / "shards", split="official", val_from_train=10, progress=False
    )
    assert {name: len(ds[name]) for name in ds} == {"train": 902, "val": 98, "test": 1000}
    assert ds["test"].keypoints().shape == (1000, 14, 3)
    assert ds["train"].to_dataframe()["keypoint"].nunique() == 14


def test_the_readmes_example_on_coco(coco: kp.Labels, tmp_path: Path) -> None:
    assert repr(coco) == "coco: coco17, 17 keypoints, 80 images"
    ds = kp.convert(
        coco, tmp_path / "shards", crop=64, augment=1, split="60/20/20", seed=1,
        max_quarantine=100, workers=2, progress=False,
    )  # fmt: skip
    assert list(ds) == ["train", "val", "test"]
    assert ds["train"][0].pixels().shape == (64, 64, 3)
    assert ds["train"].keypoints().shape == (len(ds["train"]), 17, 3)
    assert len(ds["val"].to_dataframe()) == len(ds["val"]) * 17
    first = next(iter(ds["train"].to_tf()))
    assert np.allclose(first["keypoints"], ds["train"][0].keypoints, atol=1e-3)
    assert len(ds["train"].to_torch()) == len(ds["train"])
    assert kp.check(ds, progress=False) == []
    assert kp.write(ds, tmp_path / "yolo", format="yolo", progress=False)["images"] > 0

    options = {"size": "lite", "epochs": 2, "batch_size": 8, "skip_checks": True}
    run = kp.train(ds, tmp_path / "a", model="blazepose", progress=False, **options)
    score = run.evaluate(ds, split="test", progress=False)["pck@0.2"]
    assert 0 <= score.value <= 1
    assert score.interval[0] <= score.value <= score.interval[1]
    assert 0 < score.baseline < 1
    photo = coco[0].image.uri
    (pose,) = run.predict(photo, progress=False)
    assert pose.keypoints.shape == (17, 3)
    pose.show(tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 1000
    card = run.export(tmp_path / "exported", to=["onnx"], progress=False)
    assert card.files["onnx"].name == "model.onnx"

    other = kp.train(ds, tmp_path / "b", seed=1, progress=False, **options)
    other.evaluate(ds, progress=False)
    difference = kp.compare(run, tmp_path / "b")
    assert "PCK@0.2" in difference.differences[0].name
