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
_INFO_BYTES = 10_000
_MANY = 1000
"""Lengths of keypoints that are told apart: enough to say what nearly all of a file has."""
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

OWN_MARK = "written by kpdata"
"""What ``info`` says of the files that kpdata writes, whose v are COCO's."""

TABLES = """
    PRAGMA cache_size = -8192;
    CREATE TABLE images (image INTEGER PRIMARY KEY, id, file_name, width, height, grp);
    CREATE TABLE categories (category INTEGER PRIMARY KEY);
    CREATE TABLE chosen (category INTEGER PRIMARY KEY);
    CREATE TABLE annotations (
        position INTEGER PRIMARY KEY, id, image_id, category_id, is_crowd, area, box,
        keypoints, more, fault
    );
"""
_ROWS = """
    SELECT image, images.id, file_name, width, height, grp,
        position, annotations.id, category_id, is_crowd, area, box, keypoints, more, fault
    FROM images LEFT JOIN annotations
        ON image_id = images.id AND category_id IN (SELECT category FROM chosen)
    ORDER BY image, position
"""
_ORPHANS = """
    SELECT position, image_id FROM annotations
    WHERE category_id IN (SELECT category FROM chosen) AND image_id NOT IN (SELECT id FROM images)
    ORDER BY position
"""
_UNKNOWN_CATEGORY = """
    SELECT position, image_id, category_id FROM annotations
    WHERE category_id NOT IN (SELECT category FROM categories) ORDER BY position
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
    vid_id: Any = None
    video_id: Any = None
    extra: Any = None

    @property
    def group_and_key(self) -> tuple[str | None, str]:
        """What the file says of images that belong together, and under which key."""
        named = self.extra.get("name") if isinstance(self.extra, dict) else None
        for key, value in (
            ("group", self.group),
            ("video_id", self.video_id),
            ("vid_id", self.vid_id),
            ("extra.name", named),
        ):
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                return f"{value}", key
        return None, ""


WHOLEBODY = (("foot", 6), ("face", 68), ("lefthand", 21), ("righthand", 21))
"""What COCO-WholeBody has beside the body's 17: the key's begin, and the number of keypoints."""


class _Annotation(msgspec.Struct):
    image_id: Int64 | str
    category_id: Int64
    id: Int64 | None = None
    keypoints: list[float] | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: bool | int = 0
    foot_kpts: list[float] | None = None
    face_kpts: list[float] | None = None
    lefthand_kpts: list[float] | None = None
    righthand_kpts: list[float] | None = None
    foot_valid: Any = True
    face_valid: Any = True
    lefthand_valid: Any = True
    righthand_valid: Any = True

    @property
    def has_wholebody(self) -> bool:
        """Whether it has any of COCO-WholeBody's arrays."""
        return any((self.foot_kpts, self.face_kpts, self.lefthand_kpts, self.righthand_kpts))

    def more_keypoints(self) -> tuple[bytes, str]:
        """COCO-WholeBody's other 116 keypoints as float64, and what is wrong with them.

        Those of a part that is not valid are zeros.
        """
        parts, fault = [], ""
        for name, count in WHOLEBODY:
            values = getattr(self, f"{name}_kpts") if getattr(self, f"{name}_valid") else None
            if values and len(values) != 3 * count:
                fault = fault or (
                    f"bad keypoints: {{}}.{name}_kpts holds {len(values)} numbers: "
                    f"expected {3 * count}, x, y and v of {count} keypoints"
                )
                values = None
            parts.append(array("d", values or bytes(24 * count)).tobytes())
        return b"".join(parts), fault


class Row(NamedTuple):
    """One annotation with its image, or an image without any (``position`` is None).

    ``image`` and ``position`` are the positions in the file's arrays; ``box`` (xywh), ``keypoints``
    and ``more``, the keypoints of COCO-WholeBody's other arrays, are float64 as the file has them;
    ``fault`` says what is wrong with box or area, as "reason: detail".
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
    more: bytes | None
    fault: str | None


class Index:
    """Everything that is read of a COCO file.

    Attributes:
        categories: in the file's order.
        annotations, with_box: how many there are, by category id.
        lengths: annotations by category id and by how many numbers their keypoints are.
        wholebody: annotations with keypoints in COCO-WholeBody's other arrays.
        visibilities: the values of v that the file has, less those of faulty keypoints.
        grouped_by: images by the key that says which belong together.
        group_numbers: whether these groups are numbers, which other files may use for others.
        tool: what the file's ``info`` says of its origin, in lower case.
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
        self.lengths: Counter[tuple[int, int]] = Counter()
        self.wholebody = 0
        self.visibilities: set[float] = set()
        self.grouped_by: Counter[str] = Counter()
        self.group_numbers = False
        self.tool = ""
        self._mender = Mender()
        self.counts = self._mender.counts
        self._fill()
        self._check_ids()
        self._number_annotations()

    def unknown_categories(self) -> Iterator[tuple[int, int | str, int]]:
        """Position, image id and category id of annotations whose category the file lacks."""
        yield from self._db.execute(_UNKNOWN_CATEGORY)

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

    def holds(self, count: int) -> bool:
        """Whether some annotation lists so many keypoints."""
        return any(length == 3 * count for _, length in self.lengths)

    def _fill(self) -> None:
        wanted = ("images", "annotations", "categories")
        for name, first, raw in json_stream.batches(self._path, wanted, ("info",)):
            if name == "info":
                self.tool = raw[0][:_INFO_BYTES].decode("utf-8", "replace").lower()
            elif name == "images":
                images = self._decode(name, first, raw, _Image, self._mender.image)
                rows = map(self._image_row, range(first, first + len(raw)), images)
                self._db.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)", rows)
            elif name == "annotations":
                self._add_annotations(first, raw)
            else:
                self.categories += self._decode(name, first, raw, Category, self._mender.category)

    def _image_row(self, position: int, image: _Image) -> tuple[Any, ...]:
        group, key = image.group_and_key
        if group:
            self.grouped_by[key] += 1
            self.group_numbers |= key != "group" and group.isdigit()
        return position, _join_id(image.id), image.file_name, image.width, image.height, group

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
        for entry in found:
            if entry.keypoints:
                if 2 not in self.visibilities:
                    self.visibilities.update(entry.keypoints[2::3])
                length = entry.category_id, len(entry.keypoints)
                if len(self.lengths) < _MANY or length in self.lengths:
                    self.lengths[length] += 1
            self.wholebody += entry.has_wholebody
        self.visibilities &= {0, 1, 2}  # others are faults, of any number
        rows = (
            _annotation_row(self._path, position, entry, faults.get(position))
            for position, entry in enumerate(found, first)
        )
        self._db.executemany("INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

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
        self._db.executemany("INSERT INTO categories VALUES (?)", ((id_,) for id_ in known))

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


def _annotation_row(
    path: Path, position: int, entry: _Annotation, fault: str | None
) -> tuple[Any, ...]:
    keypoints, box = entry.keypoints or None, entry.bbox or None
    more, fault_there = entry.more_keypoints() if entry.has_wholebody else (None, None)
    fault = fault or _fault(entry) or fault_there
    return (
        position,
        entry.id,
        _join_id(entry.image_id),
        entry.category_id,
        bool(entry.iscrowd),
        None if fault else entry.area,
        None if fault or box is None else array("d", box).tobytes(),
        None if keypoints is None else array("d", keypoints).tobytes(),
        more,
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
