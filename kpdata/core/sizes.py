"""Sizes as people write them: ``500K``, ``128M``, ``2G``."""

import math

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
_LARGEST = 10**15


def parse_size(text: str | int) -> int:
    """The number of bytes that a text or a number means.

    >>> parse_size("128M"), parse_size("1.5KB"), parse_size(500)
    (128000000, 1500, 500)

    Raises:
        ValueError: it is not a size; the message says what is expected.
    """
    plain = str(text).upper().removesuffix("B")
    unit = plain[-1:] if plain[-1:] in _UNITS else ""
    try:
        size = float(plain.removesuffix(unit)) * _UNITS.get(unit, 1)
    except ValueError:
        size = math.nan
    if math.isnan(size):
        raise ValueError("expected a size such as 500K, 128M or 2G")
    if size < 1:
        raise ValueError("expected at least one byte")
    if size > _LARGEST:
        raise ValueError("expected at most a million G")
    return int(size)
