"""What the pipeline's tests share: one conversion in one call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpdata import formats
from kpdata.core.progress import Progress
from kpdata.core.splits import parse_splits
from kpdata.pipelines.convert import Outcome, convert
from kpdata.pipelines.job import Job
from kpdata.pipelines.request import Request
from kpdata.pipelines.sharding import Sharding

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
    split: str = "80/10/10",
    val: float = 0,
    seed: int = 0,
    shards: int | None = None,
    shard_size: int = 128_000_000,
    group: str | None = None,
    group_near_duplicates: int | None = None,
    max_bad: float = 1.0,
    workers: int = 1,
    progress: Progress | None = None,
    **job: Any,
) -> Outcome:
    source = formats.read(format, annotations, images=images)
    root = str(source.images_root) if source.images_root else None
    request = Request(
        format,
        Job(source.skeleton, images_root=root, seed=seed, **job),
        parse_splits(split, val, seed),
        Sharding(shard_size, shards),
        group=group,
        group_near_duplicates=group_near_duplicates,
        max_bad=max_bad,
        workers=workers,
    )
    return convert(source, request, out, progress or Progress())
