"""YAML of strangers: small, and nothing in it is executed."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from kpdata.core.errors import FormatError
from kpdata.storage.bounded import read_bounded

_MAX_BYTES = 1 << 20
"""It is parsed slowly."""


def read_yaml(path: Path, expected: str, kind: Any = Any) -> Any:
    """What a YAML file holds.

    Args:
        path: the file.
        expected: what it should be, for a message.
        kind: the type of what is in it.

    Raises:
        OSError: it cannot be read.
        FormatError: it is larger than 1 MiB, not YAML, or of another type.
    """
    try:
        value = yaml.safe_load(read_bounded(path, _MAX_BYTES))
        return value if kind is Any else msgspec.convert(value, kind)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"not {expected}: {' '.join(str(error).split())}") from error
