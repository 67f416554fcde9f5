"""Whole runs of tiny models through the real loop."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import msgspec
import numpy as np
import pytest
from keras import ops
from keras.layers import BatchNormalization

from kpdata import formats
from kpdata.checks.gates import Verdict
from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropRule
from kpdata.core.errors import KpdataError, TrainingError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.metrics import mean_pose, pck, pck_area
from kpdata.pipelines import Request, convert
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import write_manifest
from kpdata.train.data.batches import Batches
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.evaluate.evaluate import placed_baseline
from kpdata.train.infer.predictions import Predictions, Truth
from kpdata.train.infer.predictor import Predictor
from kpdata.train.infer.reader import PoseReader, predict_crops
from kpdata.train.loop import train as loop
from kpdata.train.loop.checks import (
    check_config,
    check_reference,
    warn_of_baseline,
    warn_of_unused_crop_rule,
)
from kpdata.train.loop.learner import Learner
from kpdata.train.loop.phase import PhaseRun
from kpdata.train.loop.train import load_crops, train
from kpdata.train.models.base import Phase
from kpdata.train.models.blazepose.network import shared_layers
from kpdata.train.models.layers import BATCH_NORM_MEMORY
from kpdata.train.models.parts import COORDINATES_HEAD, Loss
from kpdata.train.models.registry import models
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, RunFolder, State
from kpdata.train.run.overrides import override

if keras.backend.backend() != "tensorflow":
    pytest.skip("the other backend is tried in a process of its own", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("tiny_models")

AUGMENT = AugmentConfig(blur=0.0)
BLAZEPOSE = TrainConfig(
    options={"size": "lite"},
    phases=(Phase("heatmap", 2, 32, 3e-3), Phase("regression", 1, 64, 3e-3)),
    batch_size=4,
    ema=0.5,
    augment=AUGMENT,
)
REGRESSION = TrainConfig(
    model="regression",
    options={"backbone": "mobilenet", "head": "rle", "dropout": 0.3},
    phases=(Phase("head", 1, 32, 3e-3), Phase("all", 2, 32, 3e-3, warmup=0.5)),
    batch_size=4,
    ema=0.5,
    augment=AUGMENT,
    seed=5,
)
PLAIN = msgspec.structs.replace(
    REGRESSION.with_options(head="dense", dropout=0.0), phases=(Phase("all", 2, 32, 3e-3),)
)
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


class Interrupts(Progress):
    """Presses Ctrl-C in the second step of an epoch; keeps warnings, notes and steps."""

    def __init__(self, epoch: int = 0):
        self.epoch, self.warnings = epoch, []
        self.steps: list[str] = []
        self.notes: list[str] = []
        self._reached = 0

    def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
        self.steps.append(step)
        self._reached = 0

    def reach(self, done: int, note: str = "") -> None:
        self.notes.append(note)
        self._reached += 1
        if self.steps[-1].startswith(f"epoch {self.epoch} of ") and self._reached == 2:
            raise KeyboardInterrupt

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def run(path: Path, shards: Path, config: TrainConfig, progress: Progress = SILENT) -> State:
    dataset = Dataset.open(shards)
    return train(RunFolder(path), dataset, config, progress, check_first=False)


def with_epochs(config: TrainConfig, epochs: int, **changes: Any) -> TrainConfig:
    phases = (msgspec.structs.replace(config.phases[-1], epochs=epochs, warmup=0),)
    return msgspec.structs.replace(config, phases=phases, **changes)


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let validation find these scores, one an epoch."""
    monkeypatch.setattr(
        PhaseRun, "_scores", lambda self, *_: ({"coordinates": scores[len(self.state.epochs)]},) * 2
    )


def stored(folder: RunFolder, file: str) -> dict[str, np.ndarray]:
    """Every array of a weight file, by its path in it."""
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(folder.weights(file)) as opened:
        opened.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


def values(net: keras.Model) -> dict[str, np.ndarray]:
    return {v.path: ops.convert_to_numpy(v) for v in net.variables}


def load(folder: RunFolder, config: TrainConfig, size: int, file: str) -> dict[str, np.ndarray]:
    net = config.build(len(folder.info().skeleton), size)
    net.load_weights(folder.weights(file))
    return values(net)


# --- stages


@pytest.fixture(scope="module")
def staged(
    tiny_models: None, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, list[dict[str, Any]]]:
    """A run of both stages whose first epoch scores best, and what each phase began and ended as.

    Each is ``start`` and ``end`` (path → values), ``shared`` (paths) and ``best`` (a State's).
    """
    seen: list[dict[str, Any]] = []

    class Recorded(PhaseRun):
        def on_train_begin(self, logs: Any = None) -> None:
            best = self.state.best
            at_start = best and load(self.folder, self.config, self.phase.input_size, best.file)
            shared = {v.path for layer in shared_layers(self.net) for v in layer.variables}
            seen.append({"start": values(self.net), "shared": shared, "best": at_start})

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen[-1]["end"] = values(self.net)
            super().on_epoch_end(epoch, logs)

        def _scores(self, *_: Any) -> tuple[dict[str, float], dict[str, float]]:
            found = {self.heads[0]: [0.9, 0.1, 0.5][len(self.state.epochs)]}
            return found, found

    folder = RunFolder(tmp_path_factory.mktemp("staged") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "PhaseRun", Recorded)
        run(folder.path, tiny_shards, BLAZEPOSE)
    return folder, seen


