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
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import msgspec

from kpdata.core.crop import CropRule
from kpdata.core.errors import KpdataError, TrainingError, first_line
from kpdata.core.mapping import MappedKeypoint
from kpdata.core.skeleton import Skeleton
from kpdata.storage.atomic import whole_file, write_atomically
from kpdata.storage.bounded import read_bounded
from kpdata.train.models.base import LARGEST_INPUT, SMALLEST_INPUT, check_within
from kpdata.train.run.config import TrainConfig

T = TypeVar("T")

WEIGHTS = ".weights.h5"
_MOST_BYTES = 64 << 20
_SPARE = 1 << 20
"""Bytes beside the weights: the file's own structure, and what else a run writes."""


class RunInfo(msgspec.Struct, frozen=True):
    """The dataset that a run was trained on.

    Attributes:
        shards: the dataset's folder or URL, and ``root_hash`` what it held.
        skeleton: of the keypoints that the model finds.
        crop: in words.
        mean_pose: (K, 2) of the training crops that are no augmented copies, in parts of their
            side.
        crops: how many of each split.
        software: versions and backend.
        crop_rule: the crops that the model was trained on; None in runs that do not say.
    """

    shards: str
    root_hash: str
    skeleton: Skeleton
    crop: str
    mean_pose: tuple[tuple[float, float], ...]
    crops: dict[str, int]
    software: dict[str, str]
    crop_rule: CropRule | None = None


