"""Reading a large JSON file a piece at a time, in memory that does not grow with the file.

A JSON *document* of the kind COCO is, one object with long arrays at its top level, is cut into the
arrays' elements by one regular expression; each element is then decoded by a typed decoder.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from kpdata.core.errors import FormatError, quoted
from kpdata.storage.bounded import open_regular

CHUNK = 1 << 20
MAX_ELEMENT = 64 << 20
"""Bytes of one array element, or of one value at the top level."""
MAX_NESTING = 16
BATCH = 1000

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_WHITE = rb"[ \t\r\n]*+"


def _value(nesting: int) -> bytes:
    """A pattern for one JSON value; only strings and brackets matter for where it ends."""
    plain = rb'[^{}\[\]"]*+'
    inside = _STRING
    for _ in range(nesting):
        bracketed = rb"[{\[]" + plain + rb"(?:(?:" + inside + rb")" + plain + rb")*+[}\]]"
        inside = _STRING + rb"|" + bracketed
    return rb"(?:" + inside + rb'|[^ \t\r\n,:{}\[\]"]++)'


_VALUE = re.compile(_value(MAX_NESTING), re.DOTALL)
_KEY = re.compile(_WHITE + rb"(" + _STRING + rb")" + _WHITE + rb":", re.DOTALL)
_ELEMENT = re.compile(_WHITE + rb"(" + _VALUE.pattern + rb")" + _WHITE + rb"([,\]])", re.DOTALL)
_MEMBER = re.compile(_WHITE + _VALUE.pattern + _WHITE + rb"(?=[,}])", re.DOTALL)
_COMMA_OR_END = re.compile(_WHITE + rb"([,}])")
_SPACE = re.compile(_WHITE)
_TOKEN = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)


def batches(
    path: Path, arrays: Collection[str], values: Collection[str] = ()
) -> Iterator[tuple[str, int, list[bytes]]]:
    """Cut the named top-level arrays into (name, index of the first, raw elements), in file order.

    Args:
        path: the file.
        arrays: the arrays to read, each of which the file must have.
        values: other members of the top level; each that is no array comes as one raw element.

    Raises:
        FormatError: the file cannot be read, is cut short, is not one JSON object, or lacks one of
            the arrays; the message says where.
    """
    try:
        with open_regular(path) as file:
            yield from _members(_Scanner(path, file), arrays, values)
    except IsADirectoryError as error:
        raise FormatError(f"{path}: is a folder: give the .json file") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot read: {error.strerror or error}") from error


def _members(
    scanner: "_Scanner", arrays: Collection[str], values: Collection[str]
) -> Iterator[tuple[str, int, list[bytes]]]:
    scanner.open_object()
    seen: set[str] = set()
    at_end = scanner.skips(b"}")
    while not at_end:
        key = scanner.key()
        if key in seen:
            raise scanner.error(f"$.{key} stands twice")
        if scanner.skips(b"["):
            for first, batch in scanner.array(key):
                if key in arrays:
                    yield key, first, batch
        elif key in arrays and scanner.peek():
            raise scanner.error(f"$.{key} is not an array")
        else:
            found = scanner.take(_MEMBER, f"$.{key}", "a value and , or }")
            if key in values:
                yield key, 0, [found[0]]
        seen.add(key)
        at_end = scanner.take(_COMMA_OR_END, f"$ after {key!r}", ", or }")[1] == b"}"
    scanner.expect_end()
    for missing in arrays:
        if missing not in seen:
            held = quoted(sorted(seen)) or "nothing"
            raise scanner.error(f"has no array {missing!r}; it holds {held}")


class _Scanner:
    """A position in a file, with as much of what follows as the current pattern needs."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file = path, file
        self._data = file.read(CHUNK)
        self._at = len(_BOM) if self._data.startswith(_BOM) else 0
        self._passed = 0  # bytes before self._data
        self._ended = False

    def peek(self) -> bytes:
        """The next byte that is not white space; empty at the end of the file."""
        while True:
            space = _SPACE.match(self._data, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._data) or not self._more():
                return self._data[self._at : self._at + 1]

    def take(
        self, pattern: re.Pattern[bytes], where: str | tuple[str, int], expected: str
    ) -> re.Match[bytes]:
        """Match here and step behind it, reading on until it matches.

        ``where`` is a JSON path, or the name and index of an array's element.

        A pattern ends with a delimiter, so that no match is cut short by the end of what is read.
        """
        while (found := pattern.match(self._data, self._at)) is None:
            if not self._more():
                raise self._fault(where if isinstance(where, str) else _json_path(*where), expected)
        self._at = found.end()
        return found

    def skips(self, byte: bytes) -> bool:
        """Whether ``byte`` comes next; if so, step behind it."""
        found = self.peek() == byte
        self._at += found
        return found

    def open_object(self) -> None:
        if self.skips(b"{"):
            return
        if not self.peek():
            raise self.error("is empty: download it again")
        start = self._data[self._at : self._at + 20]
        raise self.error(f"starts with {start!r}: expected a JSON object, {{...}}")

    def expect_end(self) -> None:
        if rest := self.peek():
            raise self.error(f"{rest!r} after the closing }} at byte {self._passed + self._at}")

    def key(self) -> str:
        raw = self.take(_KEY, "$", 'a "name":')[1]
        try:
            return str(msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeError):
            raise self.error(f"the key {raw[:40]!r} is not valid JSON") from None

    def array(self, key: str) -> Iterator[tuple[int, list[bytes]]]:
        """The elements of an array whose bracket has just been opened: (index of first, batch)."""
        if self.skips(b"]"):
            return
        first, delimiter = 0, b","
        while delimiter == b",":
            batch: list[bytes] = []
            size = 0
            while delimiter == b"," and len(batch) < BATCH and size < CHUNK:
                where = (key, first + len(batch))
                raw, delimiter = self.take(_ELEMENT, where, "a value and , or ]").groups()
                batch.append(raw)
                size += len(raw)
            yield first, batch
            first += len(batch)

    def error(self, problem: str) -> FormatError:
        return FormatError(f"{self._path}: {problem}")

    def _more(self) -> bool:
        rest = self._data[self._at :]
        if len(rest) >= MAX_ELEMENT:
            return False
        chunk = self._file.read(max(CHUNK, len(rest)))
        self._passed += self._at
        self._data, self._at = rest + chunk, 0
        self._ended = not chunk
        return not self._ended

    def _fault(self, where: str, expected: str) -> FormatError:
        """Why nothing matched here: the file ends, is too large or deep, or is not JSON."""
        rest = self._data[self._at :].lstrip()
        value = _VALUE.match(rest)
        after = rest[value.end() :].lstrip() if value else rest
        unfinished = not after or (value is None and rest[:1] in b'{["')
        if not unfinished:
            offset = self._passed + len(self._data) - len(after)
            return self.error(
                f"{where}: expected {expected}, found {after[:20]!r} at byte {offset}: "
                "not valid JSON"
            )
        if _nests_too_deep(rest):
            return self.error(f"{where} nests deeper than {MAX_NESTING} levels")
        if not self._ended:
            return self.error(f"{where} is larger than {MAX_ELEMENT >> 20} MiB")
        size = self._passed + len(self._data)
        return self.error(f"ends inside {where}, after {size} bytes: cut short? Download it again")