def moved(phase: dict[str, Any]) -> set[str]:
    return {path for path, value in phase["start"].items() if np.any(value != phase["end"][path])}


def test_the_heatmap_stage_moves_encoder_decoder_and_heatmap_output_alone(staged):
    heatmap = staged[1][0]
    assert moved(heatmap) == heatmap["shared"]
    assert {"stem_conv/kernel", "heatmap/kernel"} <= heatmap["shared"]


def test_the_regression_stage_moves_all_the_rest_and_both_of_its_outputs(staged):
    regression = staged[1][1]
    assert moved(regression) == regression["start"].keys() - regression["shared"]
    outputs = ("vote_logit/kernel", "vote_offset/kernel", "visibility/kernel", "visibility/bias")
    assert set(outputs) <= moved(regression)


def test_the_second_stage_starts_from_the_best_of_the_first_at_another_size(staged):
    first, second = staged[1]
    for path, value in second["best"].items():
        np.testing.assert_array_equal(second["start"][path], value, err_msg=path)
    kernel = "stem_conv/kernel"
    assert np.any(first["end"][kernel] != second["start"][kernel])  # the last was not the best


def test_the_best_of_the_last_phase_counts_and_knows_its_heads(staged):
    state = staged[0].state()
    assert (state.best.phase, state.best.epoch, state.best.input_size) == (1, 3, 64)
    assert state.best.heads == ("heatmap", "coordinates")
    first = [record.area for record in state.of_phase(0)]
    assert state.best.earlier == {"heatmap": 1 if first[0] > first[1] else 2}
    assert state.done == 2
    found = {f"checkpoints/{path.name}" for path in staged[0].checkpoints.iterdir()}
    assert found == {state.best.file, state.last}


def test_a_run_leaves_its_history_its_curves_and_a_model_that_predicts(staged, tiny_shards):
    folder, _ = staged
    rows = list(csv.DictReader(folder.history_csv.open()))
    assert [(row["epoch"], row["phase"], row["trains"], row["input_size"]) for row in rows] == [
        ("1", "0", "heatmap", "32"),
        ("2", "0", "heatmap", "32"),
        ("3", "1", "regression", "64"),
    ]
    assert all(float(row["loss"]) > 0 for row in rows)
    assert (folder.path / "curves.png").stat().st_size > 1000
    assert any(folder.logs.iterdir())
    info = folder.info()
    assert info.crops["train"] > info.crops["val"] > 0
    assert len(info.mean_pose) == 17
    predictor = Predictor.open(folder.path)
    val = load_crops(Dataset.open(tiny_shards), BLAZEPOSE, "val", 64)
    found = predictor.predict(val, flip=False)
    assert set(found.keypoints) == {"heatmap", "coordinates"}
    assert all(np.isfinite(keypoints).all() for keypoints in found.keypoints.values())


# --- going on


