"""Read the convolutions of a .tflite file: numbers alone, nothing of the file is executed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import KpdataError, first_line
from kpdata.storage.bounded import read_bounded

MOST_BYTES = 256 << 20
_MOST_ENTRIES = 10_000


class Convolution(NamedTuple):
    """The weights of a convolution.

    Attributes:
        kernel: (height, width, in, out) float32; of a depthwise one (height, width, in, 1).
        bias: (out,) float32.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def read_convolutions(path: Path) -> list[Convolution]:
    """The convolutions of a .tflite file, in the order in which it runs them.

    Raises:
        KpdataError: it cannot be read, is no .tflite file, or has weights that are neither float32
            nor float16.
    """
    try:
        import tflite
    except ImportError as error:
        raise KpdataError(
            f"{path}: reading it needs tflite: pip install 'kpdata[train]'"
        ) from error
    try:
        data = read_bounded(path, MOST_BYTES)
    except OSError as error:
        raise KpdataError(f"{path}: cannot be read: {error.strerror}") from error
    if data[4:8] != b"TFL3":
        raise KpdataError(f"{path} is no .tflite file: it does not say TFL3 at byte 4")
    try:
        return list(_convolutions(tflite.Model.GetRootAs(data), len(data)))
    except Exception as error:  # flatbuffers raises whatever its arithmetic runs into
        raise KpdataError(f"{path} is damaged or no float network: {first_line(error)}") from error


def _convolutions(model: Any, size: int) -> Iterator[Convolution]:
    from tflite import BuiltinOperator

    if model.SubgraphsLength() != 1:
        raise ValueError(f"{model.SubgraphsLength()} graphs, expected 1")
    graph = model.Subgraphs(0)
    codes = [model.OperatorCodes(i) for i in range(_within(model.OperatorCodesLength()))]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    held = 0
    widened: dict[int, int] = {}  # a float32 tensor that is computed → the float16 one it is of
    for number in range(_within(graph.OperatorsLength())):
        operator = graph.Operators(number)
        kind = kinds[operator.OpcodeIndex()]
        if kind == BuiltinOperator.DEQUANTIZE:
            widened[operator.Outputs(0)] = operator.Inputs(0)
        elif kind in (BuiltinOperator.CONV_2D, BuiltinOperator.DEPTHWISE_CONV_2D):
            kernel, bias = (
                _constant(model, graph, widened.get(i, i))
                for i in (operator.Inputs(1), operator.Inputs(2))
            )
            held += kernel.nbytes + bias.nbytes
            if held > 4 * size:  # float16 doubles; more is one buffer many times over
                raise ValueError("more weights than the file holds")
            if kernel.ndim != 4 or bias.ndim != 1:
                raise ValueError(f"operator {number} is no convolution in two dimensions")
            yield Convolution(kernel.transpose(1, 2, 3, 0).copy(), bias)


def _constant(model: Any, graph: Any, index: int) -> npt.NDArray[np.float32]:
    from tflite import TensorType

    types = {TensorType.FLOAT32: np.float32, TensorType.FLOAT16: np.float16}
    tensor = graph.Tensors(index)
    if (kind := tensor.Type()) not in types:
        raise ValueError(f"weights of type {kind}, expected float32 or float16")
    shape = [tensor.Shape(axis) for axis in range(_within(tensor.ShapeLength()))]
    if min(shape, default=1) < 1:
        raise ValueError(f"weights of shape {shape}")
    buffer = model.Buffers(tensor.Buffer())
    raw = buffer.DataAsNumpy() if buffer.DataLength() else np.empty(0, np.uint8)
    values = np.frombuffer(raw.tobytes(), types[kind]).reshape(shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("weights that are no numbers")
    return values


def _within(count: int) -> int:
    if count > _MOST_ENTRIES:
        raise ValueError(f"{count:,} entries where {_MOST_ENTRIES:,} are the most")
    return count
