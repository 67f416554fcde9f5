"""One phase of a run, and what happens at the ends of its epochs."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import keras
import msgspec
import numpy as np

from kpdata.checks.gates import Verdict
from kpdata.core.errors import TrainingError
from kpdata.metrics import pck
from kpdata.train.data.batches import Batches
from kpdata.train.data.pictures import Pictures
from kpdata.train.evaluate.plots import curves, sheet
from kpdata.train.evaluate.scores import chosen_reference
from kpdata.train.infer.predictions import Predictions, Truth
from kpdata.train.infer.reader import HEADS, PoseReader, read_pictures
from kpdata.train.loop.learner import Learner, dropout_seeds, jit
from kpdata.train.loop.optimisers import (
    averaged_weights,
    epochs_since_best,
    make_optimiser,
    plateau_rate,
)
from kpdata.train.loop.scanned import ScannedLearner, can_scan, epochs
from kpdata.train.models import build
from kpdata.train.run.config import Phase, TrainConfig
from kpdata.train.run.events import EventLog
from kpdata.train.run.folder import Best, Row, RunFolder, State

_EPOCHS_BETWEEN_PICTURES = 10
_PICTURES_SHOWN = 6
_KEYS_NAMED = 8


class Watcher:
    """Hears how a run goes; does nothing unless told to."""

    def reading(self, split: str, pictures: int) -> None:
        """``pictures`` of a split have been read."""

    def cropped(self, words: str) -> None:
        """What a new run's pictures show: how their squares were chosen."""

    def checking(self) -> None:
        """The checks before training begin."""

    def checked(self, verdict: Verdict) -> None:
        """One of them is done."""

    def phase(self, number: int, phase: Phase, parameters: tuple[int, int], steps: int) -> None:
        """A phase begins, with (trainable, all) parameters and batches an epoch."""

    def step(self, epoch: int, epochs: int, step: int, loss: float) -> None:
        """A batch of the epoch is done."""

    def epoch(self, row: Row, best: bool) -> None:
        """An epoch is done; ``best`` if no other of its phase was better."""

    def warn(self, text: str) -> None:
        """Something that the user should know."""


@dataclass(frozen=True, eq=False)
class TrainVal:
    """The pictures that a phase trains on and validates on."""

    train: Pictures
    val: Pictures | None


