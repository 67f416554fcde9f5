"""Keras models: pictures in [-1, 1] → a dict of ``xy_norm``, ``visibility`` and heatmaps."""

from kpdata.train.models.blazepose import (
    SIZES,
    STAGES,
    blazepose,
    set_stage,
    stage_layers,
    stage_variables,
)
from kpdata.train.models.regression import BACKBONES, HEADS, backbone_of, regression

__all__ = [
    "BACKBONES",
    "HEADS",
    "SIZES",
    "STAGES",
    "backbone_of",
    "blazepose",
    "regression",
    "set_stage",
    "stage_layers",
    "stage_variables",
]
