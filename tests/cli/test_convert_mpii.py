"""``kpdata convert mpii``: from MATLAB's structs to crops, and no video in two splits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mpii_files import image, person, point, save, structs

import kpdata as library
from kpdata.formats.mpii import read

Kpdata = Callable[..., Any]

VIDEOS, FRAMES, TEST_IMAGES = 12, 3, 2


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames of each of twelve videos, and two images of the test set. Never write there."""
    folder = tmp_path_factory.mktemp("mpii")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    images = []
    for index in range(VIDEOS * FRAMES + TEST_IMAGES):
        name = f"{index:09}.jpg"
        cv2.imwrite(str(folder / "images" / name), rng.integers(0, 256, (90, 120, 3), np.uint8))
        points = [point(9, 61, 21, is_visible=""), point(6, 61, 46, is_visible="0")]
        someone = person(points, scale=0.3, objpos=structs([{"x": 60.5, "y": 45.5}]))
        images.append(image(name, structs([someone]), vididx=1 + index // FRAMES))
    flags = np.arange(len(images)) < VIDEOS * FRAMES
    return save(folder, images, flags)


def test_crops_of_whole_videos_with_mpiis_head_size(
    annotations: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = kpdata(
        "convert", "mpii", annotations, "--out", out, "--crop", 75, "--split", "50/25/25"
    )
    assert (result.code, result.err) == (0, "")
    assert read.TEST in result.out
    assert read.NOT_SAID in result.out
    dataset = library.open(out)
    splits: dict[str, set[str]] = {}
    for split in dataset.splits:
        for sample in dataset[split]:
            (instance,) = sample.instances
            assert instance.keypoints[dataset.skeleton.index("pelvis")].tolist() == pytest.approx(
                [38, 38, 1], abs=1e-3
            )
            assert instance.head_size == pytest.approx(0.6 * 50)
            splits.setdefault(str(sample.group), set()).add(split)
    assert len(splits) == VIDEOS
    assert all(len(found) == 1 for found in splits.values())
    assert kpdata("verify", out).code == 0


def test_the_official_split_is_train_alone(
    annotations: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    split = ("--split", "official", "--val-from-train", "25")
    result = kpdata("convert", "mpii", annotations, "--out", tmp_path / "out", *split)
    assert result.code == 0
    assert set(library.open(tmp_path / "out").splits) == {"train", "val"}
