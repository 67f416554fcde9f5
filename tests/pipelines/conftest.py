"""What the pipeline's tests share: one conversion in one call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpdata import formats
from kpdata.core.progress import Progress
from kpdata.pipelines.conversion import Outcome, convert
from kpdata.pipelines.request import Request

Convert = Callable[..., Outcome]


@pytest.fixture(scope="session")
def convert_to() -> Convert:
    """``convert_to(out, annotations, **options) -> Outcome``, in this process unless told."""
    return _convert_to


def _convert_to(
    out: Path,
    annotations: Path,
    *,
    format: str = "coco",  # noqa: A002 - the request's own name for it
    images: Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Outcome:
    source = formats.read(format, annotations, images=images)
    root = str(source.images_root) if source.images_root else None
    settings = {"skeleton": source.skeleton, "images_root": root, "workers": 1, **options}
    return convert(source, Request(format=format, **settings), out, progress or Progress())