@pytest.fixture(scope="module")
def whole(tiny_models: None, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run that nothing interrupted: a frozen backbone, then all; dropout, a flow, an average."""
    folder = RunFolder(tmp_path_factory.mktemp("whole") / "run")
    run(folder.path, tiny_shards, REGRESSION)
    return folder


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(whole, tiny_shards, tmp_path):
    """Once where a phase begins, with a flow of its own, and once within it."""
    folder = RunFolder(tmp_path / "run")
    for epoch in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(folder.path, tiny_shards, REGRESSION, Interrupts(epoch))
        assert [row.epoch for row in folder.state().epochs] == list(range(1, epoch))
        keras.utils.set_random_seed(99)  # another process has drawn something else
    run(folder.path, tiny_shards, REGRESSION)
    state, expected = folder.state(), whole.state()
    assert [row.epoch for row in state.epochs] == [1, 2, 3]
    for row, other in zip(state.epochs, expected.epochs, strict=True):
        assert row.losses == pytest.approx(other.losses, rel=1e-3)
        assert row.scores == pytest.approx(other.scores, abs=0.02)
        assert row.learning_rate == pytest.approx(other.learning_rate)
    for name in ("last", "best"):
        files = [getattr(s, name) if name == "last" else s.best.file for s in (state, expected)]
        ours, theirs = stored(folder, files[0]), stored(whole, files[1])
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=0.01, atol=2e-4, err_msg=key)


def test_a_finished_run_is_left_as_it_is(whole, tiny_shards, monkeypatch):
    monkeypatch.setattr(loop, "PhaseRun", lambda *_: pytest.fail("trains"))
    before = whole.state()
    assert run(whole.path, tiny_shards, REGRESSION) == before


def test_a_second_training_on_the_same_folder_is_refused(whole, tiny_shards):
    with (
        whole.locked(),
        pytest.raises(TrainingError, match="another training writes to this folder"),
    ):
        run(whole.path, tiny_shards, REGRESSION)


# --- the average


def test_the_averaged_weights_are_validated_and_kept_and_training_goes_on_without(
    tiny_shards, tmp_path, monkeypatch
):
    steps: list[list[np.ndarray]] = []
    begun: list[list[np.ndarray]] = []

    class Recorded(PhaseRun):
        def values(self) -> list[np.ndarray]:
            return [ops.convert_to_numpy(v) for v in self.learner.trainable_variables]

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_begin(epoch, logs)
            begun.append(self.values())

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch, logs)
            steps.append(self.values())

    monkeypatch.setattr(loop, "PhaseRun", Recorded)
    folder = RunFolder(tmp_path / "run")
    state = run(folder.path, tiny_shards, PLAIN)
    per_epoch = len(steps) // 2
    for now, before in zip(begun[1], steps[per_epoch - 1], strict=True):
        np.testing.assert_array_equal(now, before)
    averages = {}
    average = steps[0]
    for number, seen in enumerate(steps):
        average = [PLAIN.ema * a + (1 - PLAIN.ema) * v for a, v in zip(average, seen, strict=True)]
        averages[number + 1] = average
    kept = PLAIN.build(17, 32)
    kept.load_weights(folder.weights(state.best.file))
    for variable, expected in zip(
        kept.trainable_variables, averages[state.best.epoch * per_epoch], strict=True
    ):
        np.testing.assert_allclose(ops.convert_to_numpy(variable), expected, atol=1e-5)
    dataset = Dataset.open(tiny_shards)
    val = load_crops(dataset, PLAIN, "val", 32)
    seen = predict_crops(PoseReader(kept, dataset.skeleton, (COORDINATES_HEAD,), flip=False), val)
    poses = Truth.of(val).poses(dataset.skeleton, seen.keypoints["coordinates"])
    expected = pck(poses, "torso", PLAIN.threshold).value
    assert state.best.scores["coordinates"] == pytest.approx(expected)
    assert max(row.area for row in state.epochs) == state.epochs[state.best.epoch - 1].area
    assert state.best.areas["coordinates"] == pytest.approx(
        pck_area(poses, "torso", PLAIN.threshold).value
    )


# --- stopping


def test_a_phase_ends_early_when_its_score_no_longer_rises(tiny_shards, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.1, 0.5, 0.3, 0.5, 0.4, 0.9])
    state = run(tmp_path / "run", tiny_shards, with_epochs(PLAIN, 6, patience=2))
    assert [row.score for row in state.epochs] == [0.1, 0.5, 0.3, 0.5]
    assert (state.best.epoch, state.done) == (4, 1)  # of two equal ones, the later


def test_a_later_phase_of_the_same_heads_replaces_only_what_is_worse(
    tiny_shards, tmp_path, monkeypatch
):
    scripted(monkeypatch, [0.6, 0.2, 0.3])
    phases = (Phase("all", 1, 32, 3e-3), Phase("all", 2, 32, 1.0))
    config = msgspec.structs.replace(PLAIN, phases=phases)
    progress = Interrupts()
    state = run(tmp_path / "run", tiny_shards, config, progress)
    assert (state.best.phase, state.best.epoch, state.best.areas) == (0, 1, {"coordinates": 0.6})
    assert progress.warnings == [
        "phase 2 made nothing better: epoch 1 of phase 1 is kept. Was its learning rate of 1 too "
        "high?"
    ]


def test_epochs_are_told_apart_when_every_keypoint_is_right(tiny_shards, tmp_path, monkeypatch):
    areas = iter([0.95, 0.99, 0.97])
    monkeypatch.setattr(
        PhaseRun, "_scores", lambda *_: ({"coordinates": 1.0}, {"coordinates": next(areas)})
    )
    state = run(tmp_path / "run", tiny_shards, with_epochs(PLAIN, 3))
    assert state.best.epoch == 2


def test_a_run_begun_before_areas_were_recorded_goes_on_by_its_scores(
    tiny_shards, tmp_path, monkeypatch
):
    scripted(monkeypatch, [0.6, 0.2, 0.7])
    folder, config = RunFolder(tmp_path / "run"), with_epochs(PLAIN, 3)
    with pytest.raises(KeyboardInterrupt):
        run(folder.path, tiny_shards, config, Interrupts(epoch=2))
    older = json.loads((folder.path / "state.json").read_text())
    del older["best"]["areas"], older["epochs"][0]["areas"]
    (folder.path / "state.json").write_text(json.dumps(older))
    assert folder.state().val_pck == {"coordinates": 0.6}
    with pytest.raises(KeyboardInterrupt):
        run(folder.path, tiny_shards, config, Interrupts(epoch=3))
    assert folder.state().best.epoch == 1
    assert run(folder.path, tiny_shards, config).best.epoch == 3


def test_labels_are_judged_before_a_pixel_is(tiny_shards, tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("too early")

    inverted = Verdict("visibility", False, "the flag is inverted")
    monkeypatch.setattr("kpdata.train.loop.preflight.gates.check_data", lambda *_: [inverted])
    monkeypatch.setattr("kpdata.train.data.decoding.decode_crop", refuse)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingError, match="the flag is inverted"):
        train(folder, Dataset.open(tiny_shards), PLAIN)
    assert not folder.path.exists()


def test_a_run_that_ends_at_its_baseline_says_so(tiny_shards, tmp_path, monkeypatch):
    dataset, progress = Dataset.open(tiny_shards), Interrupts()
    val = load_crops(dataset, PLAIN, "val", 32)
    mean = placed_baseline(np.full((17, 2), 0.5), val)
    at = pck_area(Truth.of(val).poses(COCO17, mean), "torso", PLAIN.threshold).value
    for area, says in ((at + 0.01, 1), (at + 0.03, 0)):
        best = Best("", 0, 1, 32, ("coordinates",), {}, {"coordinates": area})
        progress.warnings.clear()
        warn_of_baseline(PLAIN, State(best=best), mean, val, progress)
        assert len(progress.warnings) == says
    monkeypatch.setattr(loop, "placed_baseline", lambda _, crops: crops.truth)
    run(tmp_path / "run", tiny_shards, with_epochs(PLAIN, 1), progress)
    (said,) = (text for text in progress.warnings if "baseline" in text)
    assert said.startswith("the run ends at its baseline: the area under PCK's curve is 0.")


def test_moving_statistics_that_lag_behind_are_told(tiny_shards, tmp_path, monkeypatch):
    """As with a memory of a thousand steps in a run of some: the batch's own are far better."""
    monkeypatch.setattr("kpdata.train.loop.phase._BATCH_JUDGED", 4)
    seen: list[float] = []

    def scores(phase: PhaseRun, *_: Any) -> tuple[dict[str, float], dict[str, float]]:
        norms = [x for x in phase.net._flatten_layers() if isinstance(x, BatchNormalization)]
        seen.append(float(np.mean([ops.convert_to_numpy(x.moving_mean).std() for x in norms])))
        area = 0.9 if norms[0].momentum == 0 else 0.2
        return {"coordinates": area}, {"coordinates": area}

    monkeypatch.setattr(PhaseRun, "_scores", scores)
    progress = Interrupts()
    run(tmp_path / "run", tiny_shards, with_epochs(PLAIN, 1), progress)
    assert seen[1] != seen[2]  # the statistics are the batch's own
    (said,) = (text for text in progress.warnings if "batch normalisation" in text)
    assert "4 crops of val score an area of 0.900 with their own mean and variance, and 0.2" in said
    monkeypatch.setattr("kpdata.train.loop.phase._LAG", 0.8)
    progress.warnings.clear()
    run(tmp_path / "other", tiny_shards, with_epochs(PLAIN, 1), progress)
    assert not [text for text in progress.warnings if "batch normalisation" in text]


def test_norms_that_train_from_scratch_forget_their_first_steps():
    """Their moving statistics validate; after a short run they must be the batches' own."""
    config = REGRESSION.with_options(backbone="mobilenet", head="softargmax", dropout=0.0)
    for net in (config.build(14, 64), BLAZEPOSE.build(14, 64)):
        norms = [
            layer for layer in net._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]  # fmt: skip
        assert norms
        assert {layer.momentum for layer in norms} == {BATCH_NORM_MEMORY}


def test_the_plateau_halves_the_rate_and_a_resumed_run_has_it_again(
    tiny_shards, tmp_path, monkeypatch
):
    scripted(monkeypatch, [0.5, 0.4, 0.4, 0.6, 0.1])
    config = with_epochs(PLAIN, 5, schedule="plateau", plateau_patience=1)
    rate = config.phases[0].learning_rate
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", tiny_shards, config, Interrupts(4))
    state = run(tmp_path / "run", tiny_shards, config)
    assert [row.learning_rate / rate for row in state.epochs] == pytest.approx(
        [1, 1, 0.5, 0.25, 0.25]
    )


@pytest.fixture(scope="module")
def unlabelled_val(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of whole images whose split ``val`` has people, but no keypoint of them."""
    source = formats.read("coco", tiny_coco / "annotations.json")
    request = Request.of(source, format="coco", split="50/25/25", shards=3, seed=2)
    keys = tmp_path_factory.mktemp("plain") / "shards"
    convert(source, request, keys, SILENT)
    val = {sample.key for sample in Dataset.open(keys)["val"]}
    blank = [
        replace(s, instances=tuple(replace(i, keypoints=0 * i.keypoints) for i in s.instances))
        if s.key in val else s
        for s in formats.read("coco", tiny_coco / "annotations.json").samples
    ]  # fmt: skip
    out = tmp_path_factory.mktemp("unlabelled") / "shards"
    convert(replace(source, samples=blank), request, out, SILENT)
    return out


@pytest.fixture(scope="module", params=["no val", "empty val", "no labels"])
def without_val(request, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards without any crop to validate on."""
    if request.param == "no labels":
        return request.getfixturevalue("unlabelled_val")
    folder = Path(shutil.copytree(tiny_shards, tmp_path_factory.mktemp("shards") / "shards"))
    manifest = Dataset.open(folder).manifest
    splits = dict(manifest.splits)
    val = splits.pop("val")
    if request.param == "empty val":
        nothing = {"samples": 0, "records": 0, "copies": 0, "instances": 0, "shards": ()}
        splits["val"] = msgspec.structs.replace(val, **nothing)
    write_manifest(folder, msgspec.structs.replace(manifest, splits=splits))
    return folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"patience": 3}, "patience"), ({"schedule": "plateau"}, "schedule=plateau"),
     ({"patience": 3, "schedule": "plateau"}, "patience and schedule=plateau")],
)  # fmt: skip
def test_what_follows_the_validation_score_is_refused_without_one(
    without_val, tmp_path, changes, says
):
    config = with_epochs(PLAIN, 1, **changes)
    with pytest.raises(TrainingError, match=rf"^{says}: needs .* no split 'val' with .*patience=0"):
        run(tmp_path / "run", without_val, config)


