"""``kpdata train``, on tiny models."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import scipy.io

from kpdata.core.progress import SILENT
from kpdata.train.run.config import TrainConfig, recipe_names
from kpdata.train.run.folder import RunFolder, State
from kpdata.train.run.overrides import override

if keras.backend.backend() != "tensorflow":
    pytest.skip("the commands run on one backend", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("tiny_models")

Kpdata = Callable[..., Any]

QUICK = (
    "--model", "regression", "--backbone", "mobilenet", "--batch-size", 4, "--set", "ema=0.5",
    "--set", 'phases=[{"trains":"all","epochs":1,"input_size":32,"learning_rate":0.003}]',
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_models: None, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch. Copy it before changing anything."""
    from kpdata.shards.dataset import Dataset
    from kpdata.train.loop.train import train

    settings = [QUICK[n + 1] for n, word in enumerate(QUICK) if word == "--set"]
    config = msgspec.json.decode(
        b'{"model":"regression","options":{"backbone":"mobilenet"},"batch_size":4,'
        b'"phases":[{"trains":"all","epochs":1,"input_size":32,"learning_rate":0.003}]}',
        type=TrainConfig,
    )
    folder = RunFolder(tmp_path_factory.mktemp("trained") / "run")
    dataset = Dataset.open(tiny_shards)
    train(folder, dataset, override(config, settings), SILENT, check_first=False)
    return folder.path


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def fails(kpdata: Kpdata, *arguments: object) -> str:
    """What a command that ends in one message says."""
    result = kpdata("train", *arguments)
    assert result.code != 0
    assert result.out == ""
    assert "Traceback" not in result.err
    return str(result.err)


# --- configurations


def printed(kpdata: Kpdata, *arguments: object) -> Any:
    result = kpdata("train", *arguments, "--print-config")
    assert result.code == 0, result.err
    assert result.err == ""
    return result.json


def test_recipes_are_listed_with_what_they_are(kpdata):
    result = kpdata("train", "--recipes")
    assert result.code == 0
    lines = dict(line.split(": ", 1) for line in result.out.splitlines())
    assert sorted(lines) == recipe_names()
    assert all(lines.values())


def test_a_printed_configuration_comes_back_through_set(kpdata, tiny_shards):
    recipe = printed(kpdata, tiny_shards, "--recipe", "lsp_blazepose", "--seed", 7)
    assert recipe["seed"] == 7
    settings = [word for key, value in recipe.items()
                for word in ("--set", f"{key}={json.dumps(value)}")]  # fmt: skip
    assert printed(kpdata, tiny_shards, "--model", "regression", *settings) == recipe
    assert printed(kpdata, tiny_shards) != recipe


def test_shorthands_and_settings_reach_the_configuration(kpdata, tiny_shards):
    made = printed(
        kpdata, tiny_shards, "--model", "regression", "--head", "rle", "--weights", "none",
        "--backbone", "resnet50", "--batch-size", 3, "--init-from", "runs/a",
        "--set", "augment.flip=0",
    )  # fmt: skip
    assert (made["model"], made["batch_size"]) == ("regression", 3)
    assert (made["options"]["head"], made["options"]["backbone"]) == ("rle", "resnet50")
    assert made["init_from"] == str(Path("runs/a").resolve())
    assert made["augment"]["flip"] == 0


def test_a_seed_of_0_replaces_the_recipes(kpdata, tiny_shards, monkeypatch):
    own = msgspec.structs.replace
    from kpdata.train.run.recipes import lsp_blazepose

    monkeypatch.setattr(lsp_blazepose, "CONFIG", own(lsp_blazepose.CONFIG, seed=4))
    assert printed(kpdata, tiny_shards, "--recipe", "lsp_blazepose")["seed"] == 4
    assert printed(kpdata, tiny_shards, "--recipe", "lsp_blazepose", "--seed", 0)["seed"] == 0


@pytest.mark.parametrize("stage", ["heatmap", "regression", "both"])
def test_a_stage_keeps_its_phases(kpdata, tiny_shards, stage):
    start = ["--init-from", "runs/a"] if stage == "regression" else []
    phases = printed(kpdata, tiny_shards, "--stage", stage, *start)["phases"]
    kept = ["heatmap", "regression"] if stage == "both" else [stage]
    assert [phase["trains"] for phase in phases] == kept


