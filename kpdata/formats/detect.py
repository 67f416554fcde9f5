"""Recognise a format by the content of the annotations, never by their names alone."""

import csv
import heapq
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from kpdata.core.errors import FormatError, KpdataError, quoted
from kpdata.formats._lib import matlab
from kpdata.formats._lib.listing import IMAGE_SUFFIXES, is_hidden, walk
from kpdata.formats._lib.yaml_file import read_yaml
from kpdata.formats.base import Format
from kpdata.storage.bounded import open_regular

HEAD = 1 << 20
"""Bytes that are looked at of a file that may be of any size."""

_MATLAB_BYTES, _MATLAB_INFLATED = 64 << 20, 512 << 20
_VALUE_SHOWN = 2000
_FILES_TRIED = 100
_JSON_TRIED = 20
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_NAMED = 8
_MARK = re.compile(rb'["{}\[\]:,]')
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_XML_NAME = re.compile(rb"<([A-Za-z_][\w.:-]{0,99})")
_XML_BEFORE = ((b"<!--", b"-->"), (b"<?", b"?>"), (b"<!", b">"))
"""How what may stand before an XML file's root element begins and ends."""


_OTHER_FILES = {
    b"\x1f\x8b": "a gzip file, which must be unpacked first",
    b"PK\x03\x04": "a zip file, which must be unpacked first",
    b"\x89HDF": "an HDF5 file, such as DeepLabCut's .h5 (its .csv lies beside it) or SLEAP's .slp",
    b"\xff\xfe": "text in UTF-16, which must be saved as UTF-8",
    b"\xfe\xff": "text in UTF-16, which must be saved as UTF-8",
    b"version https://git-lfs": "a pointer of Git LFS: the file itself is not here",
}
"""First bytes of files that people often give as annotations → what these files are."""


class Seen:
    """Annotations as a format's ``detect`` may inspect them. Each property is read once, on demand.

    A property that does not fit, such as the MATLAB variables of a JSON file, is empty.

    Attributes:
        path: the file or folder.
    """

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    @cached_property
    def head(self) -> bytes:
        """The first MiB of a file, without a byte order mark; empty of a folder.

        Raises:
            FormatError: it is a pipe or a device, or cannot be read.
        """
        if self.is_folder or not self.path.exists():
            return b""
        try:
            with open_regular(self.path) as file:
                return file.read(HEAD).removeprefix(b"\xef\xbb\xbf")
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read: {error.strerror}") from error

    @cached_property
    def is_cut(self) -> bool:
        """Whether the file goes on behind its head."""
        return self.path.is_file() and self.path.stat().st_size > HEAD

    @cached_property
    def json_keys(self) -> Mapping[str, bytes]:
        """Key → how its value begins, of the one JSON object in the file, or of a list's first.

        Of a file larger than its head, those that the head shows.
        """
        return _keys(self.head)

    @cached_property
    def is_json_list(self) -> bool:
        """Whether the file is a JSON list."""
        return self.head.lstrip().startswith(b"[")

    @cached_property
    def matlab_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Variable → shape, of a MATLAB file."""
        if not self.head.startswith(b"MATLAB"):
            return {}
        try:
            data = matlab.read_file(self.path, _MATLAB_BYTES)
            return matlab.shapes(data, _MATLAB_INFLATED)
        except FormatError:
            return {}

    @cached_property
    def yaml(self) -> Mapping[str, Any]:
        """What a YAML file that holds a mapping says."""
        if not self.head or self.is_cut or self.path.suffix.lower() not in (".yaml", ".yml"):
            return {}
        try:
            found = read_yaml(self.path, "a mapping")
        except (FormatError, OSError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def csv_rows(self) -> list[list[str]]:
        """The first four rows of a CSV file."""
        if self.path.suffix.lower() != ".csv":
            return []
        lines = self.head.decode("utf-8", "replace").splitlines()[:4]
        try:
            return list(csv.reader(lines))
        except csv.Error:  # a cell of more than 131,072 characters
            return []

    @cached_property
    def xml_root(self) -> str:
        """The name of an XML file's root element; empty where there is none."""
        if self.path.suffix.lower() != ".xml":
            return ""
        rest = self.head.lstrip()
        while before := next((pair for pair in _XML_BEFORE if rest.startswith(pair[0])), None):
            rest = rest.partition(before[1])[2].lstrip()
        found = _XML_NAME.match(rest)
        return found[1].decode() if found else ""

    @cached_property
    def names(self) -> frozenset[str]:
        """The files and folders in a folder."""
        return frozenset(p.name for p in self.path.iterdir()) if self.is_folder else frozenset()

    @cached_property
    def json_files(self) -> list["Seen"]:
        """The first JSON files in a folder, else in those below it, by name."""
        if not self.is_folder:
            return []
        here = [n for n in self.names if n.lower().endswith(".json") and not is_hidden(n)]
        below = (name for _, name in walk(self.path, frozenset({".json"})) if not is_hidden(name))
        return [self / name for name in heapq.nsmallest(_JSON_TRIED, here or below)]

    def __truediv__(self, name: str) -> "Seen":
        return Seen(self.path / name)

    def describe(self) -> str:
        """What was seen, for a message: no more than a line."""
        if self.is_folder:
            names = quoted(sorted(self.names))
            return f"a folder with {names}" if names else "an empty folder"
        if self.matlab_shapes:
            held = ", ".join(
                f"{n!r:.40} {shape}" for n, shape in islice(self.matlab_shapes.items(), _NAMED)
            )
            return f"a MATLAB file with {held}"
        for begins, what in _OTHER_FILES.items():
            if self.head.startswith(begins):
                return what
        if self.head.startswith(b"MATLAB"):
            return "a MATLAB file that cannot be read, such as one of v7.3"
        if self.xml_root:
            return f"an XML file with the root element {self.xml_root}"
        if self.json_keys:
            kind = "a JSON list of objects" if self.is_json_list else "a JSON file"
            return f"{kind} with the keys {quoted(self.json_keys)}"
        if self.yaml:
            return f"a YAML file with the keys {quoted(self.yaml)}"
        if self.csv_rows:
            return f"a CSV file that begins with {quoted(self.csv_rows[0])}"
        return f"a file that begins with {self.head[:16]!r}" if self.head else "an empty file"


