"""``kpdata demo``: from rendered pictures to scores, and what it does where it cannot train."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from kpdata.cli import demo
from kpdata.cli.demo import FEWEST
from kpdata.core.errors import KpdataError
from kpdata.core.skeletons import COCO17
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import write_manifest
from kpdata.train.evaluate.report import read_report
from kpdata.train.run import backend
from kpdata.train.run.config import load_recipe
from kpdata.train.run.folder import EpochRecord, RunFolder, RunInfo, State

Kpdata = Callable[..., Any]

COUNT = 300


def test_the_demo_trains_a_model_that_beats_its_baseline(kpdata: Kpdata, tmp_path: Path) -> None:
    result = kpdata("demo", "--count", COUNT, "--out", tmp_path / "demo")
    assert result.code == 0, result.err
    report = read_report(tmp_path / "demo/run/evaluation-test/metrics.json")
    pck = report.by_keypoint[0][report.primary]
    assert pck.value is not None
    assert pck.baseline is not None
    assert pck.value > pck.baseline + 0.1
    named = result.out.partition("Look at:")[2].split("\n")
    pictures = [Path(line.partition(": ")[0].strip()) for line in named if line.strip()]
    assert len(pictures) == 7
    assert all(path.stat().st_size > 0 for path in pictures)
    history = (tmp_path / "demo/run/history.csv").read_bytes()
    again = kpdata("demo", "--count", COUNT, "--out", tmp_path / "demo")
    assert again.code == 0, again.err
    assert "demo/run is trained already: kept" in again.out
    assert (tmp_path / "demo/run/history.csv").read_bytes() == history
    assert result.out.partition("Look at:")[2] == again.out.partition("Look at:")[2]


def test_without_the_trainer_the_demo_says_what_to_install_and_succeeds(
    kpdata: Kpdata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_is_installed", lambda name: name != "keras")
    result = kpdata("demo", "--count", FEWEST, "--out", tmp_path / "demo")
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if "pip install" in line]
    assert lines == ["Nothing is trained: the trainer needs keras: pip install 'kpdata[train]'"]
    assert (tmp_path / "demo/contact-sheet.png").stat().st_size > 0
    assert not (tmp_path / "demo/run").exists()


def test_no_train_ends_with_the_shards(kpdata: Kpdata, tmp_path: Path) -> None:
    result = kpdata("demo", "--no-train", "--count", FEWEST, "--out", tmp_path / "demo")
    assert result.code == 0, result.err
    assert result.out.endswith(
        f"Look at:\n  {tmp_path}/demo/contact-sheet.png: crops and augmented copies, with their "
        "keypoints\n"
    )
    assert not (tmp_path / "demo/run").exists()


def test_a_folder_of_another_demo_or_of_something_else_is_refused(
    kpdata: Kpdata, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    assert kpdata("demo", "--no-train", "--count", FEWEST, "--out", out).code == 0
    assert kpdata("demo", "--no-train", "--count", FEWEST, "--out", out).code == 0
    other = kpdata("demo", "--no-train", "--count", FEWEST + 1, "--out", out)
    assert other.code == 1
    assert "holds a demo of 42 pictures: go on with --count 42, or choose another" in other.err
    (out / "thesis.txt").touch()
    foreign = kpdata("demo", "--no-train", "--count", FEWEST, "--out", out)
    assert (foreign.code, foreign.out) == (1, "")
    assert "holds 'thesis.txt': choose a new or an empty folder" in foreign.err
    file = kpdata("demo", "--no-train", "--count", FEWEST, "--out", out / "thesis.txt")
    assert "thesis.txt is a file: name a new folder" in file.err


def test_the_fewest_pictures_that_the_demo_takes_fill_every_split(
    kpdata: Kpdata, tmp_path: Path
) -> None:
    fewest = kpdata("demo", "--count", FEWEST - 1, "--out", tmp_path / "demo")
    assert (fewest.code, "is not in the range x>=42" in fewest.err) == (2, True)
    assert kpdata("demo", "--no-train", "--count", FEWEST, "--out", tmp_path / "demo").code == 0
    demo._refuse_empty_splits(tmp_path / "demo" / "shards")


def test_empty_splits_are_refused_before_training(tiny_shards: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(tiny_shards, tmp_path / "shards"))
    manifest = Dataset.open(shards).manifest
    splits = {"train": manifest.splits["train"]}
    write_manifest(shards, structs.replace(manifest, splits=splits))
    with pytest.raises(KpdataError, match=r"shows nobody in val, test: .* larger --count"):
        demo._refuse_empty_splits(shards)


@pytest.mark.parametrize(
    ("epochs", "done", "expected"),
    [(0, 0, "train {shards} --recipe demo --out {run}"), (3, 0, "train --out {run} --resume"),
     (4, 1, "train --out {run} --resume"), (6, 2, None)],
)  # fmt: skip
def test_what_is_there_is_kept_and_what_was_interrupted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, done: int, expected: str | None
) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    folder, config = RunFolder(run), load_recipe("demo")
    assert len(config.phases) == 2
    folder.begin(config, RunInfo("", "", COCO17, "", (), {}, {}))
    records = (EpochRecord(0, "heatmap", 128, n + 1, {}, {}, 1e-3, 1.0, 1.0) for n in range(epochs))
    folder.save_state(State(tuple(records), done=done))
    commands: list[str] = []
    monkeypatch.setattr(demo, "_run", lambda *words: commands.append(" ".join(map(str, words))))
    demo._train_and_score(shards, run)
    trained = [] if expected is None else [expected.format(shards=shards, run=run)]
    assert commands == [*trained, f"evaluate {run} {shards} --split test"]