def test_without_a_validation_the_last_epoch_is_kept_and_that_is_said(without_val, tmp_path):
    progress = Interrupts()
    state = run(tmp_path / "run", without_val, with_epochs(PLAIN, 2), progress)
    assert progress.warnings == [
        "the shards have no split 'val' with labels: the last epoch is kept, not the best"
    ]
    assert (state.best.epoch, state.best.scores) == (2, {})


def test_the_curves_can_be_watched_while_a_run_goes_on(tiny_shards, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "kpdata.train.loop.phase.curves",
        lambda history, _: drawn.append(len(history.read_text().splitlines()) - 1),
    )
    run(tmp_path / "often", tiny_shards, with_epochs(PLAIN, 2))
    assert drawn == [1, 2]  # once in half a minute, the first one at once, and at the end
    monkeypatch.setattr("kpdata.train.loop.phase._SECONDS_BETWEEN_CURVES", 0.0)
    run(tmp_path / "always", tiny_shards, with_epochs(PLAIN, 2))
    assert drawn[2:] == [1, 2, 2]


def test_validation_every_second_epoch_and_at_the_end(tiny_shards, tmp_path):
    state = run(tmp_path / "run", tiny_shards, with_epochs(PLAIN, 3, validate_every=2))
    assert [row.score is not None for row in state.epochs] == [False, True, True]