class Recognised(NamedTuple):
    """A format that was found by itself.

    Attributes:
        format: which.
        path: what to read: the annotations that were given, or the one file in them.
        evidence: what showed it.
    """

    format: Format
    path: Path
    evidence: str

    def __str__(self) -> str:
        return f"{self.path}: format {self.format.name}, recognised by {self.evidence}"


def recognise(path: Path, formats: Mapping[str, Format]) -> Recognised:
    """The one format that annotations are of.

    Args:
        path: a file or a folder; a folder that is itself nothing may hold one file that is.
        formats: those to choose from.

    Raises:
        FormatError: nothing is there, none fits, or several do; the message says what was seen.
    """
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder")
    seen = Seen(path)
    found = _candidates(seen, formats)
    if not found and seen.is_folder:
        inside = sorted(n for n in seen.names if Path(n).suffix.lower() not in IMAGE_SUFFIXES)
        files = [seen / name for name in inside[:_FILES_TRIED] if not is_hidden(name)]
        found = [one for file in files if not file.is_folder for one in _candidates(file, formats)]
    if len(found) == 1:
        return found[0]
    if not found:
        known = ", ".join(formats)
        hints = [
            *filter(None, (entry.hint(seen) for entry in formats.values())),
            *_split_hint(seen, formats),
        ]
        advice = "; ".join(hints) or (
            "if it is one of them all the same, name it: its reader says what is missing"
        )
        raise FormatError(
            f"{path}: of no format that kpdata knows ({known}): it is {seen.describe()}: {advice}"
        )
    listed = "; ".join(f"{one.path}: {one.format.name}, by {one.evidence}" for one in found)
    raise FormatError(
        f"{path}: could be read in {len(found)} ways ({listed}): give one of these paths, name the "
        "format, or give a file for each split, as in train=a.json val=b.json"
    )


def _split_hint(seen: Seen, formats: Mapping[str, Format]) -> list[str]:
    """What to type where each split has a folder of its own, as Roboflow exports them."""
    given = []
    for folder, split in _SPLIT_FOLDERS.items():
        if folder in seen.names:
            with suppress(FormatError):
                recognise(seen.path / folder, formats)
                given.append(f"{split}={seen.path / folder}")
    return [f"give a file or folder for each split: {' '.join(given)}"] if given else []


def _candidates(seen: Seen, formats: Mapping[str, Format]) -> list[Recognised]:
    found = []
    for entry in formats.values():
        try:
            evidence = entry.detect(seen)
        except (KpdataError, OSError):
            continue
        if evidence:
            found.append(Recognised(entry, seen.path, evidence))
    return found


def _keys(head: bytes) -> dict[str, bytes]:
    """The keys of the first object of a JSON text, and how their values begin."""
    if head.lstrip()[:1] not in (b"{", b"["):
        return {}
    level = 2 if head.lstrip().startswith(b"[") else 1
    found: dict[str, bytes] = {}
    depth, last, at = 0, b"", 0
    while mark := _MARK.search(head, at):
        token = _STRING.match(head, mark.start()) if mark[0] == b'"' else mark
        if token is None:  # the head ends inside a string
            break
        at = token.end()
        if mark[0] in b"{[":
            depth += 1
        elif mark[0] in b"}]":
            depth -= 1
            if depth < level:
                break
        elif mark[0] == b":" and depth == level and last:
            key = last[1:-1].decode("utf-8", "replace")
            found[key] = head[at : at + _VALUE_SHOWN].lstrip()
        last = token[0] if mark[0] == b'"' else b""
    return found
