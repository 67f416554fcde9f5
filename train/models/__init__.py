"""Keras models: pictures in [-1, 1] → a dict of ``xy_norm``, ``visibility`` and heatmaps.

Importing this package registers their layers, which ``keras.models.load_model`` needs.
"""

import keras

from kpdata.train.models import layers as layers
from kpdata.train.models.blazepose import blazepose
from kpdata.train.models.regression import FAMILIES, regression
from kpdata.train.run.config import TrainConfig


def build(config: TrainConfig, num_keypoints: int, input_size: int) -> keras.Model:
    """The model that a configuration names, with fresh weights.

    Raises:
        KpdataError: a name is unknown, or weights do not fit.
    """
    if config.model == "blazepose":
        return blazepose(num_keypoints, input_size, config.size, config.offsets)
    return regression(
        num_keypoints, input_size, config.backbone, config.weights, config.head, config.dropout
    )


def architecture(config: TrainConfig) -> str:
    """The settings that say which weights fit its model; those of another input size do."""
    if config.model == "blazepose":
        return f"model=blazepose size={config.size} offsets={str(config.offsets).lower()}"
    backbone = FAMILIES.get(config.backbone, config.backbone)
    return f"model=regression backbone={backbone} head={config.head}"
