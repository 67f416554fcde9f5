"""Run in a process of its own, whose KERAS_BACKEND it tests: prints what steps moved, as JSON."""

import json

import keras
import numpy as np

from kpdata.train.models.blazepose import SIZES, Size
from kpdata.train.models.blazepose.network import blazepose, set_stage, shared_layers
from kpdata.train.models.regression.network import regression

SIZES["tiny"] = Size((4, 4, 6, 6, 8), (1, 1, 1, 2, 1), (1, 1))
B, S, K = 2, 64, 3
BCE = keras.losses.BinaryCrossentropy(from_logits=True)
LOSSES = {"heatmap": "mse", "offset": "mse", "xy_norm": "mae", "sigma": "mae", "visibility": BCE}
OF_STAGE = {
    "heatmap": ("heatmap", "offset"),
    "regression": ("xy_norm", "visibility"),
    "both": ("xy_norm", "visibility"),  # and not the heatmaps' losses: nothing may flow back
}


def draw(model: keras.Model) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A crop batch, and a target in [0, 1) for each output."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (B, *model.input_shape[1:])).astype("float32")
    shapes = {name: (B, *output.shape[1:]) for name, output in model.output.items()}
    return image, {name: rng.random(shape, "float32") for name, shape in shapes.items()}


def moved_by_step(model: keras.Model, wanted: tuple[str, ...]) -> list[str]:
    """Paths of the variables that one optimiser step on the losses of these outputs changes."""
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}
    loss = {name: LOSSES[name] if name in wanted else None for name in model.output}
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    image, target = draw(model)
    assert np.all(np.isfinite(model.train_on_batch(image, target)))
    return [
        v.path
        for v in model.variables
        if not np.array_equal(before[v.path], keras.ops.convert_to_numpy(v))
    ]


def blazepose_report(stage: str, wanted: tuple[str, ...]) -> dict[str, list[str]]:
    """What a step in a stage moved, and which variables are shared, and which statistics."""
    keras.utils.set_random_seed(0)
    model = blazepose(K, S, "tiny", offsets=True)
    set_stage(model, stage)
    return {
        "moved": moved_by_step(model, wanted),
        "all": [v.path for v in model.variables],
        "shared": [v.path for layer in shared_layers(model) for v in layer.variables],
        "statistics": [v.path for v in model.variables if "/moving_" in v.path],
    }


def regression_report() -> dict[str, list[str]]:
    """What a step of a regression model moved."""
    keras.utils.set_random_seed(0)
    model = regression(K, 32, backbone="vgg16", head="rle")
    moved = moved_by_step(model, ("xy_norm", "sigma", "visibility"))
    return {"moved": moved, "all": [v.path for v in model.variables]}


if __name__ == "__main__":
    reports = {stage: blazepose_report(stage, wanted) for stage, wanted in OF_STAGE.items()}
    reports["regression model"] = regression_report()
    print(json.dumps({"backend": keras.backend.backend(), "reports": reports}))
