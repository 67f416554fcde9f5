"""Convert annotations into shards: plan, write, seal.

>>> from kpdata.pipelines import Conversion, Request, WriteShards, convert
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpdata.pipelines.conversion import Conversion, convert
    from kpdata.pipelines.request import Request
    from kpdata.pipelines.run.beam_job import WriteShards

__all__ = ["Conversion", "Request", "WriteShards", "convert"]

_HOMES = {
    "Conversion": "kpdata.pipelines.conversion",
    "Request": "kpdata.pipelines.request",
    "WriteShards": "kpdata.pipelines.run.beam_job",
    "convert": "kpdata.pipelines.conversion",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: only WriteShards needs Beam, which is slow to import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