def test_without_a_validation_split_the_last_epoch_is_kept(tiny_coco, tmp_path):
    from kpdata import formats
    from kpdata.pipelines import Request, convert

    source = formats.read("coco", tiny_coco / "annotations.json")
    request = Request.of(source, format="coco", split="60/0/40", shards=4)
    convert(source, request, tmp_path / "shards", SILENT)
    progress = Interrupts()
    state = run(tmp_path / "run", tmp_path / "shards", PLAIN, progress)
    assert state.best.epoch == 2
    assert [row.score for row in state.epochs] == [None, None]
    assert "no split 'val' with labels: the last epoch is kept" in progress.warnings[0]


# --- numbers that are none


def poisoned(monkeypatch: pytest.MonkeyPatch, iteration: int, gradient_only: bool) -> None:
    """Let one step's visibility loss, or only its gradient, be NaN."""
    own = Learner.value_of

    def value_of(self: Learner, loss: Loss, outputs: dict[str, Any], labels: Any) -> Any:
        value = own(self, loss, outputs, labels)
        if loss.name != "visibility":
            return value
        here = ops.equal(self.optimizer.iterations, iteration)
        if not gradient_only:
            return value * ops.where(here, float("nan"), 1.0)
        nothing = ops.sum(outputs["visibility"]) * ops.where(here, 0.0, 1.0)
        return value + 1e-9 * ops.sqrt(nothing * nothing)

    monkeypatch.setattr(Learner, "value_of", value_of)


