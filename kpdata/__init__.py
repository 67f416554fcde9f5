"""Keypoint datasets: from annotations to leak-free TFRecord shards, and to trained models.

>>> import kpdata as kp
>>> labels = kp.read(annotations)
>>> ds = kp.convert(labels, out / "shards", crop=64, progress=False)
>>> ds["train"][0].pixels().shape, ds["train"].keypoints().shape
((64, 64, 3), (55, 17, 3))

Each name is imported when it is first used, so that ``import kpdata`` is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpdata.core.errors import KpdataError, KpdataWarning
    from kpdata.dataset import Dataset, Split
    from kpdata.door import (
        check,
        compare,
        convert,
        evaluate,
        export,
        open,
        predict,
        read,
        write,
    )
    from kpdata.labels import Labels
    from kpdata.train.api import Run, train
    from kpdata.view.picture import Picture

__version__ = "0.1.0"

_DOORS = {
    "kpdata.door": (
        "read", "open", "convert", "write", "check", "evaluate", "predict", "export", "compare",
    ),
    "kpdata.core.errors": ("KpdataError", "KpdataWarning"),
    "kpdata.labels": ("Labels",),
    "kpdata.dataset": ("Dataset", "Split"),
    "kpdata.train.api": ("Run",),
    "kpdata.view.picture": ("Picture",),
}  # fmt: skip

__all__ = [
    "Dataset", "KpdataError", "KpdataWarning", "Labels", "Picture", "Run", "Split", "check",
    "compare", "convert", "evaluate", "export", "open", "predict", "read", "train", "write",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "train":  # a package that can be called as a function
        return importlib.import_module("kpdata.train")
    for module, names in _DOORS.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'kpdata' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