class PhaseRun(keras.callbacks.Callback):
    """One phase of a run, and what happens at the ends of its epochs."""

    def __init__(
        self,
        folder: RunFolder,
        config: TrainConfig,
        number: int,
        splits: TrainVal,
        state: State,
        watcher: Watcher,
        log: EventLog,
    ):
        super().__init__()
        self.folder, self.config, self.watcher, self.log = folder, config, watcher, log
        self.number, self.phase, self.state = number, config.phases[number], state
        self.val, skeleton = splits.val, splits.train.skeleton
        self.batches = Batches(splits.train, config.augment, config.batch_size, config.seed)
        fresh = config if not state.rows else msgspec.structs.replace(config, weights="none")
        self.net = build(fresh, len(skeleton), self.phase.input_size)
        self.scans = can_scan(splits.train)
        learner = ScannedLearner if self.scans else Learner
        self.learner = learner(self.net, config, self.phase, skeleton)
        self.optimiser = make_optimiser(config, self.phase, self.batches.steps)
        self.optimiser.build(self.learner.trainable_variables)
        self.learner.compile(self.optimiser, jit_compile=jit())
        heads, sees = HEADS[self.phase.trains], config.losses.visibility > 0
        self.reader = PoseReader(self.net, skeleton, heads, flip=False, sees=sees)

    def run(self) -> State:
        """Train what is left of the phase."""
        done = self._restore()
        first = sum(phase.epochs for phase in self.config.phases[: self.number])
        count = self.learner.count_params()
        learning = sum(math.prod(v.shape) for v in self.learner.trainable_variables)
        self.watcher.phase(self.number, self.phase, (learning, count), self.batches.steps)
        if done < self.phase.epochs and not self._is_stale():
            start = first + done
            self.learner.fit(
                epochs(self.batches, start) if self.scans else self.batches.dataset(start),
                steps_per_epoch=1 if self.scans else self.batches.steps,
                initial_epoch=start,
                epochs=first + self.phase.epochs,
                callbacks=[self],
                shuffle=False,
                verbose=0,
            )
        self.state = msgspec.structs.replace(self.state, done=self.number + 1)
        self.folder.save_state(self.state)
        curves(self.folder.history_csv, self.folder.path / "curves.png")
        return self.state

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the epoch's clock, and what is dropped in it, which no checkpoint holds."""
        self._started, self._epoch = time.monotonic(), epoch
        for number, seed in enumerate(dropout_seeds(self.learner)):
            seed.assign([(self.config.seed + number) % 2**32, epoch * self.batches.steps])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop at a loss that is not a number; it stays one for the rest of the epoch's mean."""
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise self._blown_up(f"the loss is not a number {self._after(batch)}", batch)
        done = self.batches.steps if self.scans else batch + 1
        self.watcher.step(self._epoch + 1, self.config.epochs, done, loss)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate the averaged weights, keep the best and the last, write the history."""
        trained = time.monotonic() - self._started
        self._refuse_bad_weights()
        last = epoch + 1 == sum(p.epochs for p in self.config.phases[: self.number + 1])
        scores, best = {}, self.state.best
        with averaged_weights(self.learner, self.optimiser):
            if self.val and (last or (epoch + 1) % self.config.validate_every == 0):
                found = read_pictures(self.reader, self.val)
                self._refuse_bad_predictions(self.val, found)
                scores = self._scores(self.val, found)
                self._show(epoch + 1, self.val, found)
            if self._is_best(scores):
                best = self._keep_best(epoch + 1, scores)
        row = Row(
            phase=self.number,
            trains=self.phase.trains,
            input_size=self.phase.input_size,
            epoch=epoch + 1,
            losses={name: float(value) for name, value in (logs or {}).items()},
            scores=scores,
            learning_rate=float(self.optimiser.learning_rate),
            images_per_second=self.batches.steps * self.config.batch_size / trained,
            seconds=time.monotonic() - self._started,
        )
        rows = (*self.state.rows, row)
        self.watcher.epoch(row, best is not self.state.best)
        self.log.scalars(row)
        self.state = msgspec.structs.replace(self.state, rows=rows, best=best, done=self.number)
        if self.config.schedule == "plateau":
            self.optimiser.learning_rate = plateau_rate(self.config, self.phase, self._done())
        self._checkpoint(epoch + 1)
        self.model.stop_training = self._is_stale()

    def _restore(self) -> int:
        """Load the weights to go on from; how many epochs of the phase they have seen."""
        done = self._done()
        if done and self.state.last:
            self.folder.load_weights(self.state.last, self.learner.load_weights)
        elif self.state.best:
            self.folder.load_weights(self.state.best.file, self.net.load_weights)
        elif self.config.start:
            taught = start_from(self.net, Path(self.config.start))
            self.state = msgspec.structs.replace(self.state, taught=taught)
        return len(done)

    def _done(self) -> tuple[Row, ...]:
        return self.state.of_phase(self.number)

    def _scores(self, val: Pictures, found: Predictions) -> dict[str, float]:
        scores = {}
        for head, keypoints in found.keypoints.items():
            poses = Truth.of(val).poses(val.skeleton, keypoints)
            reference = self.config.reference or chosen_reference(poses)
            scores[head] = pck(poses, reference, self.config.threshold).value
        return scores

    def _show(self, epoch: int, val: Pictures, found: Predictions) -> None:
        """Log a few validation pictures now and then."""
        if epoch % _EPOCHS_BETWEEN_PICTURES == 0:
            some = np.arange(min(len(val), _PICTURES_SHOWN))
            self.log.picture(epoch, "val", sheet(val, found.keypoints[found.primary], some))

    def _is_best(self, scores: dict[str, float]) -> bool:
        """Better than every other epoch of the phase, or the last where nothing is validated."""
        if not self.val:
            return True
        best = self.state.best
        if not scores or best is None or best.phase != self.number:
            return bool(scores)
        return mean(scores.values()) > mean(best.scores.values())

    def _keep_best(self, epoch: int, scores: dict[str, float]) -> Best:
        taught = self.state.best.heads if self.state.best else self.state.taught
        heads = tuple(dict.fromkeys((*taught, *HEADS[self.phase.trains])))
        file = self.folder.save_weights(f"best-{epoch:05d}", self.net.save_weights)
        return Best(file, self.number, epoch, self.phase.input_size, heads, scores)

    def _checkpoint(self, epoch: int) -> None:
        last = self.folder.save_weights(f"last-{epoch:05d}", self.learner.save_weights)
        self.state = msgspec.structs.replace(self.state, last=last)
        self.folder.save_state(self.state)

    def _is_stale(self) -> bool:
        scores = [row.score for row in self._done() if row.score is not None]
        patience = self.config.patience
        return bool(patience) and epochs_since_best(scores) >= patience

    def _refuse_bad_weights(self) -> None:
        """Raise TrainingError for weights that are no numbers, after losses that were."""
        if not all(np.isfinite(weight).all() for weight in self.learner.get_weights()):
            last = self.batches.steps - 1
            raise self._blown_up(
                f"weights are not a number {self._after(last)}, its last; all losses were", last
            )

    def _refuse_bad_predictions(self, val: Pictures, found: Predictions) -> None:
        """Raise TrainingError for predictions that are no numbers, naming their pictures."""
        finite = [np.isfinite(keypoints).all(axis=(1, 2)) for keypoints in found.keypoints.values()]
        bad = np.flatnonzero(~np.all(finite, axis=0))
        if len(bad):
            keys = ", ".join(val.keys[i] for i in bad[:_KEYS_NAMED])
            raise self._blown_up(
                f"predictions are not a number for {len(bad):,} of {len(val):,} pictures of val "
                f"after epoch {self._epoch + 1}, though its losses and weights are: {keys}"
            )

    def _after(self, batch: int) -> str:
        """When something was found: scanned epochs are known by their end alone."""
        return ("in" if self.scans else f"after step {batch + 1} of") + f" epoch {self._epoch + 1}"

    def _blown_up(self, what: str, batch: int | None = None) -> TrainingError:
        """The error that says ``what`` went wrong, and what ``batch`` held if one is known."""
        if batch is not None and not self.scans:
            what += f". The batch held: {', '.join(self.batches.keys(self._epoch, batch))}"
        return TrainingError(
            f"{what}. Last good checkpoint: {self.state.last or 'none yet'}. Look at those images "
            "and labels, or begin another run with a smaller learning rate: --set "
            f"phases.{self.number}.learning_rate=…"
        )


def start_from(net: keras.Model, path: Path) -> tuple[str, ...]:
    """Load the best weights of the run at ``path``, and say which heads they were taught.

    Raises:
        TrainingError: it has none, or they do not fit.
    """
    best = best_of(path)
    RunFolder(path).load_weights(best.file, net.load_weights)
    return best.heads


def best_of(path: Path) -> Best:
    """The best weights of the run at ``path``; TrainingError where it has none."""
    best = RunFolder(path).state().best
    if best is None:
        raise TrainingError(f"{path} has no weights to start from: no epoch is validated")
    return best