def assert_finite(folder: RunFolder) -> None:
    files = list(folder.checkpoints.iterdir())
    for file in files:
        arrays = stored(folder, f"checkpoints/{file.name}")
        assert arrays
        assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_loss_that_is_no_number_names_step_batch_and_last_good_checkpoint(
    tiny_shards, tmp_path, monkeypatch
):
    crops = load_crops(Dataset.open(tiny_shards), PLAIN, "train", 32)
    batches = Batches(crops, AUGMENT, PLAIN.batch_size, PLAIN.seed)
    poisoned(monkeypatch, batches.steps + 1, gradient_only=False)
    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "run", tiny_shards, PLAIN)
    keys = ", ".join(batches.keys(1, 1))
    assert f"the loss is not a number after step 2 of epoch 2. The batch held: {keys}. " in str(
        caught.value
    )
    assert "Last good checkpoint: checkpoints/last-00001.weights.h5" in str(caught.value)
    folder = RunFolder(tmp_path / "run")
    assert folder.state().last == "checkpoints/last-00001.weights.h5"
    assert_finite(folder)
    monkeypatch.undo()
    assert len(run(folder.path, tiny_shards, PLAIN).epochs) == 2


def test_an_epoch_that_spoils_the_weights_in_its_last_step_is_not_kept(
    tiny_shards, tmp_path, monkeypatch
):
    crops = load_crops(Dataset.open(tiny_shards), PLAIN, "train", 32)
    steps = Batches(crops, AUGMENT, PLAIN.batch_size, PLAIN.seed).steps
    poisoned(monkeypatch, 2 * steps - 1, gradient_only=True)
    says = f"weights are not a number after step {steps} of epoch 2, its last; all losses were. The"
    with pytest.raises(TrainingError, match=says):
        run(tmp_path / "run", tiny_shards, PLAIN)
    folder = RunFolder(tmp_path / "run")
    assert len(folder.state().epochs) == 1
    assert_finite(folder)


def test_predictions_that_are_no_numbers_stop_the_run_before_anything_is_kept(
    tiny_shards, tmp_path, monkeypatch
):
    def blind(reader: PoseReader, crops: LabelledCrops) -> Predictions:
        found = np.zeros((len(crops), 17, 3))
        found[1, 3, 0] = np.nan
        return Predictions({"coordinates": found}, None, "coordinates")

    monkeypatch.setattr("kpdata.train.loop.phase.predict_crops", blind)
    val = load_crops(Dataset.open(tiny_shards), PLAIN, "val", 32)
    with pytest.raises(TrainingError, match=r"predictions are not a number .* none yet") as caught:
        run(tmp_path / "run", tiny_shards, PLAIN)
    said = str(caught.value)
    where = "after epoch 1, though its losses and weights are"
    assert f"for 1 of {len(val)} crops of val {where}: {val.keys[1]}. Last" in said
    assert "batch" not in said  # none of them is to blame
    assert not list(RunFolder(tmp_path / "run").checkpoints.iterdir())


def test_what_validation_measures_by_is_said_where_most_have_no_torso(tiny_shards, monkeypatch):
    val = load_crops(Dataset.open(tiny_shards), PLAIN, "train", 32)
    progress = Interrupts()
    check_reference(PLAIN, val, progress)
    assert not progress.warnings
    monkeypatch.setattr("kpdata.train.evaluate.scores._USUAL", 1.0)
    check_reference(msgspec.structs.replace(PLAIN, reference="torso"), val, progress)
    assert not progress.warnings
    check_reference(PLAIN, val, progress)
    assert progress.warnings[0].startswith("validation: the reference length is bbox: ")


def test_one_picture_for_several_people_is_warned_of_once(tiny_shards, tmp_path):
    progress = Interrupts(epoch=2)
    config = msgspec.structs.replace(PLAIN, crop_from="image")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", tiny_shards, config, progress)
    progress.epoch = 0
    run(tmp_path / "run", tiny_shards, config, progress)
    warned = [text for text in progress.warnings if "crop_from=bbox" in text]
    assert [text.split(" show ")[0].split(" of ")[-1] for text in warned] == ["train", "val"]


def test_a_run_knows_the_squares_of_its_shards_whatever_its_recipe_says(
    tiny_coco, tiny_shards, tmp_path
):
    source = formats.read("coco", tiny_coco / "annotations.json")
    crop: dict[str, Any] = {"crop": 32, "crop_from": "keypoints", "margin": 1.75}
    request = Request.of(source, format="coco", split="50/25/25", shards=3, seed=2, **crop)
    convert(source, request, tmp_path / "crops", SILENT)
    own = msgspec.structs.replace(PLAIN, crop_from="bbox", margin=1.5)
    for shards, crop_rule in (
        (tmp_path / "crops", CropRule("keypoints", 1.75)),
        (tiny_shards, CropRule("bbox", 1.5)),
    ):
        dataset = Dataset.open(shards)
        crops = load_crops(dataset, own, "train", 32)
        folder = RunFolder(tmp_path / "run")
        folder.begin(own, loop.run_info(dataset, own, crops, None))
        folder.save_state(State(best=Best("", 0, 1, 32, ("coordinates",), {})))
        assert Predictor.open(folder.path).crop_rule == crop_rule
    older = msgspec.structs.replace(folder.info(), crop_rule=None)
    folder.begin(own, older)
    assert Predictor.open(folder.path).crop_rule == CropRule("bbox", 1.5)


