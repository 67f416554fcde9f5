"""``kpdata convert deeplabcut``: a project as its user has it, and no video in two splits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import kpdata as library

Kpdata = Callable[..., Any]
Refuses = Callable[..., str]

HEADER = "scorer,,,me,me,me,me\nbodyparts,,,nose,nose,tail,tail\ncoords,,,x,y,x,y\n"
FRAMES = 5


def make_project(root: Path, videos: int) -> Path:
    """FRAMES labelled images of each of so many videos, and a config.yaml."""
    rng = np.random.default_rng(videos)
    for video in (f"mouse{number}" for number in range(videos)):
        folder = root / "labeled-data" / video
        folder.mkdir(parents=True)
        rows = []
        for name in (f"img{frame:03}.png" for frame in range(FRAMES)):
            cv2.imwrite(str(folder / name), rng.integers(0, 256, (48, 64, 3), np.uint8))
            x, y = rng.integers(5, 40, 2)
            rows.append(f"labeled-data,{video},{name},{x},{y},{x + 5}.5,\n")
        (folder / "CollectedData_me.csv").write_text(HEADER + "".join(rows))
        (folder / "CollectedData_me.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (root / "config.yaml").write_text("Task: mice\nscorer: me\nskeleton: [[nose, tail]]\n")
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty videos. Never write into its folder."""
    return make_project(tmp_path_factory.mktemp("mice"), 20)


def test_no_video_is_in_two_splits(project: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = kpdata("convert", "deeplabcut", project, "--out", out, "--split", "50/25/25")
    assert (result.code, result.err) == (0, "")
    assert "keypoints with x or y alone" in result.out
    dataset = library.open(out)
    assert dataset.skeleton.edges == (("nose", "tail"),)
    splits: dict[str, set[str]] = {}
    for split in dataset.splits:
        for sample in dataset[split]:
            folder, _, _ = sample.image.name.rpartition("/")
            assert sample.group == folder
            splits.setdefault(folder, set()).add(split)
            assert sample.instances[0].visibility.tolist() == [2, 0]
            assert sample.instances[0].keypoints[0, 0] % 1 == 0.5
    assert len(splits) == 20
    assert all(len(found) == 1 for found in splits.values())
    assert set(dataset.splits) == set().union(*splits.values()) == {"train", "val", "test"}
    assert kpdata("verify", out).code == 0
    said = kpdata("inspect", out)
    assert "and 18 more: --json lists them" in said.out  # of a file for each video, and config.yaml
    assert len(kpdata("inspect", out, "--json").json["source"]["files"]) == 21


def test_crops_are_made_around_keypoints_or_of_the_image(
    project: Path, kpdata: Kpdata, refuses: Refuses, tmp_path: Path
) -> None:
    crop = ("convert", "deeplabcut", project / "labeled-data", "--crop", 32)
    refuses(*crop, says=["deeplabcut has no boxes to crop around: choose --crop-from image"])
    around = ("--crop-from", "keypoints", "--out", tmp_path / "out")
    refuses(*crop, *around, says=["100 instances not cropped: keypoints all at one point"])
    with_tails = make_project(tmp_path / "tails", 2)
    for table in with_tails.rglob("*.csv"):
        table.write_text(table.read_text().replace(".5,\n", ".5,9\n"))
    assert kpdata("convert", "deeplabcut", with_tails, "--crop", 32, *around).code == 0


def test_one_video_fills_one_split_unless_its_parts_are_named(
    kpdata: Kpdata, tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "one", 1)
    convert = ("convert", "deeplabcut", folder, "--split", "60/40", "--out")
    result = kpdata(*convert, tmp_path / "whole")
    assert len(library.open(tmp_path / "whole").splits) == 1
    assert "5 images in 1 group are too few for 2 splits. Give fewer splits, or" in result.err
    finer = ("--group", r"(img\d+)", "--seed", 1)
    assert (finer, kpdata(*convert, tmp_path / "parts", *finer).err) == (finer, "")
    assert set(library.open(tmp_path / "parts").splits) == {"train", "val"}


def test_projects_are_the_splits_that_they_are_named_after(
    project: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    """Videos of the same name in two projects are two."""
    other = make_project(tmp_path / "other", 2)
    out = tmp_path / "out"
    result = kpdata("convert", "deeplabcut", f"train={project}", f"test={other}", "--out", out)
    assert (result.code, result.err) == (0, "")
    dataset = library.open(out)
    assert {split: len(dataset[split]) for split in dataset.splits} == {
        "train": 20 * FRAMES, "test": 2 * FRAMES,
    }  # fmt: skip


def test_what_is_missing_is_named_with_its_line(
    kpdata: Kpdata, refuses: Refuses, tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "two", 2)
    (folder / "labeled-data/mouse1/img002.png").unlink()
    table = folder / "labeled-data/mouse0/CollectedData_me.csv"
    table.write_text(table.read_text() + "labeled-data,mouse0,../../../a.png,1,2,3,4\n"
                     "labeled-data,mouse0,img009.png,a,2,3,4\n")  # fmt: skip
    out = tmp_path / "out"
    result = kpdata("convert", "deeplabcut", folder, "--out", out, "--max-quarantine", 50)
    assert result.code == 0
    lines = (out / "quarantine.jsonl").read_text()
    for text in ("image missing", "unsafe path", f"{table}: line 10: x of nose is 'a'"):
        assert text in lines
    table.unlink()
    refuses("convert", "deeplabcut", folder, says=["CollectedData_me.h5: HDF5 is not read"])
