"""Read YAML files of strangers: nothing in them is executed, and none takes long."""

import math
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kpdata.core.errors import FormatError
from kpdata.storage.bounded import read_bounded

_MAX_BYTES = 1 << 20
_MAX_VALUES = 100_000
_LONGEST_INT = 40
"""Characters. Python converts longer ones slowly, and does not print the longest."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Builds plain values alone; dates stay text, as nothing that we read holds any."""

    def __init__(self, stream: bytes):
        super().__init__(stream)
        self._values = 0

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise yaml.YAMLError(f"more than {_MAX_VALUES:,} values")
        return super().construct_object(node, deep)

    def bounded_int(self, node: yaml.ScalarNode) -> float:
        """An integer, or infinity where it is longer than a person would write."""
        return math.inf if len(node.value) > _LONGEST_INT else int(self.construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.bounded_int)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


def read_yaml(path: Path, expected: str, kind: Any = Any) -> Any:
    """The content of a YAML file.

    Args:
        path: the file.
        expected: what the file should be, for a message.
        kind: the type to decode as.

    Raises:
        OSError: it cannot be read.
        FormatError: it is larger than 1 MiB, holds more than 100,000 values, is not YAML, or not of
            that type.
    """
    data = read_bounded(path, _MAX_BYTES)
    try:
        value = yaml.load(data, _Loader)
        return value if kind is Any else msgspec.convert(value, kind)
    except _FAULTS as error:
        raise FormatError(f"not {expected}: {' '.join(str(error).split()):.300}") from error


_FAULTS = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError)
"""What a parser, or one of PyYAML's constructors, raises on a value such as ``!!bool maybe``."""
