"""Read the field lengths of a serialised protobuf message, without parsing the message."""

from collections.abc import Iterator
from itertools import islice

from kpdata.core.errors import DatasetError

_MAX_FIELDS = 1000
"""The most fields of one message; a record with more is refused."""


def varint(value: int) -> bytes:
    """Encode a protobuf varint: seven bits in each byte, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def bytes_beside_longest(data: bytes) -> int:
    """Bytes of a serialised Example outside its longest value, which must be the image.

    Parsing takes many times the memory of short values, but hardly more than that of a long one.
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
    """(start, end) of each length-delimited field of the message in ``data[start:end]``."""
    while start < end:
        _, start = _read_varint(data, start, end)  # the tag: all have a length here
        length, start = _read_varint(data, start, end)
        if length > end - start:
            raise DatasetError("not a tf.train.Example: a field is longer than its message")
        yield start, start + length
        start += length


def _read_varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Decode a varint: its value, and the offset after it."""
    value = 0
    for offset in range(start, min(start + 10, end)):
        value |= (data[offset] & 0x7F) << 7 * (offset - start)
        if data[offset] < 0x80:
            return value, offset + 1
    raise DatasetError("not a tf.train.Example: a number without an end")
