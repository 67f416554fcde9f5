"""The file formats of exported models: how each is written, and run again by its own runtime."""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import TrainingError
from kpdata.core.quiet import without_native_stderr

if TYPE_CHECKING:
    import keras

Outputs = Mapping[str, npt.NDArray[np.float32]]
Run = Callable[[npt.NDArray[np.uint8]], Outputs]
"""Crops (B, S, S, 3) → outputs by name."""

INPUT = "image"

Precision = Literal["float32", "float16", "int8"]

_IN_FLOAT = (
    "MUL", "SUB", "DIV", "SUM", "MEAN", "EXP", "LOG", "RSQRT", "SQUARED_DIFFERENCE", "SOFTMAX",
    "LOGISTIC", "FULLY_CONNECTED", "NEG", "BATCH_MATMUL", "CONCATENATION", "RESHAPE", "PACK",
    "STRIDED_SLICE", "TRANSPOSE",
)  # fmt: skip
"""What an int8 model computes in float: the scaling of its input and all that makes coordinates,
for which 256 steps are too few. Convolutions, which take the time, are int8."""


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        file: its name in the exported folder; SavedModel is a folder itself.
        batch: how many crops it takes at a time; None for any number.
        needs: the modules that write it and run it, beside TensorFlow.
        write: the model to that path.
        load: what runs the file at that path.
    """

    file: str
    batch: int | None
    needs: tuple[str, ...]
    write: Callable[["keras.Model", Path], None]
    load: Callable[[Path], Run]

    @property
    def missing(self) -> list[str]:
        """What of ``needs`` is not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def check_formats(names: Iterable[str]) -> None:
    """Raise TrainingError where a format cannot be written here."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise TrainingError(
            f"models are exported through TensorFlow, but Keras runs on {keras.backend.backend()}: "
            "set KERAS_BACKEND=tensorflow, also for runs that were trained on jax"
        )
    for name in names:
        if missing := FORMATS[name].missing:
            raise TrainingError(f"{name} needs {', '.join(missing)}: pip install 'kpdata[export]'")


def _write_saved_model(model: "keras.Model", path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _load_saved_model(path: Path) -> Run:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # held, or its variables are gone

    def run(crops: npt.NDArray[np.uint8]) -> Outputs:
        return {name: value.numpy() for name, value in loaded.serve(crops).items()}

    return run


def write_tflite(
    model: "keras.Model",
    path: Path,
    precision: Precision = "float32",
    calibration: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Write a model for one crop at a time, of float32 inputs and outputs but for the crop.

    Args:
        model: uint8 crops → outputs by name.
        path: ends in ``.tflite``.
        precision: of the weights.
        calibration: crops (N, S, S, 3) for int8: convolutions then compute in int8, with ranges
            found on these crops. None stores int8 weights, and computes in float.
    """
    import keras
    import tensorflow as tf

    shape = (1, *model.inputs[0].shape[1:])
    one = keras.InputSpec(shape=shape, dtype=model.inputs[0].dtype, name=INPUT)
    if calibration is not None:
        path.write_bytes(_calibrated(model, one, calibration))
        return
    options: dict[str, Any] = {}
    if precision != "float32":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    model.export(path, format="litert", input_signature=[one], verbose=False, **options)


def _calibrated(
    model: "keras.Model", one: "keras.InputSpec", calibration: npt.NDArray[np.uint8]
) -> bytes:
    import tensorflow as tf

    def crops() -> Iterator[dict[str, npt.NDArray[np.uint8]]]:
        return ({INPUT: crop[None]} for crop in calibration)

    with tempfile.TemporaryDirectory() as folder, without_native_stderr():
        model.export(folder, format="tf_saved_model", input_signature=[one], verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = crops
        # the converter alone cannot leave operations out: its debugger can
        experimental = tf.lite.experimental
        options = experimental.QuantizationDebugOptions(denylisted_ops=list(_IN_FLOAT))
        made = experimental.QuantizationDebugger(
            converter=converter, debug_dataset=crops, debug_options=options
        )
        return bytes(made.get_nondebug_quantized_model())


def _load_tflite(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    with without_native_stderr():  # it tells of its delegate
        interpreter = Interpreter(str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()

    def run(crops: npt.NDArray[np.uint8]) -> Outputs:
        outputs: list[dict[str, Any]] = [runner(**{INPUT: crop[None]}) for crop in crops]
        return {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}

    return run


def _write_onnx(model: "keras.Model", path: Path) -> None:
    model.export(path, format="onnx", verbose=False)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(crops: npt.NDArray[np.uint8]) -> Outputs:
        return dict(zip(names, session.run(names, {INPUT: crops}), strict=True))

    return run


FORMATS = {
    "tflite": Format("model.tflite", 1, ("ai_edge_litert",), write_tflite, _load_tflite),
    "onnx": Format("model.onnx", None, ("onnx", "tf2onnx", "onnxruntime"), _write_onnx, _load_onnx),
    "saved_model": Format("saved_model", None, (), _write_saved_model, _load_saved_model),
}
