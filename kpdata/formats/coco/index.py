"""A COCO file's images and annotations, joined in a temporary database on disk."""

import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from kpdata.core.errors import FormatError
from kpdata.formats._lib import json_stream
from kpdata.formats.base import LARGEST, LARGEST_AREA
from kpdata.formats.coco.mend import EMPTY, NUMBERS, Entry, Mender

T = TypeVar("T")

_BATCH = 1000
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

TABLES = """
    PRAGMA cache_size = -8192;
    CREATE TABLE images (image INTEGER PRIMARY KEY, id, file_name, width, height, grp);
    CREATE TABLE chosen (category INTEGER PRIMARY KEY);
    CREATE TABLE annotations (
        position INTEGER PRIMARY KEY, id, image_id, category_id, is_crowd, area, box,
        keypoints, fault
    );
"""
_ROWS = """
    SELECT image, images.id, file_name, width, height, grp,
        position, annotations.id, category_id, is_crowd, area, box, keypoints, fault
    FROM images LEFT JOIN annotations
        ON image_id = images.id AND category_id IN (SELECT category FROM chosen)
    ORDER BY image, position
"""
_ORPHANS = """
    SELECT position, image_id FROM annotations
    WHERE category_id IN (SELECT category FROM chosen) AND image_id NOT IN (SELECT id FROM images)
    ORDER BY position
"""
_TO_NUMBER = """
    SELECT position FROM annotations
    WHERE id IS NULL OR position NOT IN (SELECT min(position) FROM annotations GROUP BY id)
    ORDER BY position
"""
_HIGHEST = "SELECT coalesce(max(id), 0) FROM annotations WHERE id BETWEEN 0 AND 1 << 62"


class Category(msgspec.Struct):
    """An element of ``categories``."""

    id: Int64
    name: str
    keypoints: tuple[str, ...] | None = ()
    skeleton: Any = None


class _Image(msgspec.Struct):
    id: Int64 | str
    file_name: str
    width: _Size | None = None
    height: _Size | None = None
    group: str | int | None = None


class _Annotation(msgspec.Struct):
    image_id: Int64 | str
    category_id: Int64
    id: Int64 | None = None
    keypoints: list[float] | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: bool | int = 0


class Row(NamedTuple):
    """One annotation with its image, or an image without any (``position`` is None).

    ``image`` and ``position`` are the positions in the file's arrays; ``box`` (xywh) and
    ``keypoints`` are float64 as the file has them; ``fault`` says what is wrong with box or area,
    as "reason: detail".
    """

    image: int
    image_id: int | str
    file_name: str
    width: int | None
    height: int | None
    group: str | None
    position: int | None
    id: int
    category_id: int
    is_crowd: int
    area: float | None
    box: bytes | None
    keypoints: bytes | None
    fault: str | None


