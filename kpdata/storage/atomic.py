"""Files and folders that are written whole or not at all."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kpdata.core.errors import DatasetError


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file so that it takes its name only when it is whole, and on disk if ``durable``."""
    with whole_file(path, durable) as temporary:
        temporary.write_bytes(data)


@contextmanager
def whole_file(path: Path, durable: bool = True, suffix: str = ".tmp") -> Iterator[Path]:
    """A new file's path beside ``path``, which takes that name when the block ends well.

    Args:
        path: the name to take; a file of that name is replaced.
        durable: whether its content is to be on disk before.
        suffix: of the new path, for libraries that choose a format by it.
    """
    temporary = temporary_beside(path, suffix)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path, suffix: str = ".tmp") -> Path:
    """A new name in the same folder, to be renamed to ``path`` once whole."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{suffix}")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name ``out`` when the block ends well.

    Raises:
        DatasetError: ``out`` is in use, or cannot be made.
    """
    if out.is_symlink():
        out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out}: already exists: give a new or empty folder")
    _sweep(out.absolute())
    folder = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.partial")
    try:
        with as_write_error(out):
            folder.mkdir(parents=True)
        yield folder
        with as_write_error(out):
            os.rename(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove what killed processes left of folders of this name."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        pid = left.name.removeprefix(f".{out.name}.").removesuffix(".partial")
        if pid.isdecimal() and int(pid) not in set(psutil.pids()) - {os.getpid()}:
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def as_write_error(target: object) -> Iterator[None]:
    """Turn an OSError inside the block into a DatasetError: ``target`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{target}: cannot be written: {error.strerror or error}: choose another place"
        ) from error
