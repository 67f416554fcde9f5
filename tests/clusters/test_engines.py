"""The same ``kpdata convert`` on every engine: one root hash."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import Cluster

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_gives_the_same_root_hash(
    workers: int, embedded: Any, convert: Callable[..., Any], tmp_path: Path
) -> None:
    assert convert(tmp_path / "out", "--workers", str(workers)) == embedded


@pytest.mark.parametrize("cluster", ["dask", "flink", "spark"], indirect=True, scope="session")
def test_a_cluster_gives_the_same_root_hash(
    cluster: Cluster,
    embedded: Any,
    convert: Callable[..., Any],
    note: Callable[[str], None],
    tmp_path: Path,
) -> None:
    found = convert(tmp_path / "out", "--runner", cluster.runner, "--", *cluster.options)
    assert found == embedded
    note(f"{cluster.runner}: root hash {found.root_hash}, {found.records.total()} records")
