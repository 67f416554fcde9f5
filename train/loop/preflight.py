"""The gates, run on a training split and on a fresh model before a run begins."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import msgspec
import numpy as np

from kpdata.checks import gates
from kpdata.checks.gates import Verdict
from kpdata.core.errors import TrainingError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import FloatArray
from kpdata.core.transform import compose, resize_affine
from kpdata.train.data.batches import Batch
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.data.decoding import Indices
from kpdata.train.loop.checks import best_of
from kpdata.train.loop.learner import Learner
from kpdata.train.loop.optimisers import make_optimiser
from kpdata.train.models.base import Phase
from kpdata.train.ops.augment import only_crops
from kpdata.train.ops.device import compiles_steps
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import RunFolder

SAMPLES = 8

_STEPS, _MOST_STEPS = 40, 400
_RATE = 2e-3
_LARGEST_INPUT = 128
_ASTRAY = 10
"""Crop sides: predictions that far away, or not numbers, do not come back."""


def check_labels(crops: LabelledCrops) -> list[Verdict]:
    """Check the labels of a training split, without looking at a pixel.

    Augmented copies do not count: in a mirrored one, left and right are exchanged.
    """
    originals = np.flatnonzero(~crops.is_copy)
    return gates.check_data(
        crops.truth[originals],
        crops.source_size[originals],
        crops.bbox_xyxy[originals],
        crops.skeleton,
    )


def raise_failed(verdicts: Iterable[Verdict], progress: Progress = SILENT) -> None:
    """Tell what passed; raise TrainingError with every failed verdict's explanation."""
    failed = []
    for verdict in verdicts:
        if verdict.passed:
            progress.tell(f"checked {verdict.gate}: {verdict.explanation}")
        else:
            failed.append(f"{verdict.gate}: {verdict.explanation}")
    if failed:
        raise TrainingError("the checks before training failed.\n" + "\n".join(failed))


def check_learning(config: TrainConfig, crops: LabelledCrops) -> Iterator[Verdict]:
    """Train on a handful of crops until the model overfits them, or for so many steps.

    It is a phase of the run, that which trains most: with its start, stage, losses and optimiser,
    but no dropout, decay or average. The rate is the phase's after a short warm-up, or a usual one
    if that is larger: a careful rate is no fault, and would take longer.

    Args:
        config: of the run to come.
        crops: its training split, at the first phase's input size.
    """
    crops = crops.take(_some(np.flatnonzero(~crops.is_copy)))
    least = config.spec.smallest_input(config.spec.parse(config.options))
    count, size = len(crops), max(least, min(crops.side, _LARGEST_INPUT))
    plain = msgspec.structs.replace(
        config.with_options(**config.spec.when_overfitting), weight_decay=0.0, ema=0.0
    )
    net = plain.build(len(crops.skeleton), size, loading=bool(config.init_from))
    if config.init_from:
        start = RunFolder(Path(config.init_from))
        start.load_weights(best_of(start).file, net.load_weights)
    else:
        config.start(net, crops.skeleton)
    own = max(config.phases, key=lambda phase: _trained(config, net, phase))
    rate = max(own.learning_rate, _RATE)
    phase = Phase(own.trains, _MOST_STEPS, size, rate, 1.0, _STEPS, own.trunk_rate)
    learner = Learner(net, plain, phase, crops.skeleton)
    learner.compile(
        make_optimiser(msgspec.structs.replace(plain, schedule="cosine"), phase, 1, net),
        jit_compile=compiles_steps(),
    )
    batch: Batch = {
        "image": crops.images[np.arange(count)],
        "keypoints": crops.shown_keypoints,
        **only_crops(
            [compose(resize_affine(crops.side, crops.side, size), crops.without_border)] * count
        ),
    }
    for done in range(_STEPS, _MOST_STEPS + 1, _STEPS):
        for _ in range(_STEPS):
            learner.train_on_batch(batch)
        truth, found = _truth_and_found(learner, batch, phase.trains)
        overfit = gates.judge_overfit(truth, found, size, done)
        if overfit.passed or not (np.abs(found[..., :2]) < _ASTRAY * size).all():
            break
    yield overfit
    yield gates.judge_variety(truth, found, size)


def _trained(config: TrainConfig, net: keras.Model, phase: Phase) -> int:
    """The number of parameters that a phase trains."""
    stage = config.spec.stage(phase.trains)
    net.trainable = True
    if stage.freeze:
        stage.freeze(net)
    return sum(math.prod(variable.shape) for variable in net.trainable_variables)


def _truth_and_found(learner: Learner, batch: Batch, stage: str) -> tuple[FloatArray, FloatArray]:
    """Truth and predictions (B, K, 3) and (B, K, 2+) in input pixels, by the stage's first head.

    Keypoints that weigh nothing count as not labelled: nothing makes the model learn them. The
    network runs as in training: the moving statistics of batch normalisation lag a few steps.
    """
    outputs = learner(batch, training=True)
    spec = learner.config.spec
    head = spec.head(spec.heads_of(stage)[0])
    found = head.read(outputs, learner.size, "argmax")
    truth, found = (keras.ops.convert_to_numpy(a) for a in (outputs["keypoints"], found))
    return np.where(learner.importance[:, None] > 0, truth, 0), found


def _some(positions: Indices) -> Indices:
    """At most SAMPLES of them, evenly spread."""
    count = min(SAMPLES, len(positions))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
