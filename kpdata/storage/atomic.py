"""Write files and folders atomically: complete, or not at all."""

import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from kpdata.core.errors import DatasetError, shortage


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file that appears only once it is complete and, if ``durable``, synced to disk."""
    with whole_file(path, ".tmp", durable) as temporary:
        temporary.write_bytes(data)


def temporary_beside(path: Path, suffix: str = ".tmp") -> Path:
    """A unique new path in the same folder, to be renamed to ``path`` when it is complete."""
    start = path.name[:40]  # a name of 255 bytes leaves no room for more
    return path.with_name(f".{start}.{uuid.uuid4().hex}{suffix}")


@contextmanager
def whole_file(
    path: Path, suffix: str | None = None, durable: bool = True, follow: bool = True
) -> Iterator[Path]:
    """A temporary path to write to; renamed to ``path`` when the block ends without an error.

    Args:
        path: in a folder that exists; a file of that name is replaced.
        suffix: of the temporary path, for libraries that choose a format by it; None takes that of
            ``path``.
        durable: whether to sync the file to disk before renaming it.
        follow: of a symlink, whether the file that it names is replaced, or the link itself.

    What is not a regular file, such as a pipe or /dev/null, is written to and never replaced.
    """
    if follow and path.is_symlink():
        path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_symlink():
        with tempfile.TemporaryDirectory(prefix="kpdata-") as folder:
            elsewhere = Path(folder) / f"file{path.suffix if suffix is None else suffix}"
            yield elsewhere
            with open(elsewhere, "rb") as written, open(path, "wb") as file:
                shutil.copyfileobj(written, file)
        return
    temporary = temporary_beside(path, path.suffix if suffix is None else suffix)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder to write files into; they move to ``folder`` when the block ends.

    Older files of these names are replaced, and other files stay. On an error nothing is moved.

    Args:
        folder: made if it is missing.
        names: of the files, in the order in which they are moved. If the last one is there, so are
            all others.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        folder.mkdir(exist_ok=True)
        for name in reversed(names):
            (folder / name).unlink(missing_ok=True)
        for name in names:
            if (temporary / name).exists():
                os.replace(temporary / name, folder / name)
    finally:
        shutil.rmtree(temporary)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to fill; renamed to ``out`` when the block ends without an error.

    Raises:
        DatasetError: ``out`` is a file or not empty, or cannot be written.
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
    """Remove temporary folders for ``out`` that killed processes left."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        pid = left.name.removeprefix(f".{out.name}.").removesuffix(".partial")
        if pid.isdecimal() and int(pid) not in set(psutil.pids()) - {os.getpid()}:
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def as_write_error(target: object) -> Iterator[None]:
    """Turn an OSError in the block into a DatasetError: ``target`` cannot be written."""
    try:
        yield
    except OSError as error:
        why = shortage(error) or f"{error.strerror or error}: choose another place"
        raise DatasetError(f"{target}: cannot be written: {why}") from error
