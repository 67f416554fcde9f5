"""Open files that may not be what they should be: only regular ones, and no more than expected."""

import errno
import io
import os
import stat
from pathlib import Path

from kpdata.core.errors import FormatError

SMALL = 16 << 20
"""The most bytes that a file written by hand has."""


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a file for reading, and never wait for it.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device, a socket or a file of /proc, which may
            never end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode) or (status.st_size == 0 and _holds_more(handle)):
            raise OSError(errno.EINVAL, "it is a pipe or a device: save it to a file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _holds_more(handle: int) -> bool:
    """Whether an open file without a size holds bytes all the same, as those of /proc do."""
    try:
        return os.read(handle, 1) != b""
    except BlockingIOError:
        return True


def read_bounded(path: str | Path, most: int = SMALL) -> bytes:
    """The bytes of a regular file.

    Raises:
        FormatError: there are more than ``most``; no more than that is read.
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FormatError(f"larger than {most:,} bytes: this is another file")
    return data
