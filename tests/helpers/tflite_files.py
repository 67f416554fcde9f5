"""Write .tflite files of convolutions, laid out as BlazePose's: they can be read, but not run."""

from collections.abc import Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

Weights = Sequence[tuple[np.ndarray, np.ndarray]]
"""Kernels (height, width, in, out) with their biases; a depthwise one has one out."""


def tflite_bytes(convolutions: Weights, dtype: type = np.float16) -> bytes:
    """The file; float16 weights are widened by an operator of their own each, as in BlazePose's."""
    types = {np.float32: 0, np.float16: 1, np.int8: 9}
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
    kinds = schema.BuiltinOperator
    model.operatorCodes = [
        _code(kind) for kind in (kinds.DEQUANTIZE, kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D)
    ]

    def tensor(values: np.ndarray | None, shape: Sequence[int], kind: int) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.name = list(shape), kind, b"t"
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int]) -> int:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs = code, inputs
        made.outputs = [tensor(None, (1,), 0)]
        graph.operators.append(made)
        return made.outputs[0]

    last = tensor(None, (1, 256, 256, 3), 0)
    for kernel, bias in convolutions:
        constants = []
        for values in (np.ascontiguousarray(kernel.transpose(3, 0, 1, 2)), bias):
            made = tensor(values.astype(dtype), values.shape, types[dtype])
            constants.append(operator(0, [made]) if dtype is np.float16 else made)
        last = operator(2 if kernel.shape[3] == 1 else 1, [last, *constants])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(kind: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    return code
