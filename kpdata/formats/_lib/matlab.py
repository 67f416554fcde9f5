"""A reader of numbers, text and structs in MATLAB v5 to v7 files, which may be hostile.

After "MAT-File Format" of the MathWorks. A file is a header and a row of elements, each a tag (type
and size) and its bytes; a variable is an element of further elements: flags, shape, name, and then
its numbers, or the names of its fields and a variable for each. Every size is checked against the
bytes that are there, and nothing is inflated beyond a budget.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import FormatError, located, quoted
from kpdata.core.sample import FloatArray
from kpdata.formats.base import require_file
from kpdata.storage.bounded import read_bounded

_HEADER_BYTES, _TAG_BYTES = 128, 8
_HDF5 = b"\x89HDF\r\n\x1a\n"
_V5, _V73 = 1, 2
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {
    1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q",
}  # fmt: skip
"""How numbers are stored, whatever their class, as ``struct`` and NumPy call it."""

_ENCODINGS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_SUFFIXES = {"<": "-le", ">": "-be"}

_CLASSES = (
    "nothing", "cell", "struct", "object", "char", "sparse array", "double", "single", "int8",
    "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "function", "opaque",
)  # fmt: skip
_STRUCT, _CHAR, _DOUBLE, _OPAQUE = 2, 4, 6, 17
_NUMBERS = frozenset(range(6, 16))
_COMPLEX = 0x800
_MOST_AXES = 32
_NAMED = 20
_NAME_BYTES = 64
"""Bytes of a name, its closing zero among them."""

_MOST_FIELDS = _MOST_EMPTY = 4096
"""Fields of a struct, and structs without any: no bytes stand for these."""


class Variable(NamedTuple):
    """A variable or a field, of which only the head has been read.

    Attributes:
        name: its own, or its field's.
        kind: its class, by MATLAB's number.
        shape: as the file declares it.
        is_complex: it has imaginary parts too.
        order: the file's byte order, ``<`` or ``>``.
        rest: the elements behind the name.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    is_complex: bool
    order: str
    rest: memoryview

    def must_be(self, what: str) -> FormatError:
        """The error to raise if it is something else."""
        found = "complex array" if self.is_complex else f"MATLAB {_CLASSES[self.kind]}"
        return FormatError(f"{self.name} is a {found}: expected {what}")


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a file of at most ``most``.

    Raises:
        FormatError: there is none, it is empty or larger, or cannot be read.
    """
    require_file(path)
    with located(str(path)):
        try:
            if (size := path.stat().st_size) > most:
                raise FormatError(f"{size:,} bytes: expected at most {most:,}")
            data = read_bounded(path, most)
        except OSError as error:
            raise FormatError(f"cannot read: {error.strerror}") from error
        if not data:
            raise FormatError("is empty: download it again")
    return data


def read_variable(data: bytes, name: str, budget: int) -> Variable:
    """The variable ``name`` of a file.

    Args:
        data: the whole file.
        name: the variable's.
        budget: bytes that compressed elements may grow to, all together.

    Raises:
        FormatError: no such file or variable, or a damaged one.
    """
    order = _byte_order(data)
    found = []
    for variable in _variables(memoryview(data), order, budget):
        if variable.name == name:
            return variable
        found.append(variable.name)
    held = quoted(found, _NAMED) or "nothing"
    raise FormatError(f"has no variable {name!r}, it holds {held}")


def shapes(data: bytes, budget: int) -> dict[str, tuple[int, ...]]:
    """Variable → shape, of all that a file holds; see :func:`read_variable`."""
    order = _byte_order(data)
    return {v.name: v.shape for v in _variables(memoryview(data), order, budget)}


def read_array(data: bytes, name: str, budget: int) -> FloatArray:
    """:func:`read_variable` and its :func:`numbers`, of at most ``budget`` bytes too."""
    return numbers(read_variable(data, name, budget), budget)


def numbers(variable: Variable, budget: int) -> FloatArray:
    """An array as float64, in the shape that the file declares.

    Raises:
        FormatError: it holds no real numbers, or more than ``budget`` bytes of them; a damaged one.
    """
    name, shape = variable.name, variable.shape
    kind, data = _stored_numbers(variable)
    dtype = np.dtype(variable.order + _TYPES[kind])
    if min(shape, default=-1) < 0 or len(data) != math.prod(shape) * dtype.itemsize:
        raise _damaged(f"{name} of shape {shape} holds {len(data):,} bytes of numbers")
    if math.prod(shape) * 8 > budget:
        raise FormatError(f"{name} of shape {shape} is larger than {budget:,} bytes")
    values: npt.NDArray[np.float64] = np.frombuffer(data, dtype).astype(np.float64)
    try:
        return values.reshape(shape, order="F")
    except ValueError as error:  # of no numbers, along axes that are too long together
        raise _damaged(f"{name} of shape {shape}") from error


def number(variable: Variable) -> float | None:
    """The one number that a variable holds; None where it is empty.

    Raises:
        FormatError: it holds anything else; a damaged one.
    """
    if 0 in variable.shape:
        return None
    kind, data = _stored_numbers(variable)
    stored = variable.order + _TYPES[kind]
    if math.prod(variable.shape) != 1 or len(data) != struct.calcsize(stored):
        raise FormatError(f"{variable.name} has shape {variable.shape}: expected one number")
    return float(struct.unpack(stored, data)[0])


def text(variable: Variable, most: int) -> str:
    """The text of a row of at most ``most`` characters; "" if the variable is empty.

    Raises:
        FormatError: it holds anything else; a damaged one.
    """
    if 0 in variable.shape:
        return ""
    if variable.kind != _CHAR:
        raise variable.must_be("text")
    if not 0 < (length := math.prod(variable.shape)) <= most:
        raise FormatError(f"{variable.name} has {length:,} characters: expected at most {most:,}")
    kind, data, _ = _element(variable.rest, 0, variable.order)
    data = data[: 4 * most]
    encoding = _ENCODINGS.get(kind, "")
    suffix = _SUFFIXES[variable.order] if encoding in ("utf-16", "utf-32") else ""
    try:
        return bytes(data).decode(encoding + suffix)
    except (UnicodeDecodeError, LookupError) as error:
        raise _damaged(f"the text of {variable.name}: {error}") from error


def is_text(variable: Variable) -> bool:
    """Whether it holds characters."""
    return variable.kind == _CHAR


def records(variable: Variable) -> Iterator[dict[str, Variable]]:
    """The elements of a struct array of any shape, field by field; an empty array has none.

    Raises:
        FormatError: it is no struct, or a damaged one, which may be found while they stream.
    """
    if 0 in variable.shape:
        return
    if variable.kind != _STRUCT:
        raise variable.must_be("a struct")
    data, order = variable.rest, variable.order
    fields, offset = _field_names(variable)
    count = math.prod(variable.shape)
    most = (len(data) - offset) // (len(fields) * _TAG_BYTES) if fields else _MOST_EMPTY
    if min(variable.shape, default=-1) < 0 or count > most:
        raise _damaged(f"{variable.name} claims {count:,} structs, more than there are")
    for _ in range(count):
        record = {}
        for field in fields:
            kind, body, offset = _element(data, offset, order)
            if kind != _MATRIX:
                raise _damaged(f"an element of type {kind} in place of the field {field!r}")
            record[field] = _variable(body, order, field)
        yield record


def _field_names(variable: Variable) -> tuple[list[str], int]:
    """The names of a struct's fields, and where their values begin."""
    _, width, offset = _element(variable.rest, 0, variable.order)
    _, names, offset = _element(variable.rest, offset, variable.order)
    if not names:
        return [], offset
    (size,) = struct.unpack(f"{variable.order}i", width) if len(width) == 4 else (0,)
    if not 1 <= size <= _NAME_BYTES or len(names) % size or len(names) // size > _MOST_FIELDS:
        raise _damaged(f"{variable.name} has {len(names):,} bytes of names of {size} each")
    cut = [bytes(names[at : at + size]) for at in range(0, len(names), size)]
    found = [name.split(b"\0")[0].decode("latin1") for name in cut]
    if len(set(found)) < len(found):
        raise _damaged(f"{variable.name} has two fields of one name")
    return found, offset


