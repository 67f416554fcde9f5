import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kpdata.core.errors import TrainingError
from kpdata.core.skeletons import LSP14
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, EpochRecord, RunFolder, RunInfo, State

CONFIG = TrainConfig(phases=(Phase("heatmap", 2, 64, 1e-3),), reference=("neck", "head_top"))
INFO = RunInfo("/shards", "abc", LSP14, "whole", ((0.5, 0.25),) * 14, {"train": 3}, {"keras": "3"})


def row(epoch: int, **scores: float) -> EpochRecord:
    losses = {"loss": 1.5, "heatmap": 1.0}
    return EpochRecord(0, "heatmap", 64, epoch, losses, scores, 1e-3, 99.0, 2.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.begin(CONFIG, INFO)
    return made


def save(folder: RunFolder, name: str) -> str:
    return folder.save_weights(name, lambda path: path.write_bytes(name.encode()))


def test_what_is_written_is_read_back(folder):
    state = State((row(1, heatmap=0.25), row(2)), Best("f", 0, 1, 64, ("heatmap",), {}), "g", 1)
    folder.save_state(state)
    assert (folder.config(), folder.info(), folder.state()) == (CONFIG, INFO, state)


def test_a_run_that_has_not_ended_an_epoch_has_an_empty_state(folder):
    assert folder.state() == State()


def test_an_epochs_score_is_the_mean_of_its_heads():
    assert row(1, heatmap=0.5, coordinates=0.25).score == 0.375
    assert row(1).area is None
    assert row(1).score is None


def test_the_history_has_a_line_for_each_epoch_and_a_column_for_all_that_any_has(folder):
    folder.save_state(State((row(1), row(2, heatmap=0.5, coordinates=0.25))))
    lines = list(csv.DictReader(folder.history_csv.open()))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert [line["val_pck"] for line in lines] == ["", "0.375"]
    assert lines[1]["val_pck_coordinates"] == "0.25"
    assert {"loss", "loss_heatmap", "learning_rate", "images_per_second"} <= set(lines[0])


def test_saving_a_state_removes_the_weights_that_it_does_not_name(folder):
    best, old, last = (save(folder, name) for name in ("best", "old", "last"))
    (folder.checkpoints / ".last.weights.h5.123.tmp.weights.h5").touch()  # of a killed run
    folder.save_state(State((), Best(best, 0, 1, 64, (), {}), last))
    assert {f"checkpoints/{p.name}" for p in folder.checkpoints.iterdir()} == {best, last}
    assert folder.weights(best).read_bytes() == b"best"
    assert old not in {best, last}


def test_weights_appear_whole_or_not_at_all(folder):
    first = save(folder, "last")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.save_weights("last", fail)
    assert [p.name for p in folder.checkpoints.iterdir()] == [Path(first).name]
    assert folder.weights(first).read_bytes() == b"last"


@pytest.mark.parametrize(
    "file",
    ["../secret.h5", "checkpoints/../../secret.h5", "secret.h5", "checkpoints/..", "checkpoints/no",
     "{absolute}", "checkpoints/deep/../../../secret.h5", ""],
)  # fmt: skip
def test_weights_outside_of_the_folder_are_refused(folder, tmp_path, file):
    for secret in (tmp_path / "secret.h5", folder.path / "secret.h5"):
        secret.touch()
    with pytest.raises(TrainingError, match=r"weights are missing, though state\.json names"):
        folder.weights(file.format(absolute=tmp_path / "secret.h5"))


def test_weights_that_cannot_be_read_are_named(folder):
    file = save(folder, "last")

    def fail(path: Path) -> None:
        raise ValueError("3 layers, not 4")

    with pytest.raises(TrainingError, match=rf"{file} is damaged or does not fit .*: 3 layers"):
        folder.load_weights(file, fail)


@pytest.mark.parametrize("name", ["config", "dataset"])
def test_a_folder_that_is_no_run_says_what_is_missing(tmp_path, name):
    folder = RunFolder(tmp_path)
    with pytest.raises(TrainingError, match=rf"is no training run: {name}.json is missing"):
        folder.config() if name == "config" else folder.info()


@pytest.mark.parametrize("name", ["config", "dataset", "state"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("{", "{\udcff", 1),
        lambda text: '{"epochs": 3, "phases": 3, "shards": 3}',
    ],
    ids=["cut", "empty", "a list", "no UTF-8", "wrong types"],
)
def test_a_damaged_file_is_named(folder, name, damage):
    folder.save_state(State((row(1),)))
    path = folder.path / f"{name}.json"
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    read = {"config": folder.config, "dataset": folder.info, "state": folder.state}[name]
    with pytest.raises(TrainingError, match=rf"{name}.json is damaged: "):
        read()


def test_a_configuration_out_of_range_is_refused_on_reading(folder):
    path = folder.path / "config.json"
    tree = json.loads(path.read_text()) | {"batch_size": 0}
    path.write_text(json.dumps(tree))
    with pytest.raises(TrainingError, match=r"config\.json is damaged: batch_size is 0: exp"):
        folder.config()


def test_a_folder_takes_one_training_at_a_time(folder):
    script = (
        "import sys; from pathlib import Path; from kpdata.train.run.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('in')"
    )
    command = [sys.executable, "-c", script, folder.path]
    with folder.locked():
        other = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "TrainingError" in other.stderr
        assert "another training writes to this folder: choose another `out`" in other.stderr
    after = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert after.stdout == "in\n"


def test_states_are_plain_json(folder):
    folder.save_state(State((row(1, heatmap=0.5),)))
    tree = json.loads((folder.path / "state.json").read_text())
    assert tree["epochs"][0]["scores"] == {"heatmap": 0.5}
    assert msgspec.convert(tree, State) == folder.state()


def test_weights_that_do_not_fit_on_the_disk_are_not_begun(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr("kpdata.train.run.folder.shutil.disk_usage", lambda _: usage)
    saved = []
    folder.save_weights("a", lambda path: saved.append(path.write_bytes(b"x")), 900_000)
    with pytest.raises(TrainingError, match=r"5\.0 MB are free, and weights take 5\.0 MB: make ro"):
        folder.save_weights("b", saved.append, 1_000_000)
    assert len(saved) == 1


def test_each_head_has_the_score_of_the_weights_that_it_was_kept_from():
    def epoch(number, phase, **areas):
        scores = {head: area / 2 for head, area in areas.items()}
        return EpochRecord(phase, "x", 64, number, {}, scores, 1e-3, 9.0, 2.0, areas)

    epochs = (
        epoch(1, 0, heatmap=0.8), epoch(2, 0, heatmap=0.4), epoch(3, 1, coordinates=0.6),
    )  # fmt: skip
    heads = ("heatmap", "coordinates")
    best = Best("f", 1, 3, 64, heads, {"coordinates": 0.3}, {"coordinates": 0.6}, {"heatmap": 1})
    assert list(State(epochs, best).val_pck.items()) == [("heatmap", 0.4), ("coordinates", 0.3)]
    assert State(epochs).val_pck == {}
