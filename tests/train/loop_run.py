"""Run in a process of its own, whose KERAS_BACKEND it tests: trains, and prints the epochs.

Takes one JSON object: shards, out, config, block: a module that cannot be imported, devices: a list
of numbers, for each of which it trains once, and check: whether the gates run, whatever they say.
"""

import json
import sys
from pathlib import Path
from typing import Any

TINY = (4, 4, 6, 6, 8), (1, 1, 1, 1, 1), (1, 1)


def main() -> None:
    request = json.loads(sys.argv[1])
    if request["block"]:
        sys.modules[request["block"]] = None  # type: ignore[assignment]
    import keras
    import msgspec

    from kpdata.core.progress import SILENT
    from kpdata.shards.dataset import Dataset
    from kpdata.train.infer.predictor import Predictor
    from kpdata.train.loop import preflight, train
    from kpdata.train.models.blazepose import SIZES, Size
    from kpdata.train.models.regression import BACKBONES
    from kpdata.train.run.config import TrainConfig
    from kpdata.train.run.folder import RunFolder

    SIZES["lite"] = Size(*TINY)
    BACKBONES["mobilenet"] = ("TinyBackbone", "unit")
    keras.applications.TinyBackbone = tiny_backbone
    preflight._MOST_STEPS = preflight._STEPS
    train.raise_failed = lambda verdicts, _: list(verdicts)
    config = msgspec.json.decode(request["config"], type=TrainConfig)
    dataset, rows = Dataset.open(request["shards"]), []
    for devices in request["devices"]:
        folder = RunFolder(Path(request["out"]) / str(devices))
        state = train.train(folder, dataset, config, SILENT, request["check"], devices)
        assert keras.distribution.distribution() is None
        kept = Predictor.open(folder.path).net.get_weights()
        assert all(bool((abs(weight) < 1e6).all()) for weight in kept)
        rows.append(msgspec.to_builtins(state.epochs))
    used = {"backend": keras.backend.backend(), "tensorflow": bool(sys.modules.get("tensorflow"))}
    print(json.dumps({**used, "rows": rows}))


def tiny_backbone(weights: None, include_top: bool, input_shape: tuple[int, int, int]) -> Any:
    import keras

    image = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 5, 4, "same", use_bias=False)(image)
    return keras.Model(image, keras.layers.ReLU()(keras.layers.BatchNormalization()(x)))


if __name__ == "__main__":
    main()
