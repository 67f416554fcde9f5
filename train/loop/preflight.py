"""The gates, run on a training split and on a fresh model before a run begins."""

from collections.abc import Iterator

import keras
import msgspec
import numpy as np

from kpdata.checks import gates
from kpdata.checks.gates import Verdict
from kpdata.core.errors import TrainingError
from kpdata.core.sample import FloatArray
from kpdata.core.transform import resize_affine
from kpdata.train.data.batches import Batch
from kpdata.train.data.decoding import Indices
from kpdata.train.data.pictures import Pictures
from kpdata.train.loop.learner import Learner, jit
from kpdata.train.models import build
from kpdata.train.ops import targets
from kpdata.train.ops.augment import no_draws
from kpdata.train.run.config import STAGES, Phase, TrainConfig

SAMPLES = 8

_STEPS, _MOST_STEPS = 40, 400
_RATE = 2e-3
_LARGEST_INPUT = 128


def check(config: TrainConfig, pictures: Pictures) -> Iterator[Verdict]:
    """Judge the training pictures' labels, then whether the model learns eight of them by heart.

    Args:
        config: of the run to come.
        pictures: its training split, at the first phase's input size.
    """
    originals = _originals(pictures)
    yield from gates.check_data(
        pictures.truth[originals],
        pictures.source_size[originals],
        pictures.bbox_xyxy[originals],
        pictures.skeleton,
    )
    yield from _check_learning(config, pictures.take(_some(originals)))


def refuse_failed(verdicts: list[Verdict]) -> None:
    """Raise TrainingError with every failed verdict's explanation."""
    failed = [f"{each.gate}: {each.explanation}" for each in verdicts if not each.passed]
    if failed:
        raise TrainingError("the checks before training failed.\n" + "\n".join(failed))


def _check_learning(config: TrainConfig, pictures: Pictures) -> Iterator[Verdict]:
    """Train on a handful of pictures until they are learnt, or for a bounded number of steps."""
    count, size = len(pictures), min(pictures.side, _LARGEST_INPUT)
    plain = msgspec.structs.replace(config, dropout=0.0, weights="none")
    phase = Phase(STAGES[config.model][-1], 1, size, _RATE)
    net = build(plain, len(pictures.skeleton), size)
    learner = Learner(net, plain, phase, pictures.skeleton)
    learner.compile(keras.optimizers.Adam(_RATE, global_clipnorm=1.0), jit_compile=jit())
    shrink = [resize_affine(pictures.side, pictures.side, size)] * count
    batch: Batch = {
        "image": pictures.images[np.arange(count)],
        "keypoints": pictures.keypoints,
        **no_draws(shrink),
    }
    for done in range(_STEPS, _MOST_STEPS + 1, _STEPS):
        for _ in range(_STEPS):
            learner.train_on_batch(batch)
        truth, found = _answers(learner, batch)
        overfit = gates.judge_overfit(truth, found, size, done)
        if overfit.passed:
            break
    yield overfit
    yield gates.judge_variety(truth, found, size)


def _answers(learner: Learner, batch: Batch) -> tuple[FloatArray, FloatArray]:
    """Truth and predictions (B, K, 3) and (B, K, 2+) in input pixels.

    Keypoints that weigh nothing count as not labelled: nothing makes the model learn them. Seen as
    in training: the moving statistics of batch normalisation lag behind a few steps.
    """
    outputs = learner(batch, training=True)
    if learner.config.model == "blazepose":
        found = targets.decode_argmax(outputs["heatmap"], learner.size)
    else:
        found = outputs["xy_norm"] * learner.size
    truth, found = (keras.ops.convert_to_numpy(a) for a in (outputs["keypoints"], found))
    return np.where(learner.importance[:, None] > 0, truth, 0), found


def _originals(pictures: Pictures) -> Indices:
    """Positions of those that are no augmented copies: in a mirrored one, names change places."""
    return np.flatnonzero(~pictures.is_copy)


def _some(positions: Indices) -> Indices:
    """At most SAMPLES of them, evenly spread."""
    count = min(SAMPLES, len(positions))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
