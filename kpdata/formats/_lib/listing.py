"""A folder of annotation files and a folder of images, paired by stem in a temporary database."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kpdata.core.errors import FormatError
from kpdata.formats.base import Unusable
from kpdata.storage.scratch import scratch_database
from kpdata.storage.stores import Location, Url, store_of

ANNOTATION_SUFFIXES = frozenset({".json"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
MAX_BYTES = 64 << 20
"""Larger annotation files are refused one by one."""

TABLES = """
    CREATE TABLE annotations (name BLOB PRIMARY KEY, stem BLOB) WITHOUT ROWID;
    CREATE TABLE images (stem BLOB, name BLOB, PRIMARY KEY (stem, name)) WITHOUT ROWID;
    CREATE TABLE taken (name BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_PAIRS = """
    SELECT annotations.name, count(images.name), min(images.name), max(images.name)
    FROM annotations LEFT JOIN images ON images.stem = annotations.stem
    GROUP BY annotations.name ORDER BY annotations.name
"""


class FilePair(NamedTuple):
    """An annotation file and its image, as relative POSIX paths.

    ``candidates`` counts the images of its stem; ``image`` and ``last_image`` are the first and
    the last of them, empty where there is none.
    """

    annotation: str
    candidates: int
    image: str
    last_image: str


class FilePairs:
    """All pairs of two folders; its memory does not grow with them.

    Attributes:
        hidden: files of the right suffix that are left out because a dot begins their name.
    """

    def __init__(self, db: sqlite3.Connection, annotations: Path, images: Location):
        """List both folders once into ``db``, a scratch database with TABLES.

        Symlinked folders are not entered.

        Raises:
            FormatError: a folder cannot be listed.
        """
        self._db = db
        self.hidden = _list(db, "annotations", annotations, ANNOTATION_SUFFIXES)
        self.hidden += _list(db, "images", images, IMAGE_SUFFIXES)

    def pairs(self) -> Iterator[FilePair]:
        """Every annotation file, in the order of names."""
        for name, candidates, first, last in self._db.execute(_PAIRS):
            yield FilePair(
                os.fsdecode(name), candidates, os.fsdecode(first or b""), os.fsdecode(last or b"")
            )

    def holds_image(self, name: str) -> bool:
        """Whether an image of this relative POSIX path is listed."""
        if not _can_be_named(name):
            return False
        row = (os.fsencode(os.path.splitext(name)[0]), os.fsencode(name))
        query = "SELECT 1 FROM images WHERE stem = ? AND name = ?"
        return self._db.execute(query, row).fetchone() is not None

    def take_image(self, name: str) -> bool:
        """Take an image for an annotation file; False where another has taken it."""
        row = (os.fsencode(name),)
        return bool(self._db.execute("INSERT OR IGNORE INTO taken VALUES (?)", row).rowcount)

    def count_unannotated(self) -> int:
        """How many images have no annotation file of their stem, and are not taken by another."""
        query = (
            "SELECT count(*) FROM images WHERE stem NOT IN (SELECT stem FROM annotations) "
            "AND name NOT IN (SELECT name FROM taken)"
        )
        return int(self._db.execute(query).fetchone()[0])


def annotation_files(folder: Path) -> Iterator[Path]:
    """The annotation files below ``folder`` that a reader opens, in the order of relative paths.

    Memory does not grow with them.

    Raises:
        FormatError: a folder cannot be listed.
    """
    with scratch_database(TABLES) as db:
        _list(db, "annotations", folder, ANNOTATION_SUFFIXES)
        for (name,) in db.execute("SELECT name FROM annotations ORDER BY name"):
            path = folder / os.fsdecode(name)
            try:
                check_file(path, folder)
            except (Unusable, OSError):
                continue
            yield path


def check_file(path: Path, folder: Path) -> None:
    """Raise Unusable unless ``path`` is a regular file of ``folder``, and not too large.

    Raises:
        OSError: it cannot be looked at.
    """
    if path.is_symlink() and not _real(path).is_relative_to(_real(folder)):
        raise Unusable("unsafe path", f"is a symlink that leads out of {folder}: copy the file")
    if not path.is_file():
        raise Unusable("bad annotation", "is not a file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise Unusable("bad annotation", f"{size} bytes: expected at most {MAX_BYTES}")


def _can_be_named(name: str) -> bool:
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, without an error for a loop


def holds_images(folder: Path) -> bool:
    """Whether an image lies in the folder or below it."""
    return any(not is_hidden(name) for _, name in walk(folder, IMAGE_SUFFIXES))


def _list(db: sqlite3.Connection, table: str, folder: Location, suffixes: frozenset[str]) -> int:
    """Fill a table with the files of these suffixes; the number of hidden ones, left out."""
    found = _objects(folder, suffixes) if isinstance(folder, Url) else walk(folder, suffixes)
    hidden = 0

    def rows() -> Iterator[tuple[bytes, ...]]:
        nonlocal hidden
        for names in found:
            if is_hidden(names[1]):
                hidden += 1
            else:
                yield tuple(map(os.fsencode, names))

    db.executemany(f"INSERT INTO {table} (stem, name) VALUES (?, ?)", rows())
    return hidden


def is_hidden(name: str) -> bool:
    """Whether a file is the system's: macOS's ``._a.json`` beside ``a.json``, say."""
    return any(part.startswith(".") for part in name.split("/"))


def _objects(folder: Url, suffixes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """What :func:`walk` gives, of a folder on a store."""
    for found in store_of(folder).list(folder):
        stem, suffix = os.path.splitext(found.name)
        if suffix.lower() in suffixes:
            yield stem, found.name


def walk(folder: Path, suffixes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(stem, name) of each file of these suffixes, both relative to ``folder``, in any order."""
    pending = [""]
    while pending:
        inner = pending.pop()
        try:
            with os.scandir(folder / inner) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{inner}{entry.name}/")
                    elif suffix.lower() in suffixes and not os.path.isdir(entry.path):
                        yield inner + stem, inner + entry.name
        except OSError as error:
            raise FormatError(f"{folder / inner}: cannot list it: {error.strerror}") from error
