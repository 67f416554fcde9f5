"""One phase of a run, and what happens at the ends of its epochs."""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import keras
import msgspec
import numpy as np

from kpdata.core.errors import TrainingError
from kpdata.core.progress import Progress
from kpdata.core.splits import VAL
from kpdata.metrics import pck, pck_area
from kpdata.train.data.batches import Batches
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.evaluate.plots import curves, sheet
from kpdata.train.evaluate.scores import chosen_reference
from kpdata.train.infer.predictions import Predictions, Truth
from kpdata.train.infer.reader import PoseReader, predict_crops
from kpdata.train.loop.checks import best_of
from kpdata.train.loop.learner import Learner, dropout_seeds
from kpdata.train.loop.optimisers import (
    averaged_weights,
    epochs_since_best,
    make_optimiser,
    plateau_rate,
)
from kpdata.train.loop.scanned import ScannedLearner, can_scan, epochs
from kpdata.train.ops.device import compiles_steps
from kpdata.train.ops.targets import normalise
from kpdata.train.run.backend import interrupted_after
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.events import EventLog
from kpdata.train.run.folder import Best, EpochRecord, PretrainedStart, RunFolder, State

_EPOCHS_BETWEEN_SHEETS = 10
_CROPS_SHOWN = 6
_SECONDS_BETWEEN_CURVES = 30.0
_KEYS_NAMED = 8
_HOW = {
    "exact": "heads that start from BlazePose's",
    "derived": "heads that start from the mean of BlazePose's",
    "missing": "heads that start at random",
}

_BATCH_JUDGED = 32
"""Crops whose own statistics are compared with the moving ones."""

_LAG = 0.1
"""By how much the area under PCK's curve may be better with them, by chance."""