def test_the_mean_pose_is_that_of_originals_alone(tiny_shards):
    dataset = Dataset.open(tiny_shards)
    train_split = load_crops(dataset, PLAIN, "train", 32)
    assert train_split.is_copy.any()
    originals = train_split.keypoints[~train_split.is_copy]
    expected = mean_pose(originals[..., :2] / 32, originals[..., 2])
    np.testing.assert_allclose(loop.run_info(dataset, PLAIN, train_split, None).mean_pose, expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"backbone": "alexnet"},
            "backbone 'alexnet' is unknown; known: mobilenet, .*mobilenet_v3,",
        ),
        ({"weights": "none.h5"}, "weights none.h5: no such file"),
        ({"weights": "best"}, "weights 'best': neither 'none', nor 'imagenet', nor a .h5"),
        ({"keypoint_weights": {"noze": 2.0}}, "no keypoint 'noze'"),
        ({"reference": ("nose", "tale")}, "no keypoint 'tale'"),
        ({"init_from": "nowhere"}, "nowhere is no training run: config.json is missing"),
    ],
)
def test_what_is_not_there_is_named_before_a_picture_is_read(
    tiny_shards, tmp_path, monkeypatch, changes, says
):
    monkeypatch.setattr(loop, "load", lambda *_, **__: pytest.fail("reads crops"))
    with pytest.raises(KpdataError, match=says):
        run(tmp_path / "run", tiny_shards, override(PLAIN, changes))


