"""A folder that appears whole or not at all."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kpdata.errors import DatasetError


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
        with blaming(out):
            folder.mkdir(parents=True)
        yield folder
        with blaming(out):
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
def blaming(out: Path) -> Iterator[None]:
    """Say of what goes wrong inside that ``out`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written: {error}") from error
