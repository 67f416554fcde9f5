"""The same ``kpdata convert`` on every engine: one root hash, and an end when it is asked for."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import Cluster

pytestmark = pytest.mark.cluster
on_every_cluster = pytest.mark.parametrize(
    "cluster", ["dask", "flink", "spark"], indirect=True, scope="session"
)
SECONDS_TO_CANCEL = 8
MORE = ("--augment", "200")
"""Work for longer than that."""


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_gives_the_same_root_hash(
    workers: int, alone: Any, convert: Callable[..., Any], tmp_path: Path
) -> None:
    assert convert(tmp_path / "out", "--workers", str(workers)) == alone


@on_every_cluster
def test_a_cluster_gives_the_same_root_hash(
    cluster: Cluster,
    alone: Any,
    convert: Callable[..., Any],
    note: Callable[[str], None],
    tmp_path: Path,
) -> None:
    found = convert(tmp_path / "out", "--runner", cluster.runner, "--", *cluster.options)
    assert found == alone
    note(f"{cluster.runner}: root hash {found.root_hash}, {found.records.total()} records")


@on_every_cluster
def test_ctrl_c_ends_the_job_on_the_cluster_too(
    cluster: Cluster, start: Callable[..., Any], note: Callable[[str], None], tmp_path: Path
) -> None:
    cluster.mend()
    options = (*MORE, "--runner", cluster.runner, "--", *cluster.options)
    with start(tmp_path / "out", *options) as running:
        running.wait_for_shards(1)
        running.process.send_signal(signal.SIGINT)
        code, _, err = running.end()
        assert code == 130
        assert err.strip() == (
            "kpdata: interrupted. Run the same command again to go on where it stopped."
        )
        time.sleep(SECONDS_TO_CANCEL)
        then, wrote = running.shards, written(running.out)
        time.sleep(SECONDS_TO_CANCEL / 2)
        assert running.shards == then < 24
        assert written(running.out) == wrote
    note(f"{cluster.runner}, Ctrl-C: {then} of 24 shards were whole, and no work went on")


def written(out: Path) -> int:
    """Bytes of shards, whole and half."""
    return sum(path.stat().st_size for path in out.rglob("*.tfrecord*"))
