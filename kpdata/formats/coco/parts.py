"""A COCO folder in the making: a JSON file per split, and numbers that are given out once."""

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from kpdata.storage.scratch import scratch_database


class SplitFile:
    """One JSON file, whose two arrays grow side by side before they are joined."""

    def __init__(self, path: Path, stack: ExitStack):
        self._path = path
        self._parts: dict[str, BinaryIO] = {}
        for name in ("images", "annotations"):
            self._parts[name] = path.with_name(f"{path.name}.{name}").open("wb")
            stack.callback(_abandon, self._parts[name])

    def add(self, image: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
        """Append an image and its annotations."""
        self._append("images", image)
        for annotation in annotations:
            self._append("annotations", annotation)

    def finish(self, categories: list[dict[str, Any]]) -> None:
        """Write the file: nothing can be added any more."""
        info = {"description": "keypoints written by kpdata", "version": "1.0"}
        with self._path.open("wb") as file:
            file.write(b'{"info": %b' % msgspec.json.encode(info))
            file.write(b', "licenses": [], "categories": %b' % msgspec.json.encode(categories))
            for name, part in self._parts.items():
                part.close()
                file.write(b',\n"%b": [\n' % name.encode())
                with open(part.name, "rb") as written:
                    shutil.copyfileobj(written, file)
                os.unlink(part.name)
                file.write(b"\n]")
            file.write(b"}\n")

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        part = self._parts[name]
        part.write((b",\n" if part.tell() else b"") + msgspec.json.encode(entry))


def _abandon(file: BinaryIO) -> None:
    """Close a file that is finished, or thrown away: what a full disk says of it is known."""
    with suppress(OSError):
        file.close()


class Numbers:
    """Numbers given out once each, remembered on disk."""

    def __init__(self, stack: ExitStack):
        table = "CREATE TABLE taken (number INTEGER PRIMARY KEY)"
        self._db = stack.enter_context(scratch_database(table))
        self._last = 0

    def take(self, wanted: int | None) -> int:
        """``wanted``, or the next free number where it is None or taken."""
        number = wanted
        while number is None or not self._insert(number):
            number = self._last = self._last + 1
        return number

    def _insert(self, number: int) -> bool:
        added = self._db.execute("INSERT OR IGNORE INTO taken VALUES (?)", (number,)).rowcount
        return bool(added)
