"""Image files on disk: names that cannot leave their folder, and limits before anything is read."""

import os
import stat
from functools import lru_cache

from kpdata.errors import ImageError

MAX_BYTES = 256 << 20


def safe_path(root: str, name: str) -> str:
    """The real path of ``name`` below ``root``.

    Raises:
        ImageError: ``unsafe path``: absolute, through ``..``, or through a symlink that leaves.
    """
    if os.path.isabs(name) or "\0" in name or ".." in name.replace("\\", "/").split("/"):
        raise ImageError("unsafe path", f"{name!r} leads out of the images folder {root}")
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


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def file_size(path: str, max_bytes: int = MAX_BYTES) -> int:
    """Size of an image file in bytes.

    Raises:
        ImageError: there is no regular file, it is empty, or it exceeds ``max_bytes``.
    """
    try:
        return _checked_size(path, os.stat(path), max_bytes)
    except OSError as error:
        raise ImageError("image missing", f"{path}: {error.strerror}") from error


def read_file(path: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of an image file, under the same conditions as :func:`file_size`."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not hold the job up
        try:
            size = _checked_size(path, os.fstat(file), max_bytes)
            data = os.read(file, size)
        finally:
            os.close(file)
    except OSError as error:
        raise ImageError("image missing", f"{path}: {error.strerror}") from error
    if len(data) < size:
        raise ImageError("image cut short", f"{path} shrank while it was read")
    return data


def _checked_size(path: str, status: os.stat_result, max_bytes: int) -> int:
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("image missing", f"{path} is not a file")
    if size == 0:
        raise ImageError("image empty", f"{path} has no bytes")
    if size > max_bytes:
        raise ImageError(
            "image too large", f"{path} has {size:,} bytes, over the limit {max_bytes:,}"
        )
    return size