def _json_path(array: str, index: int) -> str:
    return f"$.{array}[{index}]"


def _nests_too_deep(data: bytes) -> bool:
    depth = 0
    for token in _TOKEN.finditer(data):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        if depth > MAX_NESTING:
            return True
    return False


def decode_batch(
    path: Path,
    array: str,
    first: int,
    raw: list[bytes],
    kind: type[T],
    mend: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None,
) -> list[T]:
    """Decode a batch of elements; see decode. What does not fit ``kind`` is first mended.

    ``mend`` takes the index of an element in the array, and the object that it is.
    """
    try:
        joined = b"[" + b",".join(raw) + b"]"
        return msgspec.json.decode(joined, type=list[kind])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeError):
        return [
            decode(path, _json_path(array, index), one, kind, mend and partial(mend, index))
            for index, one in enumerate(raw, first)
        ]


def decode(
    path: Path,
    where: str,
    raw: bytes,
    kind: Any,
    mend: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Any:
    """Decode one JSON value as ``kind``, which a msgspec decoder understands.

    NaN and Infinity, which JSON does not have and Python's json writes, become floats: the caller
    refuses them where it refuses other values.

    Args:
        path: the file, for messages.
        where: the value's JSON path in the file, for messages.
        raw: the value.
        kind: the type to decode as.
        mend: makes what it can of an object that does not fit ``kind``.

    Raises:
        FormatError: not JSON, or not of that type; the message holds file and JSON path.
    """
    try:
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError:
            if mend is None:
                raise
        except (msgspec.DecodeError, UnicodeError):
            pass
        return _convert(_parse(raw), kind, mend)
    except msgspec.ValidationError as error:
        raise _misfit(path, where, error) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {where}: not valid JSON: {error}") from error


def convert(path: Path, value: Any, kind: Any) -> Any:
    """A whole file's decoded ``value`` as ``kind``; errors are those of decode."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _misfit(path, "$", error) from error


def _misfit(path: Path, where: str, error: msgspec.ValidationError) -> FormatError:
    problem, _, inner = str(error).partition(" - at `$")
    return FormatError(f"{path}: {where}{inner.rstrip('`')}: {problem}")


def _parse(raw: bytes) -> Any:
    value = json.loads(raw)
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return value


def _convert(value: Any, kind: Any, mend: Callable[[dict[str, Any]], dict[str, Any]] | None) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        if mend is None or not isinstance(value, dict):
            raise
        return msgspec.convert(mend(value), kind)
