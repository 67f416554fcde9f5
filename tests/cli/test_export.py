"""``kpdata export``, of a run whose weights nobody trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import keras
import msgspec
import pytest

import kpdata as library
from kpdata.cli.export import command
from kpdata.train.export.formats import FORMATS
from kpdata.train.models.base import Phase
from kpdata.train.run.config import AugmentConfig, TrainConfig
from kpdata.train.run.folder import RunFolder

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported through TensorFlow", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("tiny_models")

Kpdata = Callable[..., Any]


@pytest.fixture(scope="module")
def run(
    tiny_models: None,
    untrained_run: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A regression run that saw no mirror image."""
    config = TrainConfig(
        phases=(Phase("all", 1, 64, 1e-3),),
        model="regression",
        options={"backbone": "mobilenet"},
        augment=AugmentConfig(flip=0.0),
    )
    return untrained_run(tmp_path_factory.mktemp("runs") / "a", config, "coordinates")


def test_a_table_says_what_was_written_and_how_well_it_agrees(kpdata: Kpdata, run, tmp_path):
    result = kpdata("export", run, "--to", "saved_model", "--to", "tflite", "--out", tmp_path / "o")
    assert result.code == 0
    assert "model.tflite" in result.out
    assert "any number" in result.out
    assert "in: crops of 64 × 64 pixels; out: 17 keypoints of the coordinates head" in result.out
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "model.json",
        "model.tflite",
        "saved_model",
    ]


def test_json_is_the_card(kpdata: Kpdata, run, tmp_path):
    result = kpdata("export", run, "--to", "saved_model", "--out", tmp_path / "o", "--json")
    assert result.err == ""
    assert result.out == (tmp_path / "o/model.json").read_text()
    assert result.json["files"]["saved_model"]["agreement"]["max_px"] < 1e-3


def test_the_formats_offered_are_those_that_there_are():
    (option,) = (p for p in command.params if p.name == "formats")
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == set(FORMATS)


def test_a_flip_test_inside_a_model_that_saw_no_mirror_image_is_warned_of(
    kpdata: Kpdata, run, tmp_path
):
    result = kpdata("export", run, "--to", "saved_model", "--out", tmp_path / "o", "--flip")
    assert "was trained on no mirror image" in result.err
    assert "with flip test" in result.out


def test_decode_without_a_heatmap_is_refused(kpdata: Kpdata, run, tmp_path):
    out = tmp_path / "o"
    result = kpdata("export", run, "--to", "tflite", "--out", out, "--decode", "argmax")
    assert result.code == 1
    assert "decode" in result.err
    assert "changes nothing: coordinates need no decoding" in result.err
    assert not out.exists()


def test_a_folder_that_is_no_run_is_named(kpdata: Kpdata, tmp_path):
    result = kpdata("export", tmp_path, "--to", "onnx", "--out", tmp_path / "o")
    assert result.code == 1
    assert f"{tmp_path} is no training run" in result.err


def test_less_precision_is_for_tflite_and_needs_the_shards_of_the_run(
    kpdata: Kpdata, run, tiny_shards, tmp_path
):
    out = tmp_path / "o"
    command = ("export", run, "--out", out, "--precision", "int8")
    both = kpdata(*command, "--to", "tflite", "--to", "onnx", "--dataset", tiny_shards)
    assert both.code == 1
    other = kpdata(*command, "--to", "tflite", "--dataset", tiny_shards)
    assert (other.code, "is not what" in other.err) == (1, True)
    idle = kpdata("export", run, "--out", out, "--to", "onnx", "--dataset", tiny_shards)
    assert (idle.code, "--dataset changes nothing without a --precision" in idle.err) == (1, True)
    assert not out.exists()


def test_what_less_precision_costs_is_said(kpdata: Kpdata, run, tiny_shards, tmp_path):
    hashed = library.open(tiny_shards).manifest.root_hash
    info = RunFolder(run).info()
    RunFolder(tmp_path / "run").begin(
        RunFolder(run).config(), msgspec.structs.replace(info, root_hash=hashed)
    )
    shutil.copytree(run / "checkpoints", tmp_path / "run" / "checkpoints", dirs_exist_ok=True)
    shutil.copy(run / "state.json", tmp_path / "run")
    result = kpdata(
        "export", tmp_path / "run", "--to", "tflite", "--precision", "float16",
        "--dataset", tiny_shards, "--out", tmp_path / "o",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "model.tflite of float16: PCK@0.2 " in result.out
    assert " crops of val" in result.out
