"""Images that change between plan and write, or while the job writes, at random moments.

``KPDATA_FAULT_TRIALS`` trials (2) from the seed ``KPDATA_FAULT_SEED`` (0) on, as in test_faults.py;
the end of the output counts them.
"""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpdata.core.errors import JobError
from kpdata.pipelines.write import shard as write

FIRST_SEED = int(os.environ.get("KPDATA_FAULT_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("KPDATA_FAULT_TRIALS", "2")))
SHARDS, IMAGES = 8, 60
OPTIONS = {"shards": SHARDS, "augment": 1, "split": "60/20/20"}
NAMED = {"image changed", "image missing", "image empty"}

Convert = Callable[..., Any]
WRITE_SHARD = write.write_shard


def replaced(path: Path, draw: random.Random) -> None:
    """By another image's bytes, which makes a twin of it."""
    other = draw.choice(sorted(set(path.parent.glob("*.jpg")) - {path}))
    fresh = path.with_suffix(".new")
    fresh.write_bytes(other.read_bytes())
    fresh.replace(path)


def overwritten(path: Path, draw: random.Random) -> None:
    """In place, by as many other bytes that are a picture too."""
    path.write_bytes(path.read_bytes()[:-2] + draw.randbytes(2))


def cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def grown(path: Path, draw: random.Random) -> None:
    with open(path, "ab") as file:
        file.write(draw.randbytes(100))


def deleted(path: Path, draw: random.Random) -> None:
    path.unlink()


WAYS = (replaced, overwritten, cut, grown, deleted)


@pytest.fixture
def before_shard(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """``before_shard(n, act)``: the next conversion acts once, when n shards are written."""

    def arrange(count: int, act: Callable[[], None]) -> None:
        real, begun = WRITE_SHARD, []

        def write_one(*arguments: Any, **named: Any) -> Any:
            if len(begun) == count:
                act()
            begun.append(arguments)
            return real(*arguments, **named)

        monkeypatch.setattr(write, "write_shard", write_one)

    return arrange


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_trial_of_images_that_change_while_the_job_runs(
    make_coco: Callable[..., Path],
    convert_to: Convert,
    before_shard: Callable[[int, Callable[[], None]], None],
    fault_trial: Callable[..., None],
    tmp_path: Path,
    seed: int,
    way: Callable[[Path, random.Random], None],
) -> None:
    draw = random.Random(f"{seed} {way.__name__}")
    coco = make_coco(tmp_path / "source", IMAGES)
    whole = convert_to(tmp_path / "whole", coco, **OPTIONS)
    victims = draw.sample(sorted((coco.parent / "images").iterdir()), draw.randint(1, 3))
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in victims}
    shards = draw.randrange(SHARDS)

    def change() -> None:
        for path in victims:
            way(path, draw)

    out = tmp_path / "out"
    before_shard(shards, change)
    result = convert_to(out, coco, max_quarantine=100, **OPTIONS)
    refused = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in refused} <= NAMED
    missing = frozenset(line["key"] for line in refused)
    assert missing <= {str(int(path.stem)) for path in victims}
    assert missing or shards
    moment = (
        f"seed {seed}: {len(victims)} after {shards} of {SHARDS} shards, refused {len(refused)}"
    )
    fault_trial(f"image {way.__name__}", moment, out, tmp_path / "whole", missing)

    restore(kept)
    before_shard(shards, change)
    again = tmp_path / "again"
    if missing:
        with pytest.raises(JobError, match=r"quarantine|image (changed|missing|empty)"):
            convert_to(again, coco, **OPTIONS)
        assert not (again / "kpdata.json").exists()
        restore(kept)
        result = convert_to(again, coco, **OPTIONS)
    assert result.manifest.root_hash == whole.manifest.root_hash


def restore(kept: dict[Path, tuple[bytes, int]]) -> None:
    """Put images back as they were."""
    for path, (data, age) in kept.items():
        path.write_bytes(data)
        os.utime(path, ns=(age, age))


def test_a_source_shard_that_is_replaced_between_plan_and_write_is_refused(
    make_coco: Callable[..., Path],
    convert_to: Convert,
    before_shard: Callable[[int, Callable[[], None]], None],
    tmp_path: Path,
) -> None:
    """By one whose records begin at the same bytes, and hold other images under the same keys."""
    for seed in (0, 1):
        coco = make_coco(tmp_path / f"{seed}", 12, seed=seed)
        for path in (coco.parent / "images").iterdir():
            path.write_bytes(path.read_bytes().ljust(4000, b"0"))
        json_of_first = (tmp_path / "0/annotations.json").read_text()
        coco.write_text(json_of_first)
        convert_to(tmp_path / f"shards_{seed}", coco, split="train=100", shards=1)
    (mine, other) = (next((tmp_path / f"shards_{seed}").glob("*.tfrecord")) for seed in (0, 1))
    assert mine.stat().st_size == other.stat().st_size
    before_shard(0, lambda: mine.write_bytes(other.read_bytes()))
    with pytest.raises(JobError, match="image changed"):
        convert_to(tmp_path / "out", tmp_path / "shards_0", format="shards", split="train=100")
