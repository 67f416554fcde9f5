"""Read small files, with a limit in case that a file is not small."""

from pathlib import Path

from kpdata.core.errors import FormatError

SMALL = 16 << 20
"""The most bytes of a file that people write by hand."""


def read_bounded(path: Path, most: int = SMALL) -> bytes:
    """The bytes of a file, a pipe or a device.

    Raises:
        FormatError: there are more than ``most``. At most that many, plus one, are read.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FormatError(f"larger than {most:,} bytes: this is another file")
    return data