class EpochRecord(msgspec.Struct, frozen=True):
    """One epoch.

    Attributes:
        phase, trains, input_size: which phase it belongs to.
        epoch: counted over all phases, from 1.
        losses: the mean of each over the epoch; ``loss`` is their weighted sum.
        scores: validation PCK of each head; empty where there was no validation.
        areas: area under the curve of validation PCK of each head, by which epochs are compared.
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
    areas: dict[str, float] = {}

    @property
    def score(self) -> float | None:
        """Validation PCK, the mean over the heads; None where there was no validation."""
        return mean(self.scores.values()) if self.scores else None

    @property
    def area(self) -> float | None:
        """The number by which epochs are compared: the mean of ``areas``, as PCK saturates."""
        return mean(self.areas.values()) if self.areas else None


class Best(msgspec.Struct, frozen=True):
    """The weights that are kept: of the best epoch among those that trained the last heads.

    Attributes:
        file: below the run's folder.
        phase, epoch, input_size: where they come from.
        heads: those that had been trained by then.
        scores: validation PCK of the heads that the phase trained.
        areas: area under the curve of validation PCK, likewise.
        earlier: head that the phase did not train → the epoch that it is kept from.
    """

    file: str
    phase: int
    epoch: int
    input_size: int
    heads: tuple[str, ...]
    scores: dict[str, float]
    areas: dict[str, float] = {}
    earlier: dict[str, int] = {}

    def __post_init__(self) -> None:
        """Raise SchemaError where no model can be built of it."""
        check_within("best.input_size", self.input_size, SMALLEST_INPUT, LARGEST_INPUT)


class PretrainedStart(msgspec.Struct, frozen=True):
    """What a run began with that others had trained.

    Attributes:
        weights: their name, or their file.
        keypoints: which of their keypoints each head started from.
        scores, areas: of each head before the first step, as in :class:`EpochRecord`.
    """

    weights: str
    keypoints: tuple[MappedKeypoint, ...]
    scores: dict[str, float] = {}
    areas: dict[str, float] = {}


class State(msgspec.Struct, frozen=True):
    """The progress of a run.

    Attributes:
        epochs: those that are done.
        best: None before the first validation.
        last: weights and optimizer after the last of ``epochs``, below the run's folder.
        done: phases that are finished.
        start: the pretrained weights that it began with, if any.
        init_heads: those of the run that this one started from, which ``best`` has too.
    """

    epochs: tuple[EpochRecord, ...] = ()
    best: Best | None = None
    last: str | None = None
    done: int = 0
    init_heads: tuple[str, ...] = ()
    start: PretrainedStart | None = None

    @property
    def val_pck(self) -> dict[str, float]:
        """Validation PCK of each head of the best weights, the one that answers first.

        A head that the last phase did not train has the score of the epoch that it was kept from.
        """
        if self.best is None:
            return {}
        scores = {}
        by_epoch = {record.epoch: record.scores for record in self.epochs}
        for head in self.best.heads:
            if head in self.best.scores:
                scores[head] = self.best.scores[head]
            elif epoch := self.best.earlier.get(head):
                scores[head] = by_epoch[epoch][head]
        return scores

    def of_phase(self, phase: int) -> tuple[EpochRecord, ...]:
        """The epochs of one phase."""
        return tuple(epoch for epoch in self.epochs if epoch.phase == phase)


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and their reading and writing."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the weights."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "logs"

    @property
    def history_csv(self) -> Path:
        """The table with a row for each epoch."""
        return self.path / "history.csv"

    def config(self) -> TrainConfig:
        """The configuration of the run; TrainingError if the folder is not a run."""
        return self._read("config.json", TrainConfig)

    def info(self) -> RunInfo:
        """The dataset that it was trained on."""
        return self._read("dataset.json", RunInfo)

    def state(self) -> State:
        """The progress of the run."""
        if not os.path.lexists(self.path / "state.json"):
            return State()
        return self._read("state.json", State)

    def begin(self, config: TrainConfig, info: RunInfo) -> None:
        """Write the files with which a run begins."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._write("dataset.json", info)
        self._write("config.json", config)

    def save_state(self, state: State) -> None:
        """Write ``state`` and its table, then remove the weight files that it does not name."""
        self._write("state.json", state)
        write_atomically(self.history_csv, _as_csv(state.epochs).encode(), durable=False)
        named = {state.last, state.best and state.best.file}
        for file in self.checkpoints.iterdir():
            if f"{self.checkpoints.name}/{file.name}" not in named:
                file.unlink()

    def save_weights(self, name: str, save: Callable[[Path], None], count: int = 0) -> str:
        """Let ``save`` write ``count`` numbers, whole or not at all; the path below the folder.

        Raises:
            TrainingError: there is no room for them. HDF5 would bring the process down.
        """
        path = self.checkpoints / f"{name}{WEIGHTS}"
        free = shutil.disk_usage(self.checkpoints).free
        needed = 4 * count + _SPARE
        if free < needed:
            raise TrainingError(
                f"{self.checkpoints}: {free / 1e6:,.1f} MB are free, and weights take "
                f"{needed / 1e6:,.1f} MB: make room there, and go on with `resume`"
            )
        with whole_file(path, suffix=WEIGHTS) as temporary:
            save(temporary)
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
                    f"{self.path}: another training writes to this folder: choose another `out`"
                ) from None
            yield

    def _read(self, name: str, kind: type[T]) -> T:
        path = self.path / name
        try:
            return msgspec.json.decode(read_bounded(path, _MOST_BYTES), type=kind)
        except FileNotFoundError:
            raise TrainingError(f"{self.path} is no training run: {name} is missing") from None
        except OSError as error:
            raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KpdataError) as error:
            raise TrainingError(f"{path} is damaged: {error}") from error

    def _write(self, name: str, value: Any) -> None:
        text = msgspec.json.format(msgspec.json.encode(value), indent=1)
        write_atomically(self.path / name, text + b"\n")


def _as_csv(rows: tuple[EpochRecord, ...]) -> str:
    flat = [
        {
            "epoch": row.epoch,
            "phase": row.phase,
            "trains": row.trains,
            "input_size": row.input_size,
            **{name if name == "loss" else f"loss_{name}": v for name, v in row.losses.items()},
            **({} if row.score is None else {"val_pck": row.score}),
            **{f"val_pck_{head}": value for head, value in row.scores.items()},
            **({} if row.area is None else {"val_pck_area": row.area}),
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
