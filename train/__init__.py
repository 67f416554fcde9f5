"""Keras 3 trainer: models, losses, input, loop and evaluation of shards.

``kpdata.train(...)`` trains: this package and the front door's function share a name, and whoever
imports any part of the package puts it in the function's place. So the package can be called.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpdata.train.api import Run


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> "Run":
        """Train a model on shards; see :func:`kpdata.train.api.train`."""
        from kpdata.train.api import train

        return train(*args, **options)


sys.modules[__name__].__class__ = _Callable