class Index:
    """Everything that is read of a COCO file.

    Attributes:
        categories: in the file's order.
        annotations, with_box: how many there are, by category id.
        counts: how often each repair was made, by its name.
    """

    def __init__(self, path: Path, db: sqlite3.Connection):
        """Read the file once into ``db``, a scratch database with TABLES.

        Raises:
            FormatError: the file's structure is at fault.
        """
        self._path, self._db = path, db
        self.categories: list[Category] = []
        self.annotations: Counter[int] = Counter()
        self.with_box: Counter[int] = Counter()
        self._mender = Mender()
        self.counts = self._mender.counts
        self._fill()
        self._check_ids()
        self._number_annotations()

    def choose(self, categories: Iterable[int]) -> None:
        """Have :meth:`rows` and :meth:`orphans` give the annotations of these categories."""
        self._db.executemany("INSERT INTO chosen VALUES (?)", ((id_,) for id_ in categories))

    def rows(self) -> Iterator[list[Row]]:
        """All images in the file's order, each with its chosen annotations, in batches."""
        cursor = self._db.execute(_ROWS)
        while rows := cursor.fetchmany(_BATCH):
            yield list(map(Row._make, rows))

    def orphans(self) -> Iterator[tuple[int, int | str]]:
        """Position and image id of the chosen annotations whose image the file lacks."""
        yield from self._db.execute(_ORPHANS)

    def first_names(self, count: int) -> list[str]:
        """The file names of the first images."""
        rows = self._db.execute("SELECT file_name FROM images ORDER BY image LIMIT ?", (count,))
        return [name for (name,) in rows]

    def _fill(self) -> None:
        wanted = ("images", "annotations", "categories")
        for name, first, raw in json_stream.batches(self._path, wanted):
            if name == "images":
                images = self._decode(name, first, raw, _Image, self._mender.image)
                self._insert(name, map(_image_row, range(first, first + len(raw)), images))
            elif name == "annotations":
                self._add_annotations(first, raw)
            else:
                self.categories += self._decode(name, first, raw, Category, self._mender.category)

    def _decode(
        self,
        name: str,
        first: int,
        raw: list[bytes],
        kind: type[T],
        mend: Callable[[Entry], Entry],
    ) -> list[T]:
        return json_stream.decode_batch(
            self._path, name, first, raw, kind, lambda _, entry: mend(entry)
        )

    def _add_annotations(self, first: int, raw: list[bytes]) -> None:
        faults: dict[int, str] = {}

        def mend(position: int, entry: Entry) -> Entry:
            mended, fault = self._mender.annotation(entry)
            if fault:
                faults[position] = fault
            return mended

        found = json_stream.decode_batch(self._path, "annotations", first, raw, _Annotation, mend)
        self.annotations.update(entry.category_id for entry in found)
        self.with_box.update(entry.category_id for entry in found if entry.bbox)
        self.counts[EMPTY] += sum(
            (entry.keypoints == [] and not entry.iscrowd) + (entry.bbox == []) for entry in found
        )
        rows = (
            _annotation_row(self._path, position, entry, faults.get(position))
            for position, entry in enumerate(found, first)
        )
        self._insert("annotations", rows)

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * (6 if table == "images" else 9))
        self._db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

    def _check_ids(self) -> None:
        for column in ("images (id)", "annotations (id)", "annotations (image_id)"):
            name = "".join(filter(str.isalpha, column))
            self._db.execute(f"CREATE INDEX {name} ON {column}")
        twice = self._db.execute(
            "SELECT id, min(image), max(image) FROM images GROUP BY id HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            id_, first, last = twice
            raise FormatError(
                f"{self._path}: $.images[{last}].id: {id_} is also the id of $.images[{first}]: "
                "ids must differ"
            )
        known: set[int] = set()
        for position, category in enumerate(self.categories):
            if category.id in known:
                raise FormatError(
                    f"{self._path}: $.categories[{position}].id: {category.id} stands twice"
                )
            known.add(category.id)

    def _number_annotations(self) -> None:
        """Give an id of its own to each annotation that has none, or that of an earlier one."""
        positions = self._db.execute(_TO_NUMBER).fetchall()
        (highest,) = self._db.execute(_HIGHEST).fetchone()
        numbered = ((number, position) for number, (position,) in enumerate(positions, highest + 1))
        self._db.executemany("UPDATE annotations SET id = ? WHERE position = ?", numbered)
        self.counts[NUMBERS] += len(positions)


def _join_id(id_: int | str) -> int | str:
    """An image's id, as a number where its text is one: "12" and 12 name the same image."""
    if isinstance(id_, str) and id_.isascii() and id_.isdigit() and len(id_) < 19:
        return int(id_) if str(int(id_)) == id_ else id_
    return id_


def _image_row(position: int, image: _Image) -> tuple[Any, ...]:
    group = None if image.group is None else str(image.group)
    return position, _join_id(image.id), image.file_name, image.width, image.height, group


def _annotation_row(
    path: Path, position: int, entry: _Annotation, fault: str | None
) -> tuple[Any, ...]:
    keypoints, box = entry.keypoints or None, entry.bbox or None
    fault = fault or _fault(entry)
    return (
        position,
        entry.id,
        _join_id(entry.image_id),
        entry.category_id,
        bool(entry.iscrowd),
        None if fault else entry.area,
        None if fault or box is None else array("d", box).tobytes(),
        None if keypoints is None else array("d", keypoints).tobytes(),
        fault and fault.format(f"{path}: $.annotations[{position}]"),
    )


def _fault(entry: _Annotation) -> str | None:
    """What is wrong with box or area, with {} in place of where."""
    box, area = entry.bbox, entry.area
    if area is not None and not 0 <= area <= LARGEST_AREA:
        return f"bad area: {{}}.area is {area}: expected 0 to {LARGEST_AREA:g} square pixels"
    if not box:
        return None
    if len(box) != 4:
        return f"bad box: {{}}.bbox holds {len(box)} numbers: expected x, y, width, height"
    x, y, width, height = box
    placed = abs(x) <= LARGEST and abs(y) <= LARGEST
    if placed and 0 <= width <= LARGEST and 0 <= height <= LARGEST:
        return None
    return (
        f"bad box: {{}}.bbox is {box}: expected x, y, width and height within {LARGEST:g} pixels, "
        "the last two not negative"
    )
