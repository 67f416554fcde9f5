"""One array of numbers out of a MATLAB v5 to v7 file, which may be hostile.

After "MAT-File Format" of the MathWorks. A file is a header and a row of elements, each a tag (type
and size) and its bytes; a variable is an element of further elements: flags, shape, name, numbers.
No size is believed before the bytes are there, and nothing is inflated beyond a budget.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kpdata.errors import FormatError
from kpdata.schema import FloatArray

_HEADER_BYTES = 128
_HDF5 = b"\x89HDF\r\n\x1a\n"
_V5, _V73 = 1, 2
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
"""How numbers are stored, whatever their class."""

_CLASSES = (
    "nothing", "cell", "struct", "object", "char", "sparse array", "double", "single", "int8",
    "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "function", "opaque",
)  # fmt: skip
_NUMBERS = frozenset(range(6, 16))
_OPAQUE = 17
_COMPLEX = 0x800
_MOST_AXES = 32
_NAMED = 20


class _Variable(NamedTuple):
    name: str
    kind: int
    shape: tuple[int, ...]
    is_complex: bool
    rest: memoryview
    """The elements behind the name."""


def read_array(data: bytes, name: str, budget: int) -> FloatArray:
    """The variable ``name`` as float64, in the shape that the file declares.

    Args:
        data: the whole file.
        name: of an array of real numbers.
        budget: bytes that compressed elements may grow to, all together, and the array alone.

    Raises:
        FormatError: no such file or variable, or a damaged one.
    """
    order = _byte_order(data)
    found = []
    for variable in _variables(memoryview(data), order, budget):
        if variable.name == name:
            return _numbers(variable, order, budget)
        found.append(variable.name)
    held = ", ".join(found[:_NAMED]) or "nothing"
    raise FormatError(f"has no variable {name!r}, it holds {held}")


def _byte_order(data: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER_BYTES])
    version = struct.unpack(f"{order}H", data[124:126])[0] >> 8 if order else None
    if data.startswith(_HDF5) or version == _V73:
        raise FormatError("a MATLAB v7.3 (HDF5) file: resave it in MATLAB with save(..., '-v7')")
    if order is None or version != _V5:
        raise FormatError(
            "not a MATLAB file of v5 to v7, by its header: give the dataset's joints.mat"
        )
    return order


def _variables(data: memoryview, order: str, budget: int) -> Iterator[_Variable]:
    place = _HEADER_BYTES
    while place < len(data):
        kind, body, place = _element(data, place, order, padded=False)
        if kind == _COMPRESSED:
            inflated = _inflate(body, budget)
            budget -= len(inflated)
            kind, body, _ = _element(memoryview(inflated), 0, order)
        if kind != _MATRIX:
            raise _damaged(f"an element of type {kind} in place of a variable")
        yield _variable(body, order)


def _inflate(data: memoryview, budget: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, budget + 1)
    except zlib.error as error:
        raise _damaged(f"{error}") from error
    if len(inflated) > budget:
        raise FormatError(f"inflates to more than {budget:,} bytes: expected far fewer")
    if not stream.eof:
        raise _damaged("a compressed variable ends early")
    return inflated


def _variable(data: memoryview, order: str) -> _Variable:
    _, flags, place = _element(data, 0, order)
    if len(flags) != 8:
        raise _damaged("a variable without flags")
    (flag,) = struct.unpack_from(f"{order}I", flags)
    kind, shape = flag & 0xFF, b""
    if kind >= len(_CLASSES):
        raise _damaged(f"a variable of class {kind}")
    if kind != _OPAQUE:
        _, axes, place = _element(data, place, order)
        shape = bytes(axes)
    if len(shape) % 4 or len(shape) > 4 * _MOST_AXES:
        raise _damaged("a variable without a shape")
    _, name, place = _element(data, place, order)
    return _Variable(
        bytes(name).decode("latin1"),
        kind,
        struct.unpack(f"{order}{len(shape) // 4}i", shape),
        bool(flag & _COMPLEX),
        data[place:],
    )


def _numbers(variable: _Variable, order: str, budget: int) -> FloatArray:
    name, shape = variable.name, variable.shape
    if variable.kind not in _NUMBERS or variable.is_complex:
        what = "complex array" if variable.is_complex else f"MATLAB {_CLASSES[variable.kind]}"
        raise FormatError(f"{name} is a {what}: expected an array of numbers")
    kind, data, _ = _element(variable.rest, 0, order)
    if kind not in _TYPES:
        raise _damaged(f"{name} holds an element of type {kind} in place of numbers")
    dtype = np.dtype(order + _TYPES[kind])
    if min(shape, default=-1) < 0 or len(data) != math.prod(shape) * dtype.itemsize:
        raise _damaged(f"{name} of shape {shape} holds {len(data):,} bytes of numbers")
    if math.prod(shape) * 8 > budget:
        raise FormatError(f"{name} of shape {shape} is larger than {budget:,} bytes")
    values: npt.NDArray[np.float64] = np.frombuffer(data, dtype).astype(np.float64)
    return values.reshape(shape, order="F")


def _element(
    data: memoryview, place: int, order: str, padded: bool = True
) -> tuple[int, memoryview, int]:
    """Type and bytes of the element at ``place``, and where the next one begins."""
    if len(data) - place < 8:
        raise _damaged("it ends inside a tag")
    kind, size = struct.unpack_from(f"{order}II", data, place)
    if kind >> 16:  # up to four bytes in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise _damaged(f"a small element of {size} bytes")
        return kind, data[place + 4 : place + 4 + size], place + 8
    begin = place + 8
    if size > len(data) - begin:
        raise _damaged(f"an element claims {size:,} bytes, more than there are")
    return kind, data[begin : begin + size], begin + size + (-size % 8 if padded else 0)


def _damaged(detail: str) -> FormatError:
    return FormatError(f"not a MATLAB file, or a damaged one ({detail}): download it again")