class PhaseRun(keras.callbacks.Callback):
    """One phase of a run, and what happens at the ends of its epochs.

    Args:
        folder: the run's.
        config: the run's.
        number: of the phase.
        train, val: crops to train on, and to validate on if there are any.
        state: how far the run is.
        progress: hears of it.
        log: for TensorBoard.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainConfig,
        number: int,
        train: LabelledCrops,
        val: LabelledCrops | None,
        state: State,
        progress: Progress,
        log: EventLog,
    ):
        super().__init__()
        self.folder, self.config, self.progress, self.log = folder, config, progress, log
        self.number, self.phase, self.state = number, config.phases[number], state
        self.val = val
        self.skeleton = skeleton = train.skeleton
        self.batches = Batches(train, config.augment, config.batch_size, config.seed)
        loading = bool(state.epochs)
        self.net = config.build(len(skeleton), self.phase.input_size, loading=loading)
        self.scans = can_scan(train)
        learner = ScannedLearner if self.scans else Learner
        self.learner = learner(self.net, config, self.phase, skeleton)
        self.optimiser = make_optimiser(config, self.phase, self.batches.steps, self.net)
        self.optimiser.build(self.learner.trainable_variables)
        self.learner.compile(self.optimiser, jit_compile=compiles_steps())
        self.heads = config.spec.heads_of(self.phase.trains)
        heads = tuple(config.spec.head(name) for name in self.heads)
        with_visibility = config.losses.get("visibility", 0) > 0
        self.reader = PoseReader(
            self.net, skeleton, heads, flip=False, with_visibility=with_visibility
        )
        self._seconds: list[float] = []
        self._drawn = -math.inf

    def run(self) -> State:
        """Train what is left of the phase."""
        done = self._restore()
        first = sum(phase.epochs for phase in self.config.phases[: self.number])
        trainable = _numbers_in(self.learner.trainable_variables)
        self.progress.tell(
            f"phase {self.number + 1} of {len(self.config.phases)}: {self.phase.trains}, "
            f"{self.phase.epochs:,} epochs of {self.batches.steps:,} steps at "
            f"{self.phase.input_size} px; {_count(trainable)} of "
            f"{_count(self.learner.count_params())} parameters are trained"
        )
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
            self._tell_if_statistics_lag()
        self._tell_if_not_better()
        self.state = msgspec.structs.replace(self.state, done=self.number + 1)
        self.folder.save_state(self.state)
        self._draw_curves()
        return self.state

    def _draw_curves(self) -> None:
        with interrupted_after():  # Matplotlib calls Python from C, where a Ctrl-C may get lost
            curves(self.folder.history_csv, self.folder.path / "curves.png")
        self._drawn = time.monotonic()

    def _tell_if_not_better(self) -> None:
        """Warn of a phase whose epochs all stay behind an earlier phase's."""
        best = self.state.best
        if self.val and best and best.phase < self.number and self._done():
            self.progress.warn(
                f"phase {self.number + 1} made nothing better: epoch {best.epoch} of phase "
                f"{best.phase + 1} is kept. Was its learning rate of "
                f"{self.phase.learning_rate:g} too high?"
            )

    def _tell_if_statistics_lag(self) -> None:
        """Warn where batches are answered better by their own statistics than by the moving ones.

        It ends the phase: the network has the best weights afterwards, and those of one batch.
        """
        norms = [
            layer
            for layer in self.net._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        best = self.state.best
        if not (norms and self.val and best) or best.phase != self.number:
            return
        some = np.unique(np.linspace(0, len(self.val) - 1, _BATCH_JUDGED).round().astype(int))
        if len(some) < _BATCH_JUDGED:
            return
        crops = self.val.take(some)
        self.folder.load_weights(best.file, self.net.load_weights)

        def area() -> float:
            return mean(self._scores(crops, predict_crops(self.reader, crops))[1].values())

        moving = area()
        for norm in norms:
            norm.momentum = 0.0
        self.net(normalise(crops.images[np.arange(len(crops))]), training=True)
        if (own := area()) > moving + _LAG:
            self.progress.warn(
                f"batch normalisation lags behind: {len(crops)} crops of {VAL} score an area of "
                f"{own:.3f} with their own mean and variance, and {moving:.3f} with the moving "
                "ones, which the model answers with. Train for more epochs, or in larger batches"
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the epoch's clock and seed its dropout, which no checkpoint holds."""
        self._started, self._epoch = time.monotonic(), epoch
        crops = self.batches.steps * self.config.batch_size
        self.progress.begin(f"epoch {epoch + 1} of {self.config.epochs}", crops, "crops")
        for number, seed in enumerate(dropout_seeds(self.learner)):
            seed.assign([(self.config.seed + number) % 2**32, epoch * self.batches.steps])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop at a loss that is not a number: the epoch's mean cannot recover from it."""
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise self._blown_up(f"the loss is not a number {self._after(batch)}", batch)
        steps = self.batches.steps if self.scans else batch + 1
        note = f"loss {loss:.4f}"
        if batch or self._seconds:  # the first step compiles, and says nothing of the others
            note += f", run done in {_spoken(self._seconds_left(steps / self.batches.steps))}"
        self.progress.reach(steps * self.config.batch_size, note)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate the averaged weights, keep the best and the last, write the history."""
        trained = time.monotonic() - self._started
        self._refuse_bad_weights()
        last = epoch + 1 == sum(p.epochs for p in self.config.phases[: self.number + 1])
        scores: dict[str, float] = {}
        areas: dict[str, float] = {}
        best = self.state.best
        with averaged_weights(self.learner, self.optimiser):
            if self.val and (last or (epoch + 1) % self.config.validate_every == 0):
                predicted = predict_crops(self.reader, self.val)
                self._refuse_bad_predictions(self.val, predicted)
                scores, areas = self._scores(self.val, predicted)
                if (epoch + 1) % _EPOCHS_BETWEEN_SHEETS == 0:
                    some = np.arange(min(len(self.val), _CROPS_SHOWN))
                    drawn = sheet(self.val, predicted.keypoints[predicted.primary], some)
                    self.log.picture(epoch + 1, "val", drawn)
            if self._is_best(scores, areas):
                best = self._keep_best(epoch + 1, scores, areas)
        record = EpochRecord(
            phase=self.number,
            trains=self.phase.trains,
            input_size=self.phase.input_size,
            epoch=epoch + 1,
            losses={name: float(value) for name, value in (logs or {}).items()},
            scores=scores,
            areas=areas,
            learning_rate=float(self.optimiser.learning_rate),
            images_per_second=self.batches.steps * self.config.batch_size / trained,
            seconds=time.monotonic() - self._started,
        )
        self._seconds.append(record.seconds)
        self._tell(record, best is not self.state.best)
        self.log.scalars(record)
        records = (*self.state.epochs, record)
        self.state = msgspec.structs.replace(
            self.state, epochs=records, best=best, done=self.number
        )
        if self.config.schedule == "plateau":
            self.optimiser.learning_rate = plateau_rate(self.config, self.phase, self._done())
        self._checkpoint(epoch + 1)
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_CURVES:
            self._draw_curves()
        self.model.stop_training = self._is_stale()

    def _tell(self, record: EpochRecord, is_best: bool) -> None:
        score = ""
        if record.score is not None:
            score = f", val PCK {record.score:.3f}, area {record.area:.3f}"
        if score and is_best:
            score += " best"
        self.progress.tell(
            f"epoch {record.epoch}: loss {record.losses['loss']:.4f}{score}, learning rate "
            f"{record.learning_rate:.2g}, {record.images_per_second:,.0f} images/s"
        )

    def _seconds_left(self, share: float) -> float:
        """Seconds left of the run after this share of the epoch; ``patience`` may end it sooner.

        A crop of twice the side takes four times as long.
        """
        elapsed = time.monotonic() - self._started
        each = mean(self._seconds) if self._seconds else elapsed / share
        own = self.phase.input_size**2
        later = sum(p.epochs * p.input_size**2 / own for p in self.config.phases[self.number + 1 :])
        rest = self.phase.epochs - len(self._done()) - 1 + later
        return max(0.0, each - elapsed) + each * rest

    def _restore(self) -> int:
        """Load the weights to go on from; return how many epochs of the phase they have had."""
        done = self._done()
        if done and self.state.last:
            self.folder.load_weights(self.state.last, self.learner.load_weights)
        elif self.state.best:
            self.folder.load_weights(self.state.best.file, self.net.load_weights)
        elif self.config.init_from:
            other = RunFolder(Path(self.config.init_from))
            best = best_of(other)
            other.load_weights(best.file, self.net.load_weights)
            self.state = msgspec.structs.replace(self.state, init_heads=best.heads)
        else:
            self._start_pretrained()
        return len(done)

    def _start_pretrained(self) -> None:
        """Begin with weights that others have trained, where the model has some; score them."""
        mapping = self.config.start(self.net, self.skeleton)
        if mapping is None:
            return
        start = PretrainedStart(str(self.config.options["weights"]), mapping.keypoints)
        for how, words in _HOW.items():
            names = [
                f"{keypoint.name} ({' and '.join(keypoint.sources)})"
                if how == "derived"
                else keypoint.name
                for keypoint in mapping.keypoints
                if keypoint.how == how
            ]
            if names:
                self.progress.tell(f"{words}: {', '.join(names)}")
        if self.val:
            scores, areas = self._scores(self.val, predict_crops(self.reader, self.val))
            start = msgspec.structs.replace(start, scores=scores, areas=areas)
            self.progress.tell(
                f"epoch 0 (zero-shot): val PCK {mean(scores.values()):.3f}, area "
                f"{mean(areas.values()):.3f}"
            )
        self.state = msgspec.structs.replace(self.state, start=start)

    def _done(self) -> tuple[EpochRecord, ...]:
        return self.state.of_phase(self.number)

    def _scores(
        self, val: LabelledCrops, predicted: Predictions
    ) -> tuple[dict[str, float], dict[str, float]]:
        """PCK of each head, and the area under its curve."""
        scores, areas = {}, {}
        for head, keypoints in predicted.keypoints.items():
            poses = Truth.of(val).poses(val.skeleton, keypoints)
            reference = self.config.reference or chosen_reference(poses)
            scores[head] = pck(poses, reference, self.config.threshold).value
            areas[head] = pck_area(poses, reference, self.config.threshold).value
        return scores, areas

    def _is_best(self, scores: dict[str, float], areas: dict[str, float]) -> bool:
        """Whether no other epoch that trained the same heads is better: of equal ones, the last.

        Without validation the last epoch counts. Runs that were begun before areas were recorded
        have PCK alone.
        """
        best = self.state.best
        if not self.val or best is None:
            return bool(areas) or not self.val
        if not areas or best.scores.keys() != scores.keys():
            return bool(areas)
        ours, theirs = (areas, best.areas) if best.areas else (scores, best.scores)
        return mean(ours.values()) >= mean(theirs.values())

    def _keep_best(self, epoch: int, scores: dict[str, float], areas: dict[str, float]) -> Best:
        before = self.state.best
        known = before.heads if before else self.state.init_heads
        heads = tuple(dict.fromkeys((*known, *self.heads)))
        kept = {head: before.earlier.get(head, before.epoch) for head in known} if before else {}
        earlier = {head: kept[head] for head in kept if head not in self.heads}
        save, count = self.net.save_weights, _numbers_in(self.net.variables)
        file = self.folder.save_weights(f"best-{epoch:05d}", save, count)
        return Best(file, self.number, epoch, self.phase.input_size, heads, scores, areas, earlier)

    def _checkpoint(self, epoch: int) -> None:
        count = _numbers_in([*self.learner.variables, *self.optimiser.variables])
        last = self.folder.save_weights(f"last-{epoch:05d}", self.learner.save_weights, count)
        self.state = msgspec.structs.replace(self.state, last=last)
        self.folder.save_state(self.state)

    def _is_stale(self) -> bool:
        areas = [record.area for record in self._done() if record.area is not None]
        patience = self.config.patience
        return bool(patience) and epochs_since_best(areas) >= patience

    def _refuse_bad_weights(self) -> None:
        """Raise TrainingError for weights that are no numbers, after losses that were."""
        if not all(np.isfinite(weight).all() for weight in self.learner.get_weights()):
            last = self.batches.steps - 1
            raise self._blown_up(
                f"weights are not a number {self._after(last)}, its last; all losses were", last
            )

    def _refuse_bad_predictions(self, val: LabelledCrops, predicted: Predictions) -> None:
        """Raise TrainingError for predictions that are no numbers, naming their images."""
        finite = [
            np.isfinite(keypoints).all(axis=(1, 2)) for keypoints in predicted.keypoints.values()
        ]
        bad = np.flatnonzero(~np.all(finite, axis=0))
        if len(bad):
            keys = ", ".join(val.keys[i] for i in bad[:_KEYS_NAMED])
            raise self._blown_up(
                f"predictions are not a number for {len(bad):,} of {len(val):,} crops of val "
                f"after epoch {self._epoch + 1}, though its losses and weights are: {keys}"
            )

    def _after(self, batch: int) -> str:
        """The moment of a fault: of a scanned epoch only the end is known."""
        return ("in" if self.scans else f"after step {batch + 1} of") + f" epoch {self._epoch + 1}"

    def _blown_up(self, what: str, batch: int | None = None) -> TrainingError:
        """The error for ``what`` went wrong, with the images of ``batch`` if it is known."""
        if batch is not None and not self.scans:
            what += f". The batch held: {', '.join(self.batches.keys(self._epoch, batch))}"
        return TrainingError(
            f"{what}. Last good checkpoint: {self.state.last or 'none yet'}. Look at those images "
            "and labels, or begin another run with a smaller learning rate: the setting "
            f"phases.{self.number}.learning_rate"
        )


def _numbers_in(variables: Iterable[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _count(parameters: int) -> str:
    """``11.28 million``, ``9,420``."""
    return f"{parameters / 1e6:.2f} million" if parameters >= 1e6 else f"{parameters:,}"


def _spoken(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