def _byte_order(data: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER_BYTES])
    version = struct.unpack(f"{order}H", data[124:126])[0] >> 8 if order else None
    if data.startswith(_HDF5) or version == _V73:
        raise FormatError("a MATLAB v7.3 (HDF5) file: resave it in MATLAB with save(..., '-v7')")
    if order is None or version != _V5:
        raise FormatError(
            "not a MATLAB file of v5 to v7, by its header: give the dataset's own .mat file"
        )
    return order


def _variables(data: memoryview, order: str, budget: int) -> Iterator[Variable]:
    offset = _HEADER_BYTES
    while offset < len(data):
        kind, body, offset = _element(data, offset, order, padded=False)
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


def _variable(data: memoryview, order: str, field: str = "") -> Variable:
    if not data:
        return Variable(field, _DOUBLE, (0, 0), False, order, data)
    _, flags, offset = _element(data, 0, order)
    if len(flags) != 8:
        raise _damaged("a variable without flags")
    (flag,) = struct.unpack_from(f"{order}I", flags)
    kind, shape = flag & 0xFF, b""
    if kind >= len(_CLASSES):
        raise _damaged(f"a variable of class {kind}")
    if kind != _OPAQUE:
        _, axes, offset = _element(data, offset, order)
        shape = bytes(axes)
    if len(shape) % 4 or len(shape) > 4 * _MOST_AXES:
        raise _damaged("a variable without a shape")
    _, name, offset = _element(data, offset, order)
    return Variable(
        field or bytes(name).decode("latin1"),
        kind,
        struct.unpack(f"{order}{len(shape) // 4}i", shape),
        bool(flag & _COMPLEX),
        order,
        data[offset:],
    )


def _stored_numbers(variable: Variable) -> tuple[int, memoryview]:
    """The stored type of its numbers, and their bytes."""
    if variable.kind not in _NUMBERS or variable.is_complex:
        raise variable.must_be("an array of numbers")
    kind, data, _ = _element(variable.rest, 0, variable.order)
    if kind not in _TYPES:
        raise _damaged(f"{variable.name} holds an element of type {kind} in place of numbers")
    return kind, data


def _element(
    data: memoryview, offset: int, order: str, padded: bool = True
) -> tuple[int, memoryview, int]:
    """Type and bytes of the element at ``offset``, and where the next one begins."""
    if len(data) - offset < _TAG_BYTES:
        raise _damaged("it ends inside a tag")
    kind, size = struct.unpack_from(f"{order}II", data, offset)
    if kind >> 16:  # up to four bytes in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise _damaged(f"a small element of {size} bytes")
        return kind, data[offset + 4 : offset + 4 + size], offset + _TAG_BYTES
    begin = offset + _TAG_BYTES
    if size > len(data) - begin:
        raise _damaged(f"an element claims {size:,} bytes, more than there are")
    return kind, data[begin : begin + size], begin + size + (-size % 8 if padded else 0)


def _damaged(detail: str) -> FormatError:
    return FormatError(f"not a MATLAB file, or a damaged one ({detail}): download it again")
