"""Read image files: names may not leave their folder, and sizes are checked before reading."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from kpdata.core.errors import ImageError

MAX_BYTES = 256 << 20

_FILES_FAULT = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG,
     errno.EINVAL, errno.ENXIO)
)  # fmt: skip


def safe_path(root: str, name: str) -> str:
    """The real path of ``name`` below ``root``.

    Raises:
        ImageError: ``unsafe path``: absolute, through ``..``, or through a symlink that leaves.
    """
    refuse_unsafe(root, name)
    folder, base = os.path.split(os.path.join(root, name))
    path = os.path.join(_real_folder(folder), base)
    if os.path.islink(path):
        path = os.path.realpath(path)
    top = _real_folder(root)
    if os.path.commonpath([top, path]) != top:
        raise ImageError(
            "unsafe path", f"{name!r} is a symlink that leads out of the images folder {root}"
        )
    return path


def refuse_unsafe(root: str, name: str) -> None:
    """Raise ImageError if ``name`` is absolute, contains ``..`` or a NUL; looks at no file."""
    if os.path.isabs(name) or "\0" in name or ".." in name.replace("\\", "/").split("/"):
        raise ImageError("unsafe path", f"{name!r} leads out of the images folder {root}")


def local_name(root: str, name: str) -> str:
    """Make an image's name in annotations relative to ``root``; it may still be unsafe.

    An absolute path that lies in ``root`` becomes relative. ``\\`` of Windows becomes ``/`` if a
    file of that name exists, and none of the original name does.
    """
    if os.path.isabs(name):
        for top in (os.path.abspath(root), _real_folder(root)):
            if name.startswith(f"{top}/"):
                return name.removeprefix(f"{top}/")
    slashed = name.replace("\\", "/")
    if slashed == name or "\0" in name or ".." in slashed.split("/") or os.path.isabs(slashed):
        return name
    here = os.path.lexists(os.path.join(root, name))
    return slashed if not here and os.path.lexists(os.path.join(root, slashed)) else name


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


class Stamp(NamedTuple):
    """Tells whether an image has changed: its size, and its time of modification.

    Of an object on a store, ``mtime_ns`` is its version.
    """

    size: int
    mtime_ns: int


def stamp(path: str, max_bytes: int = MAX_BYTES) -> Stamp:
    """The stamp of an image file, which is not opened.

    Raises:
        ImageError: there is no regular file, it is empty, or it exceeds ``max_bytes``.
        OSError: the disk or the network failed, which is not the image's fault.
    """
    with _read_errors_explained(path):
        return _checked(path, os.stat(path), max_bytes)


def read_file(path: str, max_bytes: int = MAX_BYTES, expected: Stamp | None = None) -> bytes:
    """The bytes of an image file; raises as :func:`stamp` does.

    If ``expected`` is given and the file's stamp differs, or changes while it is read, the file is
    refused as ``image changed``.
    """
    return _read(path, max_bytes, lambda size: (0, size), expected)


def prefetch(path: str) -> None:
    """Ask the system to load a file into its cache, so that :func:`read_file` does not wait.

    On systems without this call, and for files that cannot be opened, nothing happens.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError):  # reading it will raise the same error
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def read_tail(path: str, count: int, max_bytes: int = MAX_BYTES) -> bytes:
    """The last ``count`` bytes of an image file; raises as :func:`stamp` does."""
    return _read(path, max_bytes, lambda size: (max(0, size - count), min(size, count)))


def _read(
    path: str,
    max_bytes: int,
    span: Callable[[int], tuple[int, int]],
    expected: Stamp | None = None,
) -> bytes:
    with _read_errors_explained(path):
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # or a named pipe would block
        try:
            start, count = span(_checked(path, os.fstat(file), max_bytes).size)
            data = os.pread(file, count, start)
            after = os.fstat(file)
        finally:
            os.close(file)
    if expected and (after.st_size, after.st_mtime_ns) != expected:
        raise ImageError(
            "image changed",
            f"{path} has changed since it was looked at: leave images alone until the job ends",
        )
    if len(data) < count:
        raise ImageError("image cut short", f"{path} shrank while it was read")
    return data


@contextlib.contextmanager
def _read_errors_explained(path: str) -> Iterator[None]:
    """Turn an OSError about this file into an ImageError; others, as of the disk, stay."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FILES_FAULT:
            raise OSError(error.errno, error.strerror, path) from error
        denied = error.errno in (errno.EACCES, errno.EPERM)
        reason = "image unreadable" if denied else "image missing"
        raise ImageError(reason, f"{path}: {error.strerror}") from error


def _checked(path: str, status: os.stat_result, max_bytes: int) -> Stamp:
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("image missing", f"{path} is not a file")
    check_bytes(path, size, max_bytes)
    return Stamp(size, status.st_mtime_ns)


def check_bytes(path: str, size: int, max_bytes: int) -> None:
    """Raise ImageError if ``size`` is 0 or over ``max_bytes``."""
    if size == 0:
        raise ImageError("image empty", f"{path} has no bytes")
    if size > max_bytes:
        raise ImageError(
            "image too large", f"{path} has {size:,} bytes, over the limit {max_bytes:,}"
        )
