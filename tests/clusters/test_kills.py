"""Parts of a cluster die by kill -9 while it converts: what comes out is whole, and the same."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engines import Cluster

pytestmark = pytest.mark.cluster

TRIALS = int(os.environ.get("KPDATA_CLUSTER_TRIALS", "3"))
"""Of each kind."""

SEED = int(os.environ.get("KPDATA_CLUSTER_SEED", "0"))
SHARDS = 24
LATEST = SHARDS - 8
"""As many shards may be whole at most when the moment comes, so that work is left to lose."""

KINDS = [
    ("dask", "worker"),
    ("flink", "worker"),
    ("flink", "SDK worker"),
    ("spark", "worker"),
    ("spark", "SDK worker"),
]


class Wrong(NamedTuple):
    """Records that should be there and are not, are there too often, or should not be there."""

    lost: int
    duplicated: int
    foreign: int


@pytest.mark.parametrize("trial", range(TRIALS))
@pytest.mark.parametrize(("cluster", "victim"), KINDS, indirect=["cluster"], scope="session")
def test_a_kill_costs_no_record(
    cluster: Cluster,
    victim: str,
    trial: int,
    alone: Any,
    start: Callable[..., Any],
    convert: Callable[..., Any],
    look_at: Callable[..., Any],
    note: Callable[[str], None],
    tmp_path: Path,
) -> None:
    draw = random.Random(f"{SEED} {cluster.runner} {victim} {trial}")
    cluster.mend()
    options = ("--runner", cluster.runner, "--", *cluster.options)
    out = tmp_path / "out"
    with start(out, *options) as running:
        running.wait_for_shards(draw.randint(1, LATEST))
        time.sleep(draw.uniform(0, 0.3))
        whole, killed = running.shards, kill(cluster, victim, draw)
        assert running.process.poll() is None, "it was over before its worker died"
        code, printed, err = running.end()
    if code == 0:
        outcome = "the job recovered"
        found = look_at(out, json.loads(printed)["root_hash"])
    else:
        outcome = "the job failed, a rerun made it good"
        assert err.startswith("kpdata: ")
        assert len(err.splitlines()) == 1
        found = convert(out, *options)
    wrong = compare(found.records, alone.records)
    note(
        f"{cluster.runner}, kill -9 of {killed} when {whole} of {SHARDS} shards were whole "
        f"(trial {trial + 1} of {TRIALS}, seed {SEED}): {outcome}; root hash "
        f"{found.root_hash[:12]}; {wrong.lost} lost, {wrong.duplicated} duplicated, "
        f"{wrong.foreign} wrong of {alone.records.total()} records"
    )
    assert wrong == Wrong(0, 0, 0)
    assert found.root_hash == alone.root_hash


def kill(cluster: Cluster, victim: str, draw: random.Random) -> str:
    """Kill -9 one of the victims that are there; its name."""
    if victim == "SDK worker":
        there = cluster.sdk_workers()
        assert there, "no SDK worker is left to be killed"
        process = draw.choice(there)
        process.kill()
        return f"SDK worker {process.pid}"
    part = draw.choice(list(cluster.workers.values()))
    part.kill()
    return part.name


def compare(found: Counter[bytes], wanted: Counter[bytes]) -> Wrong:
    """How ``found`` differs from ``wanted``."""
    more = found - wanted
    foreign = sum(count for record, count in more.items() if record not in wanted)
    return Wrong((wanted - found).total(), more.total() - foreign, foreign)
