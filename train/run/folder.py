"""A run's folder: its configuration, what it was trained on, its history and its weights.

config.json       the TrainConfig
dataset.json      a RunInfo: skeleton, shards and their root hash, mean pose
state.json        a State; written last, it names the weight files that count
history.csv       a row for every epoch; curves.png draws it
checkpoints/      weights: of the best epoch, and everything needed to go on
logs/             for TensorBoard
evaluation-SPLIT/ what ``kpdata evaluate`` leaves
"""

import contextlib
import csv
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kpdata.core.crop import CropRule
from kpdata.core.errors import KpdataError, SchemaError, TrainingError, first_line
from kpdata.core.skeleton import Skeleton
from kpdata.storage.atomic import temporary_beside, write_atomically
from kpdata.storage.bounded import read_bounded
from kpdata.train.run.config import LARGEST_INPUT, SMALLEST_INPUT, TrainConfig

T = TypeVar("T")

WEIGHTS = ".weights.h5"
_MOST_BYTES = 64 << 20
_HEADS = ("heatmap", "coordinates")


class RunInfo(msgspec.Struct, frozen=True):
    """What a run was trained on.

    Attributes:
        shards: the dataset's folder, and ``root_hash`` what it held.
        skeleton: of the keypoints that the model finds.
        crop: in words.
        mean_pose: (K, 2) of the training pictures that are no augmented copies, in parts of their
            side.
        pictures: how many of each split.
        software: versions and backend.
        crop_rule: which squares the model learnt to see; None in runs that do not say.
    """

    shards: str
    root_hash: str
    skeleton: Skeleton
    crop: str
    mean_pose: tuple[tuple[float, float], ...]
    pictures: dict[str, int]
    software: dict[str, str]
    crop_rule: CropRule | None = None


class Row(msgspec.Struct, frozen=True):
    """One epoch.

    Attributes:
        phase, trains, input_size: which phase it belongs to.
        epoch: counted over all phases, from 1.
        losses: the mean of each over the epoch; ``loss`` is their weighted sum.
        scores: validation PCK of each head; empty where there was no validation.
        learning_rate: at the epoch's end.
        images_per_second: of training alone; ``seconds`` include the validation.
    """

    phase: int
    trains: str
    input_size: int
    epoch: int
    losses: dict[str, float]
    scores: dict[str, float]
    learning_rate: float
    images_per_second: float
    seconds: float

    @property
    def score(self) -> float | None:
        """What validation selects by: the mean over the heads."""
        return sum(self.scores.values()) / len(self.scores) if self.scores else None


class Best(msgspec.Struct, frozen=True):
    """The weights that count: of the best epoch of the last phase that was begun.

    Attributes:
        file: below the run's folder.
        phase, epoch, input_size: where they come from.
        heads: what had been trained by then.
        scores: their validation PCK.
    """

    file: str
    phase: int
    epoch: int
    input_size: int
    heads: tuple[str, ...]
    scores: dict[str, float]

    def __post_init__(self) -> None:
        """Raise SchemaError where no model can be built of it."""
        if not SMALLEST_INPUT <= self.input_size <= LARGEST_INPUT:
            raise SchemaError(f"best.input_size is {self.input_size}")
        if not set(self.heads) <= set(_HEADS):
            raise SchemaError(f"best.heads is {self.heads}: expected some of {', '.join(_HEADS)}")


class State(msgspec.Struct, frozen=True):
    """How far a run is.

    Attributes:
        rows: the epochs that are done.
        best: None before the first validation.
        last: weights and optimizer after the last epoch in ``rows``, below the run's folder.
        done: phases that are finished.
        taught: the heads that the run's start had been taught, which ``best`` is to have too.
    """

    rows: tuple[Row, ...] = ()
    best: Best | None = None
    last: str | None = None
    done: int = 0
    taught: tuple[str, ...] = ()

    def of_phase(self, phase: int) -> tuple[Row, ...]:
        """The epochs of one phase."""
        return tuple(row for row in self.rows if row.phase == phase)


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and their reading and writing."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where weights are."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """Where TensorBoard looks."""
        return self.path / "logs"

    @property
    def history_csv(self) -> Path:
        """A row for every epoch."""
        return self.path / "history.csv"

    def config(self) -> TrainConfig:
        """What the run does; TrainingError where this is no run."""
        return self._read("config.json", TrainConfig)

    def info(self) -> RunInfo:
        """What it was trained on."""
        return self._read("dataset.json", RunInfo)

    def state(self) -> State:
        """How far it is."""
        if not (self.path / "state.json").is_file():
            return State()
        return self._read("state.json", State)

    def begin(self, config: TrainConfig, info: RunInfo) -> None:
        """Make the folder a run."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._write("dataset.json", info)
        self._write("config.json", config)

    def save_state(self, state: State) -> None:
        """Write ``state`` and its table, and remove the weights that it does not name."""
        self._write("state.json", state)
        write_atomically(self.history_csv, _as_csv(state.rows).encode(), durable=False)
        named = {state.last, state.best and state.best.file}
        for file in self.checkpoints.iterdir():
            if f"{self.checkpoints.name}/{file.name}" not in named:
                file.unlink()

    def save_weights(self, name: str, save: Callable[[Path], None]) -> str:
        """Let ``save`` write weights, whole or not at all; the path below the folder."""
        path = self.checkpoints / f"{name}{WEIGHTS}"
        temporary = temporary_beside(path).with_suffix(WEIGHTS)
        try:
            save(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return f"{self.checkpoints.name}/{path.name}"

    def weights(self, file: str) -> Path:
        """The path of a weight file that the state names."""
        path = self.path / file
        if path.parent != self.checkpoints or not path.is_file():
            raise TrainingError(f"{path}: these weights are missing, though state.json names them")
        return path

    def load_weights(self, file: str, load: Callable[[Path], None]) -> None:
        """Let ``load`` read a weight file that the state names; TrainingError where it cannot."""
        path = self.weights(file)
        try:
            load(path)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise TrainingError(
                f"{path} is damaged or does not fit the model: {first_line(error)}"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings away from this folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TrainingError(
                    f"{self.path}: another training writes to this folder: choose another --out"
                ) from None
            yield

    def _read(self, name: str, kind: type[T]) -> T:
        path = self.path / name
        try:
            return msgspec.json.decode(read_bounded(path, _MOST_BYTES), type=kind)
        except FileNotFoundError:
            raise TrainingError(
                f"{self.path} is no training run: {name} is missing. Start one with "
                "kpdata train SHARDS --out FOLDER"
            ) from None
        except OSError as error:
            raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KpdataError) as error:
            raise TrainingError(f"{path} is damaged: {error}") from error

    def _write(self, name: str, value: Any) -> None:
        text = msgspec.json.format(msgspec.json.encode(value), indent=1)
        write_atomically(self.path / name, text + b"\n")


def _as_csv(rows: tuple[Row, ...]) -> str:
    flat = [
        {
            "epoch": row.epoch,
            "phase": row.phase,
            "trains": row.trains,
            "input_size": row.input_size,
            **{name if name == "loss" else f"loss_{name}": v for name, v in row.losses.items()},
            **({} if row.score is None else {"val_pck": row.score}),
            **{f"val_pck_{head}": value for head, value in row.scores.items()},
            "learning_rate": row.learning_rate,
            "images_per_second": row.images_per_second,
            "seconds": row.seconds,
        }
        for row in rows
    ]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