@pytest.mark.parametrize(("weights", "trained"), [("none", ["all"]), ("imagenet", ["head", "all"])])
def test_only_a_pretrained_backbone_is_frozen_at_first(kpdata, tiny_shards, weights, trained):
    made = printed(kpdata, tiny_shards, "--model", "regression", "--weights", weights)
    assert [phase["trains"] for phase in made["phases"]] == trained


def test_the_default_suits_whole_images_and_crops(kpdata, tiny_shards, tiny_coco, tmp_path):
    whole = printed(kpdata, tiny_shards)
    assert (whole["model"], whole["crop_from"], whole["margin"]) == ("blazepose", "bbox", 1.25)
    assert {phase["input_size"] for phase in whole["phases"]} == {192}
    assert whole["phases"][0]["epochs"] == 300
    crops = tmp_path / "crops"
    source = tiny_coco / "annotations.json"
    result = kpdata("convert", "coco", source, "--crop", 150, "--out", crops, "--workers", 1)
    assert result.code == 0, result.err
    sizes = {phase["input_size"] for phase in printed(kpdata, crops)["phases"]}
    assert sizes == {160}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recipe", "best"], "recipe 'best' is unknown; known: "),
        (["--recipe", "lsp_blazepose", "--model", "blazepose"], "--model does not go with --rec"),
        (["--set", "epochs=3"], "epochs is of a phase: --epochs 3, or phases.0.epochs=3"),
        (["--set", "augment.flop=3"], "no key 'flop' there; did you mean flip? known: flip, "),
        (["--set", "seed"], "setting seed: expected key=value"),
        (["--batch-size", 0], "--batch-size is 0: expected 1 to 65536"),
        (["--model", "regression", "--stage", "heatmap"], "--stage is heatmap: regression has"),
        (["--stage", "regression"], "--stage is regression: it needs --init-from, the run"),
        (["--backbone", "resnet50"], "--backbone is of regression, and this model is blazepose"),
        (["--weights", "imagenet"], "weights 'imagenet': no such file, and no known name; known: "),
        (["--recipe", "lsp_blazepose", "--head", "rle"], "--head is of regression"),
        (["--model", "openpose"], "'openpose' is not one of"),
        (["--set", "keypoint_weights.noze=2", "--skip-checks"], "no keypoint 'noze'"),
        (["--devices", 2, "--skip-checks"], "more than one needs the JAX backend"),
        (["--model", "regression", "--backbone", "alexnet", "--skip-checks"], "'alexnet' is unkno"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(kpdata, tiny_shards, tmp_path, arguments, says):
    assert says in fails(kpdata, tiny_shards, "--out", tmp_path / "run", *arguments)
    assert not RunFolder(tmp_path / "run").state().epochs


def test_the_help_says_what_each_option_does_in_full(kpdata):
    said = " ".join(kpdata("train", "--help").out.split())
    for text in (
        "training starts from its best weights",
        "an unknown name lists all",
        "Change any setting that --print-config shows",
        "Train without checking labels and model first",
    ):
        assert text in said


def test_what_is_missing_is_named(kpdata, tiny_shards, tmp_path):
    assert "--out is missing" in fails(kpdata, tiny_shards)
    assert "name the folder of shards" in fails(kpdata, "--out", tmp_path / "run")
    assert "kpdata.json" in fails(kpdata, tmp_path, "--out", tmp_path / "run")


# --- running and going on


def test_a_run_says_what_it_did_and_what_comes_next(kpdata, tiny_shards, tmp_path):
    out = tmp_path / "run"
    result = kpdata("train", tiny_shards, *QUICK, "--out", out, "--skip-checks")
    assert result.code == 0, result.err
    assert f"{out}: 1 epochs in " in result.out
    assert "best epoch 1, validation PCK 0." in result.out
    assert " of its answer, coordinates" in result.out
    assert f"next: kpdata evaluate {out} {tiny_shards} --split test" in result.out
    assert "phase 1 of 1: all, 1 epochs of 4 steps at 32 px" in result.err
    assert "epoch 1: loss " in result.err
    assert "crops: a square around the bbox, × 1.25" in result.err


def test_the_result_as_json_and_quiet(kpdata, trained, tiny_shards):
    result = kpdata("train", "--out", trained, "--resume", "--json")
    assert result.err == ""
    assert (result.json["epochs"], result.json["best_epoch"]) == (1, 1)
    assert (result.json["best_phase"], result.json["answer"]) == (1, "coordinates")
    assert result.json["val_pck"].keys() == {"coordinates"}
    quiet = kpdata("train", tiny_shards, "--out", trained, "--resume", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_a_second_run_in_the_same_folder_is_refused(kpdata, trained, tiny_shards):
    before = RunFolder(trained).state()
    message = fails(kpdata, tiny_shards, *QUICK, "--out", trained)
    assert f"{trained} holds a run already: add --resume to go on with it" in message
    with RunFolder(trained).locked():
        message = fails(kpdata, "--out", trained, "--resume")
    assert "another training writes to this folder" in message
    assert RunFolder(trained).state() == before


def test_resuming_takes_no_other_configuration(kpdata, trained, tmp_path):
    for option, value in (("--seed", 3), ("--set", "seed=3"), ("--recipe", "lsp_blazepose")):
        message = fails(kpdata, "--out", trained, "--resume", option, value)
        assert f"{option} does not go with --resume" in message
    assert "is no training run: config.json is missing" in fails(
        kpdata, "--out", tmp_path, "--resume"
    )


def test_resuming_on_other_shards_is_refused(kpdata, trained, tiny_coco, tiny_shards, tmp_path):
    other = tmp_path / "other"
    source = tiny_coco / "annotations.json"
    assert kpdata("convert", "coco", source, "--out", other, "--workers", 1).code == 0
    message = fails(kpdata, other, "--out", trained, "--resume")
    assert f"{other} is not what {trained} was begun with: its root hash is " in message
    moved = shutil.copytree(tiny_shards, tmp_path / "moved")
    assert kpdata("train", moved, "--out", trained, "--resume", "--quiet").code == 0


@pytest.mark.parametrize("name", ["config", "dataset", "state"])
def test_a_damaged_run_is_named(kpdata, copied, name):
    path = copied / f"{name}.json"
    path.write_text(path.read_text()[:-20])
    assert f"{path} is damaged: " in fails(kpdata, "--out", copied, "--resume")


def test_weights_outside_of_the_run_are_refused(kpdata, copied, tmp_path):
    path = copied / "state.json"
    state = json.loads(path.read_text())
    shutil.copy(copied / state["best"]["file"], tmp_path / "secret.weights.h5")
    config = json.loads((copied / "config.json").read_text())
    config["phases"][0]["epochs"] = 2
    (copied / "config.json").write_text(json.dumps(config))
    for file in ("../secret.weights.h5", "checkpoints/gone.weights.h5"):
        path.write_text(json.dumps(state | {"last": file, "done": 0}))
        message = fails(kpdata, "--out", copied, "--resume")
        assert "weights are missing, though state.json names them" in message
    assert (tmp_path / "secret.weights.h5").is_file()


def test_damaged_weights_are_refused(kpdata, copied):
    state = json.loads((copied / "state.json").read_text())
    (copied / "state.json").write_text(json.dumps(state | {"done": 0}))
    weights = copied / state["last"]
    weights.write_bytes(weights.read_bytes()[:5000])
    config = json.loads((copied / "config.json").read_text())
    config["phases"][0]["epochs"] = 2
    (copied / "config.json").write_text(json.dumps(config))
    message = fails(kpdata, "--out", copied, "--resume")
    assert f"{weights} is damaged or does not fit the model: " in message


# --- ended from outside

PHASES = [{"trains": "heatmap", "epochs": 6, "input_size": 64, "learning_rate": 0.003}]


def started(*arguments: object) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("tiny_kpdata.py")
    return subprocess.Popen(
        [sys.executable, str(script), "train", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip


def ended(process: subprocess.Popen[str], folder: RunFolder, rows: int, how: int) -> str:
    """Signal a training once so many epochs are done, in the middle of the next; what it said."""
    until = time.monotonic() + 240
    while len(folder.state().epochs) < rows and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    return said


def test_ctrl_c_and_kill_9_cost_no_more_than_the_epoch(kpdata, tiny_shards, tmp_path):
    options = (
        tiny_shards, "--size", "lite", "--batch-size", 2, "--set", "ema=0.9", "--seed", 2,
        "--set", f"phases={json.dumps(PHASES)}", "--skip-checks",
    )  # fmt: skip
    whole, folder = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    first = started(*options, "--out", folder.path)
    said = ended(first, folder, 1, signal.SIGINT)
    assert first.returncode == 130
    assert "Traceback" not in said
    kept = len(folder.state().epochs)
    resume = f"kpdata train --out {folder.path} --resume"
    assert f"interrupted. Epochs kept: {kept}. Go on with: {resume}" in said
    second = started("--out", folder.path, "--resume")
    ended(second, folder, kept + 2, signal.SIGKILL)
    assert second.returncode == -signal.SIGKILL
    assert 1 <= kept < len(folder.state().epochs) < 6
    result = kpdata("train", "--out", folder.path, "--resume")
    assert result.code == 0, result.err
    assert kpdata("train", *options, "--out", whole.path).code == 0
    assert_same_history(folder.state(), whole.state())


def assert_same_history(state: State, expected: State) -> None:
    assert [row.epoch for row in state.epochs] == [1, 2, 3, 4, 5, 6]
    for row, other in zip(state.epochs, expected.epochs, strict=True):
        assert row.losses == pytest.approx(other.losses, rel=2e-3)
        assert row.scores == pytest.approx(other.scores, abs=0.02)
        assert row.learning_rate == pytest.approx(other.learning_rate)
    assert state.best
    assert expected.best
    assert (state.best.epoch, state.best.heads) == (expected.best.epoch, expected.best.heads)


# --- the gates


@pytest.fixture(scope="module")
def lsp(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``lsp(change)``: 600 people of LSP as shards, their joints (3, 14, N) changed."""
    from kpdata import formats
    from kpdata.core.progress import SILENT
    from kpdata.pipelines import Request, convert

    joints = scipy.io.loadmat(real_data / "lsp" / "joints.mat")["joints"][..., :600]

    def changed(change: Callable[[np.ndarray], np.ndarray]) -> Path:
        folder = tmp_path_factory.mktemp("lsp")
        scipy.io.savemat(folder / "joints.mat", {"joints": change(joints.copy())})
        images = real_data / "lsp" / "images"
        source = formats.read("lsp", folder / "joints.mat", images=images)
        options = {"split": "95/5/0", "shards": 2, "max_quarantine": 50}
        request = Request.of(source, format="lsp", **options)
        convert(source, request, folder / "shards", SILENT)
        return folder / "shards"

    return changed


def as_it_is(joints: np.ndarray) -> np.ndarray:
    return joints


def inverted(joints: np.ndarray) -> np.ndarray:
    joints[2] = 1 - joints[2]
    return joints


def half_swapped(joints: np.ndarray) -> np.ndarray:
    """Left and right exchanged in every second person."""
    other = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13]
    joints[..., ::2] = joints[:, other, ::2]
    return joints


def as_percent(joints: np.ndarray) -> np.ndarray:
    """1 to 101 instead of 1 to the image's width; LSP's people are scaled to 150 pixels."""
    span = joints[:2].max(axis=(1, 2), keepdims=True)
    joints[:2] = 1 + (joints[:2] - 1) * 100 / span
    return joints


@pytest.mark.parametrize(
    ("change", "gate", "says"),
    [
        (inverted, "visibility", "occluded"),
        (half_swapped, "left and right", "exchanged in about half"),
        (as_percent, "coordinates", "percent"),
    ],
)
def test_damaged_labels_are_refused_by_the_gate_that_names_them(
    kpdata, lsp, tmp_path, change, gate, says
):
    shards, out = lsp(change), tmp_path / "run"
    message = fails(kpdata, shards, *QUICK, "--batch-size", 32, "--out", out)
    assert "the checks before training failed.\n" in message
    failed = [line for line in message.splitlines() if line.startswith(f"  {gate}: ")]
    assert len(failed) == 1
    assert says in failed[0]
    assert "--skip-checks" in failed[0]
    assert not out.exists()
    skipped = kpdata("train", shards, *QUICK, "--batch-size", 32, "--out", out, "--skip-checks")
    assert skipped.code == 0, skipped.err
    assert len(RunFolder(out).state().epochs) == 1


def test_real_labels_pass_every_gate(kpdata, lsp, tmp_path):
    result = kpdata("train", lsp(as_it_is), *QUICK, "--batch-size", 32, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    for gate in ("visibility", "left and right", "coordinates", "overfit", "variety"):
        assert f"checked {gate}: " in result.err


@pytest.mark.parametrize("backend", ["torch", "nonsense"])
def test_a_backend_that_cannot_train_is_one_message(kpdata, tmp_path, monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    message = fails(kpdata, tmp_path, "--out", tmp_path / "run")
    assert f"KERAS_BACKEND is {backend!r}: set it to tensorflow or jax; installed: " in message
    assert "pip install" in message
