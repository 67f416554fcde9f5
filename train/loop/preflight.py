"""The gates, run on a training split and on a fresh model before a run begins."""

from collections.abc import Iterator

import keras
import numpy as np

from kpdata.checks import gates
from kpdata.checks.gates import Verdict
from kpdata.core.errors import TrainingError
from kpdata.core.sample import FloatArray
from kpdata.core.transform import resize_affine
from kpdata.train.data.batches import Batch
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.data.decoding import Indices
from kpdata.train.loop.learner import Learner
from kpdata.train.models.base import Phase
from kpdata.train.ops.augment import only_crops
from kpdata.train.ops.device import compiles_steps
from kpdata.train.run.config import TrainConfig

SAMPLES = 8

_STEPS, _MOST_STEPS = 40, 400
_RATE = 2e-3
_LARGEST_INPUT = 128


def check(config: TrainConfig, crops: LabelledCrops) -> Iterator[Verdict]:
    """Check the training crops' labels, then whether the model can overfit eight crops.

    Args:
        config: of the run to come.
        crops: its training split, at the first phase's input size.
    """
    originals = np.flatnonzero(~crops.is_copy)  # in a mirrored copy, names are exchanged
    yield from gates.check_data(
        crops.truth[originals],
        crops.source_size[originals],
        crops.bbox_xyxy[originals],
        crops.skeleton,
    )
    yield from _check_learning(config, crops.take(_some(originals)))


def raise_failed(verdicts: list[Verdict]) -> None:
    """Raise TrainingError with every failed verdict's explanation."""
    failed = [f"{each.gate}: {each.explanation}" for each in verdicts if not each.passed]
    if failed:
        raise TrainingError("the checks before training failed.\n" + "\n".join(failed))


def _check_learning(config: TrainConfig, crops: LabelledCrops) -> Iterator[Verdict]:
    """Train on a handful of crops until the model overfits them, or for so many steps."""
    count, size = len(crops), min(crops.side, _LARGEST_INPUT)
    plain = config.with_options(**config.spec.when_overfitting)
    phase = Phase(config.spec.stages[-1].name, 1, size, _RATE)
    net = plain.build(len(crops.skeleton), size)
    learner = Learner(net, plain, phase, crops.skeleton)
    optimiser = keras.optimizers.Adam(_RATE, global_clipnorm=1.0)
    learner.compile(optimiser, jit_compile=compiles_steps())
    batch: Batch = {
        "image": crops.images[np.arange(count)],
        "keypoints": crops.keypoints,
        **only_crops([resize_affine(crops.side, crops.side, size)] * count),
    }
    for done in range(_STEPS, _MOST_STEPS + 1, _STEPS):
        for _ in range(_STEPS):
            learner.train_on_batch(batch)
        truth, found = _truth_and_found(learner, batch)
        overfit = gates.judge_overfit(truth, found, size, done)
        if overfit.passed:
            break
    yield overfit
    yield gates.judge_variety(truth, found, size)


def _truth_and_found(learner: Learner, batch: Batch) -> tuple[FloatArray, FloatArray]:
    """Truth and predictions (B, K, 3) and (B, K, 2+) in input pixels, by the model's first head.

    Keypoints that weigh nothing count as not labelled: nothing makes the model learn them. The
    network runs as in training: the moving statistics of batch normalisation lag a few steps.
    """
    outputs = learner(batch, training=True)
    head = learner.config.spec.heads[0]
    found = head.read(outputs, learner.size, "argmax")
    truth, found = (keras.ops.convert_to_numpy(a) for a in (outputs["keypoints"], found))
    return np.where(learner.importance[:, None] > 0, truth, 0), found


def _some(positions: Indices) -> Indices:
    """At most SAMPLES of them, evenly spread."""
    count = min(SAMPLES, len(positions))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
