"""A COCO file's images and annotations, joined in a temporary database on disk."""

import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from kpdata.errors import FormatError
from kpdata.formats import json_stream
from kpdata.formats.source import LARGEST, LARGEST_AREA

_BATCH = 1000
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA cache_size = -8192;
    CREATE TABLE images (image INTEGER PRIMARY KEY, id, file_name, width, height, grp);
    CREATE TABLE annotations (
        place INTEGER PRIMARY KEY, id, image_id, category_id, is_crowd, area, box,
        keypoints, fault
    );
"""
_ROWS = """
    SELECT image, images.id, file_name, width, height, grp,
        place, annotations.id, is_crowd, area, box, keypoints, fault
    FROM images LEFT JOIN annotations ON image_id = images.id AND category_id = ?
    ORDER BY image, place
"""


class Category(msgspec.Struct):
    """An element of ``categories``."""

    id: Int64
    name: str
    keypoints: tuple[str, ...] = ()
    skeleton: list[tuple[int, int]] | None = None


class _Image(msgspec.Struct):
    id: Int64
    file_name: str
    width: _Size | None = None
    height: _Size | None = None
    group: str | int | None = None


class _Annotation(msgspec.Struct):
    id: Int64
    image_id: Int64
    category_id: Int64
    keypoints: list[float] | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: bool | int = 0


class Row(NamedTuple):
    """One annotation with its image, or an image without any (``place`` is None).

    ``image`` and ``place`` are the positions in the file's arrays; ``box`` (xywh) and
    ``keypoints`` are float64 as the file has them; ``fault`` says what is wrong with box or area,
    as "reason: detail".
    """

    image: int
    image_id: int
    file_name: str
    width: int | None
    height: int | None
    group: str | None
    place: int | None
    id: int
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
    """

    def __init__(self, path: Path):
        """Read the file once.

        Raises:
            FormatError: the file's structure is at fault.
            sqlite3.Error: the temporary database cannot be written.
        """
        self._path = path
        self.categories: list[Category] = []
        self.annotations: Counter[int] = Counter()
        self.with_box: Counter[int] = Counter()
        self._db = sqlite3.connect("", check_same_thread=False)  # "" is a file that has no name
        try:
            self._db.executescript(_TABLES)
            self._fill()
            self._check_ids()
        except BaseException:
            self._db.close()
            raise

    def rows(self, category_id: int) -> Iterator[list[Row]]:
        """All images in the file's order, each with its annotations of a category, in batches."""
        cursor = self._db.execute(_ROWS, (category_id,))
        while rows := cursor.fetchmany(_BATCH):
            yield list(map(Row._make, rows))

    def close(self) -> None:
        """Drop the database."""
        self._db.close()

    def _fill(self) -> None:
        path = self._path
        wanted = ("images", "annotations", "categories")
        for name, first, raw in json_stream.batches(path, wanted):
            if name == "images":
                images = json_stream.decode_batch(path, name, first, raw, _Image)
                self._insert(name, map(_image_row, range(first, first + len(raw)), images))
            elif name == "annotations":
                found = json_stream.decode_batch(path, name, first, raw, _Annotation)
                self.annotations.update(entry.category_id for entry in found)
                self.with_box.update(entry.category_id for entry in found if entry.bbox)
                places = range(first, first + len(raw))
                self._insert(name, map(_annotation_row, [path] * len(raw), places, found))
            else:
                self.categories += json_stream.decode_batch(path, name, first, raw, Category)
        self._db.commit()

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * (6 if table == "images" else 9))
        self._db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

    def _check_ids(self) -> None:
        for table, place in (("images", "image"), ("annotations", "place")):
            try:
                self._db.execute(f"CREATE UNIQUE INDEX {table}_ids ON {table} (id)")
            except sqlite3.IntegrityError:
                query = f"SELECT id, min({place}), max({place}) FROM {table} GROUP BY id "
                id_, first, last = self._first(query + "HAVING count(*) > 1 LIMIT 1")
                raise FormatError(
                    f"{self._path}: $.{table}[{last}].id: {id_} is also the id of "
                    f"$.{table}[{first}]: ids must differ"
                ) from None
        self._db.execute("CREATE INDEX owners ON annotations (image_id)")
        query = "SELECT place, image_id FROM annotations WHERE image_id NOT IN "
        if lost := self._first(query + "(SELECT id FROM images) LIMIT 1"):
            raise FormatError(
                f"{self._path}: $.annotations[{lost[0]}].image_id: no image has the id {lost[1]}: "
                "add the image or remove the annotation"
            )
        known: set[int] = set()
        for position, category in enumerate(self.categories):
            if category.id in known:
                raise FormatError(
                    f"{self._path}: $.categories[{position}].id: {category.id} stands twice"
                )
            known.add(category.id)

    def _first(self, query: str) -> Any:
        return self._db.execute(query).fetchone()


def _image_row(place: int, image: _Image) -> tuple[Any, ...]:
    group = None if image.group is None else str(image.group)
    return place, image.id, image.file_name, image.width, image.height, group


def _annotation_row(path: Path, place: int, entry: _Annotation) -> tuple[Any, ...]:
    keypoints, box = entry.keypoints, entry.bbox
    fault = _fault(entry)
    return (
        place,
        entry.id,
        entry.image_id,
        entry.category_id,
        bool(entry.iscrowd),
        None if fault else entry.area,
        None if fault or box is None else array("d", box).tobytes(),
        None if keypoints is None else array("d", keypoints).tobytes(),
        fault and fault.format(f"{path}: $.annotations[{place}]"),
    )


def _fault(entry: _Annotation) -> str | None:
    """What is wrong with box or area, with {} in place of where."""
    box, area = entry.bbox, entry.area
    if area is not None and not 0 <= area <= LARGEST_AREA:
        return f"bad area: {{}}.area is {area}: expected 0 to {LARGEST_AREA:g} square pixels"
    if box is None:
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
