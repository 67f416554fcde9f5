"""Files that people write by hand: a skeleton's JSON, an augmentation's TOML."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from kpdata.core.augment import AugmentConfig
from kpdata.core.errors import FormatError, SchemaError, located
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import BUILT_IN
from kpdata.storage.bounded import read_bounded


def load_skeleton(path: str | Path) -> Skeleton:
    """Read a skeleton's JSON file, whose keys are those of :class:`Skeleton`.

    Raises:
        FormatError: the file cannot be read or is not JSON.
        SchemaError: a key or a name is wrong; the message says which.
    """
    with located(str(path)):
        try:
            data = read_bounded(Path(path))
        except OSError as error:
            raise FormatError(f"cannot read the skeleton: {error.strerror}") from error
        try:
            return msgspec.json.decode(data, type=Skeleton)
        except msgspec.ValidationError as error:
            known = ", ".join(Skeleton.__struct_fields__)
            raise SchemaError(f"{error}; a skeleton's keys are {known}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"not a JSON file: {error}") from error


def get_skeleton(given: Skeleton | str | Path) -> Skeleton:
    """A skeleton as it is, a built-in one by name (any case), or one from a JSON file."""
    if isinstance(given, Skeleton):
        return given
    name = str(given)
    known = BUILT_IN.get(name.lower())
    if known is not None:
        return known
    if name.endswith(".json"):
        return load_skeleton(name)
    raise SchemaError(
        f"no skeleton {name!r}: give {', '.join(BUILT_IN)} or the path of a .json file"
    )


def load_config(path: str | Path) -> AugmentConfig:
    """Read an augmentation's TOML file: :mod:`kpdata.core.augment` shows all its keys.

    Raises:
        FormatError: the file cannot be read or is not TOML.
        SchemaError: a key is unknown, or its value has the wrong type or lies out of range.
    """
    with located(str(path)):
        try:
            data = tomllib.loads(read_bounded(Path(path)).decode())
        except OSError as error:
            raise FormatError(f"cannot read the augmentation: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise FormatError(f"not a TOML file: {error}") from error
        return _config_of(data)


def _config_of(data: dict[str, Any]) -> AugmentConfig:
    try:
        return msgspec.convert(data, AugmentConfig)
    except msgspec.ValidationError as error:
        known = ", ".join(AugmentConfig.__struct_fields__)
        raise SchemaError(f"{error}; an augmentation's keys are {known}") from error