def test_weights_of_another_backbone_end_the_run_in_one_line_before_it_begins(
    whole, tiny_shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "load", lambda *_, **__: pytest.fail("reads crops"))
    weights = str(whole.weights(whole.state().best.file))
    config = PLAIN.with_options(weights=weights)
    with pytest.raises(KpdataError, match="do not fit mobilenet without its top") as caught:
        run(tmp_path / "run", tiny_shards, config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_on_limbs_needs_a_skeleton_that_has_some():
    config = msgspec.structs.replace(PLAIN, losses={"limbs": 0.1})
    check_config(config, COCO17)
    with pytest.raises(TrainingError, match=r"losses.limbs is 0.1, and skeleton dots has no edges"):
        check_config(config, Skeleton("dots", ("a", "b")))


def test_a_model_of_whole_images_is_refused(monkeypatch):
    spec = replace(PLAIN.spec, name="bottom-up", view="image")
    monkeypatch.setitem(models(), "bottom-up", spec)
    config = msgspec.structs.replace(PLAIN, model="bottom-up")
    with pytest.raises(TrainingError, match="model is bottom-up: it takes whole images"):
        check_config(config, COCO17)


def test_squares_that_the_shards_crops_do_not_have_are_warned_of(tiny_shards):
    class Heard(Progress):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warn(self, text: str) -> None:
            self.warnings.append(text)

    whole = Dataset.open(tiny_shards)
    options = {**whole.manifest.options, "crop": 64, "crop_from": "keypoints", "margin": 1.5}
    cropped = replace(whole, manifest=msgspec.structs.replace(whole.manifest, options=options))
    fitting = msgspec.structs.replace(PLAIN, crop_from="keypoints", margin=1.5)
    heard = Heard()
    for config, dataset in ((PLAIN, whole), (fitting, cropped), (PLAIN, cropped)):
        warn_of_unused_crop_rule(config, dataset, heard)
    assert heard.warnings == [
        "crop_from=bbox and margin=1.25 change nothing: the shards are crops already, of a square "
        "around the keypoints, × 1.5"
    ]


# --- starting from another run


def test_a_run_starts_from_the_best_of_another(whole, tiny_shards, tmp_path, monkeypatch):
    starts: list[dict[str, np.ndarray]] = []

    class Recorded(PhaseRun):
        def on_train_begin(self, logs: Any = None) -> None:
            starts.append(values(self.net))

    monkeypatch.setattr(loop, "PhaseRun", Recorded)
    config = with_epochs(REGRESSION, 1, init_from=str(whole.path))
    run(tmp_path / "run", tiny_shards, config)
    best = load(whole, REGRESSION, 32, whole.state().best.file)
    for path, value in best.items():
        if "seed_generator" not in path:
            np.testing.assert_array_equal(starts[0][path], value, err_msg=path)


def test_a_stage_alone_keeps_the_heads_that_its_start_was_taught(staged, tiny_shards, tmp_path):
    assert set(staged[0].state().best.heads) == {"heatmap", "coordinates"}
    phases = (Phase("heatmap", 1, 32, 3e-3),)
    config = msgspec.structs.replace(BLAZEPOSE, phases=phases, init_from=str(staged[0].path))
    state = run(tmp_path / "run", tiny_shards, config)
    assert state.best
    assert set(state.best.heads) == {"heatmap", "coordinates"}


def test_a_run_resumed_before_its_first_validation_keeps_the_heads_of_its_start(
    staged, tiny_shards, tmp_path
):
    config = msgspec.structs.replace(
        BLAZEPOSE,
        phases=(Phase("regression", 2, 32, 3e-3),),
        init_from=str(staged[0].path),
        validate_every=2,
    )
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", tiny_shards, config, Interrupts(2))
    assert RunFolder(tmp_path / "run").state().best is None
    state = run(tmp_path / "run", tiny_shards, config)
    assert state.best
    assert state.best.heads == ("heatmap", "coordinates")


def unlike(run: Path, to: Path, name: str, key: str, value: Any) -> str:
    """A copy of a run, with another value of one key in one of its files."""
    shutil.copytree(run, to)
    content = json.loads((to / f"{name}.json").read_text())
    inside = content["options"] if key in content.get("options", ()) else content
    inside[key] = value
    (to / f"{name}.json").write_text(json.dumps(content))
    return str(to)


@pytest.mark.parametrize(
    ("name", "key", "value", "says"),
    [
        ("config", "head", "softargmax", "backbone=mobilenet head=softargmax, and .* head=rle"),
        ("config", "backbone", "mobilenet_v3", "backbone=mobilenet_v3_large head=rle, and"),
        ("dataset", "skeleton", msgspec.to_builtins(LSP14), "the run predicts 14 keypoints of lsp"),
        ("state", "best", None, "no weights to start from"),
    ],
)
def test_a_start_of_other_weights_is_refused_before_a_picture_is_read(
    whole, tiny_shards, tmp_path, monkeypatch, name, key, value, says
):
    monkeypatch.setattr(loop, "load", lambda *_, **__: pytest.fail("reads crops"))
    start = unlike(whole.path, tmp_path / "start", name, key, value)
    with pytest.raises(TrainingError, match=says):
        run(tmp_path / "run", tiny_shards, with_epochs(REGRESSION, 1, init_from=start))


# --- other machines


def on_jax(
    shards: Path, out: Path, config: TrainConfig, devices: list[int], check: bool = False
) -> dict[str, Any]:
    """What loop_run.py prints when run on JAX, where TensorFlow cannot be imported."""
    pytest.importorskip("jax")
    request: dict[str, Any] = {"shards": str(shards), "out": str(out), "devices": devices}
    request |= {"check": check, "block": "tensorflow"}
    request["config"] = msgspec.json.encode(config).decode()
    flags = f"{QUICK_COMPILATION} --xla_force_host_platform_device_count={max(devices)}"
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    script = Path(__file__).with_name("loop_run.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(request)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (found["backend"], found["tensorflow"]) == ("jax", False)
    return found


def test_jax_trains_the_same_epoch_without_tensorflow(staged, tiny_shards, tmp_path):
    phases = (Phase("both", 1, 32, 1e-3),)
    config = msgspec.structs.replace(BLAZEPOSE, phases=phases, init_from=str(staged[0].path))
    (expected,) = run(tmp_path / "here", tiny_shards, config).epochs
    ((row,),) = on_jax(tiny_shards, tmp_path / "there", config, [1])["rows"]
    parts = {"loss", "heatmap", "coordinates", "visibility"}
    assert row["losses"].keys() == expected.losses.keys() == parts
    assert row["losses"] == pytest.approx(expected.losses, rel=0.02)
    assert row["scores"].keys() == expected.scores.keys() == {"heatmap", "coordinates"}


def test_three_devices_share_each_batch_of_the_same_run(tiny_shards, tmp_path):
    """By three, neither the gates' 8 crops nor the 32 read at a time can be divided."""
    config = msgspec.structs.replace(PLAIN, batch_size=6)
    one, three = on_jax(tiny_shards, tmp_path, config, [1, 3], check=True)["rows"]
    assert len(one) == len(three) == 2
    for row, other in zip(one, three, strict=True):
        assert row["losses"] == pytest.approx(other["losses"], rel=1e-3)
        assert row["scores"] == pytest.approx(other["scores"], abs=0.02)


def test_several_devices_need_jax_enough_of_them_and_a_batch_that_divides(monkeypatch):
    with pytest.raises(TrainingError, match="needs the JAX backend: set KERAS_BACKEND=jax"):
        loop.spread_over(2, 4)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    with pytest.raises(TrainingError, match="devices is 3: this machine has gpu:0, gpu:1"):
        loop.spread_over(3, 6)
    with pytest.raises(TrainingError, match="batch_size is 5: it does not divide among 2 devices"):
        loop.spread_over(2, 5)


def test_a_run_in_mixed_bfloat16_is_kept_in_float32(tiny_shards, tmp_path):
    folder = RunFolder(tmp_path / "run")
    state = run(folder.path, tiny_shards, with_epochs(PLAIN, 1, precision="mixed_bfloat16"))
    assert keras.config.dtype_policy().name == "float32"  # as it was before
    assert {a.dtype for n, a in stored(folder, state.best.file).items()} == {np.dtype("float32")}
    assert all(np.isfinite(list(state.epochs[0].losses.values())))
