"""Run by test_scanned.py: an epoch in one scan against the same epoch step by step, on JAX."""

import json

import keras
import numpy as np

from kpdata.core.augment import AugmentConfig
from kpdata.core.skeletons import LSP14
from kpdata.train.data.batches import Batches
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.loop.learner import Learner
from kpdata.train.loop.scanned import ScannedLearner, can_scan, epochs
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig

COUNT, SIDE = 8, 32


def crops() -> LabelledCrops:
    rng = np.random.default_rng(0)
    keypoints = np.dstack([rng.uniform(0, SIDE, (COUNT, 14, 2)), np.full((COUNT, 14), 2.0)])
    nothing = np.full(COUNT, np.nan)
    return LabelledCrops(
        skeleton=LSP14,
        side=SIDE,
        crop="",
        keys=tuple(map(str, range(COUNT))),
        instance=np.zeros(COUNT, np.int64),
        keypoints=keypoints.astype(np.float32),
        truth=keypoints,
        to_source=np.tile(np.eye(2, 3), (COUNT, 1, 1)),
        source_size=np.full((COUNT, 2), SIDE),
        area=nothing,
        bbox_xyxy=np.full((COUNT, 4), np.nan),
        head_size=nothing,
        is_copy=np.zeros(COUNT, bool),
        images=rng.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8),
        counts={},
    )


def trained(kind: type[Learner]) -> tuple[dict[str, float], list[float]]:
    keras.utils.set_random_seed(0)
    phase = Phase("heatmap", 2, SIDE, 1e-3)
    config = TrainConfig(options={"size": "lite"}, phases=(phase,), batch_size=4)
    batches = Batches(crops(), AugmentConfig(blur=0), 4, seed=0)
    net = config.build(14, SIDE)
    learner = kind(net, config, phase, LSP14)
    learner.compile(keras.optimizers.SGD(0.01))
    scanned = kind is ScannedLearner
    data = epochs(batches, 0) if scanned else batches.dataset(0)
    steps = 1 if scanned else batches.steps
    history = learner.fit(data, steps_per_epoch=steps, epochs=2, verbose=0).history
    return history, [float(keras.ops.sum(keras.ops.abs(v))) for v in net.trainable_variables]


if __name__ == "__main__":
    assert not can_scan(crops()), "there is no GPU here"
    (one, sums), (other, other_sums) = trained(ScannedLearner), trained(Learner)
    print(json.dumps({"scanned": [one, sums], "stepped": [other, other_sums]}))
