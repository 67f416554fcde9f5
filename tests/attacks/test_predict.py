"""A run that cannot predict says so, and writes nothing."""

import h5py
import numpy as np
import pytest

from kpdata.core.errors import TrainingError
from kpdata.train.api import Run
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers_predict_nothing(untrained_run, tmp_path, value):
    phases = (Phase("all", 1, 32, 1e-3),)
    config = TrainConfig(model="regression", options={"backbone": "mobilenet"}, phases=phases)
    untrained_run(tmp_path / "run", config, "coordinates")
    (weights,) = (tmp_path / "run" / "checkpoints").glob("best*.weights.h5")

    def spoil(name, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.size:
            item[(0,) * item.ndim] = value

    with h5py.File(weights, "a") as opened:
        opened.visititems(spoil)
    picture = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(TrainingError, match="some weights are not numbers"):
        Run(tmp_path / "run").predict(picture, out=tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
