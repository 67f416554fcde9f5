"""Protobuf's own bytes: what a message's length-delimited fields are, without parsing it."""

from collections.abc import Iterator
from itertools import islice

from kpdata.core.errors import DatasetError

_MAX_FIELDS = 1000
"""Of one message in a record too large to be parsed on trust."""


def varint(value: int) -> bytes:
    """Protobuf's variable-length integer: seven bits a byte, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def bytes_beside_longest(data: bytes) -> int:
    """Bytes of a serialised Example outside its longest value, which an image must be.

    Parsing takes many times the memory of small values, and little more than that of a long one.
    """
    start, end = 0, len(data)
    for _ in ("features", "feature", "map entry's value", "bytes_list", "value"):
        fields = islice(_fields(data, start, end), _MAX_FIELDS + 1)
        spans = sorted((b - a, a, b) for a, b in fields)
        if not spans or len(spans) > _MAX_FIELDS:
            raise DatasetError("not a tf.train.Example with an image")
        _, start, end = spans[-1]
    return len(data) - (end - start)


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each length-delimited field of the message between two places."""
    while start < end:
        _, start = _read_varint(data, start, end)  # all tags that tf.train.Example has on this way
        length, start = _read_varint(data, start, end)
        if length > end - start:
            raise DatasetError("not a tf.train.Example: a field is longer than its message")
        yield start, start + length
        start += length


def _read_varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The inverse of :func:`varint`: the value, and where it ends."""
    value = 0
    for offset in range(start, min(start + 10, end)):
        value |= (data[offset] & 0x7F) << 7 * (offset - start)
        if data[offset] < 0x80:
            return value, offset + 1
    raise DatasetError("not a tf.train.Example: a number without an end")
