"""DeepLabCut's CollectedData_SCORER.csv: header rows that say what each column holds, then images.

    scorer,,,me,me,me,me                          scorer,me,me,me,me
    bodyparts,,,nose,nose,tail,tail       or      bodyparts,nose,nose,tail,tail
    coords,,,x,y,x,y                              coords,x,y,x,y
    labeled-data,video,img01.png,1,2,,            labeled-data/video/img01.png,1,2,,

A project of several animals has a row ``individuals`` below ``scorer``; bodyparts that occur once
in an image, corners of the box say, belong to the individual ``single``.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TextIO

from kpdata.core.errors import FormatError, located
from kpdata.formats._lib.listing import check_file
from kpdata.formats.base import Unusable

UNIQUE = "single"
"""The individual of bodyparts that occur once in an image."""

Columns = tuple[int, int]
"""Of a bodypart's x and y."""

_HEADS = (("scorer", "bodyparts", "coords"), ("scorer", "individuals", "bodyparts", "coords"))
_INDEX_WIDTHS = (1, 3)
_LONGEST_LINE = 1 << 20
_OTHER_SEPARATOR = re.compile("scorer([;\t])")


@dataclass(frozen=True)
class Table:
    """The layout of one file.

    Attributes:
        path: the file.
        header: rows before the images.
        index: cells that name a row's image.
        width: cells of a row.
        individuals: individual → bodypart → its columns, each in the file's order; ``""`` is the
            animal of a project of one.
    """

    path: Path
    header: int
    index: int
    width: int
    individuals: dict[str, dict[str, Columns]]

    @cached_property
    def animals(self) -> dict[str, dict[str, Columns]]:
        """``individuals`` without the one of unique bodyparts."""
        return {name: parts for name, parts in self.individuals.items() if name != UNIQUE}

    @cached_property
    def bodyparts(self) -> tuple[str, ...]:
        """Of all animals, in the order in which they come."""
        return tuple(dict.fromkeys(part for parts in self.animals.values() for part in parts))

    @property
    def unique(self) -> dict[str, Columns]:
        """Bodyparts that occur once in an image."""
        return self.individuals.get(UNIQUE, {})

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of every image; the number of cells is not checked.

        Raises:
            FormatError: a line is no CSV.
        """
        with located(str(self.path)):
            yield from islice(_rows(self.path), self.header, None)

    def image_name(self, cells: list[str]) -> str:
        """A row's image as a relative POSIX path, which may still be unsafe.

        Windows' ``\\`` becomes ``/``, and ``./a//b`` is ``a/b``: one image, of one video.
        """
        name = "/".join(cells[: self.index]).replace("\\", "/").rstrip("/")
        first, *rest = name.split("/")
        kept = [part for part in rest if part not in ("", ".")]
        return "/".join(kept if first == "." else [first, *kept])


def read_table(path: Path, folder: Path) -> Table:
    """The layout of a file below ``folder``, from its header.

    Raises:
        FormatError: it cannot be read, or is not a CollectedData file; the message names the line.
    """
    with located(str(path)):
        try:
            check_file(path, folder)
        except (Unusable, OSError) as error:
            raise FormatError(f"cannot be read: {error}") from error
        head = list(islice(_rows(path), max(map(len, _HEADS))))
        kinds = _kinds(head)
        by_kind = dict(zip(kinds, head, strict=False))
        width = len(by_kind["coords"][1])
        for kind, (line, cells) in by_kind.items():
            if len(cells) != width:
                raise FormatError(
                    f"line {line}: {len(cells)} cells of {kind}, but {width} of coords"
                )
        named = {kind: [cell.strip() for cell in row] for kind, (_, row) in by_kind.items()}
        index = _index(named["coords"], by_kind["coords"][0])
        return Table(path, len(kinds), index, width, _individuals(named, index))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not empty."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_lines(file), strict=True)
            try:
                for cells in reader:
                    if any(cells):
                        yield reader.line_num, cells
            except csv.Error as error:
                raise FormatError(f"line {reader.line_num}: not CSV: {error}") from error
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"not UTF-8 text ({error.reason}): save it as CSV UTF-8") from error


def _lines(file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise FormatError(f"line {number}: longer than {_LONGEST_LINE:,} characters")
        yield line


def _kinds(head: list[tuple[int, list[str]]]) -> tuple[str, ...]:
    """What the header's rows hold, one of _HEADS."""
    if not head:
        raise FormatError("is empty: label some images, or remove it")
    if other := _OTHER_SEPARATOR.match(head[0][1][0]):
        raise FormatError(
            f"line 1: its cells are separated by {other[1]!r}, as some spreadsheets write it: "
            "save it with commas, and with points in numbers"
        )
    found = [cells[0].strip() for _, cells in head]
    kinds = _HEADS["individuals" in found[1:2]]
    for number, kind in enumerate(kinds):
        if number == len(head):
            raise FormatError(f"ends before its row {kind!r}: expected a CollectedData file")
        if found[number] != kind:
            raise FormatError(
                f"line {head[number][0]}: begins with {found[number]!r:.40}: expected {kind!r}, as "
                "in the CollectedData_SCORER.csv that DeepLabCut saves"
            )
    return kinds


def _index(coords: list[str], line: int) -> int:
    index = next((column for column, cell in enumerate(coords) if column and cell), 0)
    if index not in _INDEX_WIDTHS:
        raise FormatError(
            f"line {line}: the first coordinate is in column {index + 1}: expected column 2, after "
            "one cell labeled-data/VIDEO/IMAGE, or column 4, after three cells with its parts"
            if index
            else f"line {line}: names no coordinate"
        )
    return index


def _individuals(cells: dict[str, list[str]], index: int) -> dict[str, dict[str, Columns]]:
    """What stands in which columns, from the header's cells."""
    places: dict[str, dict[str, dict[str, int]]] = {}
    owners = cells.get("individuals", [""] * len(cells["coords"]))
    columns = zip(owners, cells["bodyparts"], cells["coords"], strict=True)
    for column, (owner, part, coordinate) in enumerate(columns):
        if column < index:
            continue
        where = f"column {column + 1}: {coordinate!r:.40} of {part!r:.40}"
        if coordinate == "likelihood":
            raise FormatError(
                f"{where}: what a network predicted is no label: give a CollectedData_SCORER.csv"
            )
        if coordinate not in ("x", "y"):
            raise FormatError(f"{where}: expected x or y")
        found = places.setdefault(owner, {}).setdefault(part, {})
        if coordinate in found:
            raise FormatError(f"{where}: column {found[coordinate] + 1} is that, too: keep one")
        found[coordinate] = column
    return {
        owner: {part: _both(part, found) for part, found in parts.items()}
        for owner, parts in places.items()
    }


def _both(part: str, found: dict[str, int]) -> Columns:
    if len(found) < 2:
        (there,) = found
        raise FormatError(f"{part!r:.40} has a column of {there} alone: expected x and y")
    return found["x"], found["y"]
