"""Whole conversions: the same bytes however they were made, what resumes, what is refused."""

import base64
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kpdata
from kpdata import formats
from kpdata.checks.verify import verify
from kpdata.core.errors import DatasetError, FormatError, JobError, SchemaError
from kpdata.core.progress import Progress
from kpdata.core.sample import Rejected, Sample
from kpdata.core.skeletons import COCO17
from kpdata.core.transform import apply_affine, invert
from kpdata.formats.coco import write as coco_writer
from kpdata.pipelines import conversion as convert_module
from kpdata.pipelines.conversion import Outcome
from kpdata.pipelines.output import local
from kpdata.pipelines.request import Request
from kpdata.pipelines.run import execution, worker_count
from kpdata.pipelines.write import shard as write
from kpdata.pipelines.write.render import Rendered
from kpdata.shards import manifest, tfrecord
from kpdata.shards.quarantine import digest
from kpdata.storage.files import file_blake3, file_sha256

Convert = Callable[..., Outcome]
MakeCoco = Callable[..., Path]


@pytest.fixture(scope="module")
def coco(make_coco: MakeCoco, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small images. Never write into their folder."""
    return make_coco(tmp_path_factory.mktemp("coco"), 40)


@pytest.fixture
def own_coco(make_coco: MakeCoco, tmp_path: Path) -> Path:
    """A hundred small images to spoil."""
    return make_coco(tmp_path / "source", 100)


class StopBeforeWriting(Progress):
    """Interrupts a conversion once it has planned."""

    def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
        if step == "writing":
            raise KeyboardInterrupt


class Count(Progress):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.step, self.references, self.to_write, self.samples, self.note = "", 0, 0, 0, ""
        self.warnings: list[str] = []

    def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
        self.step = step
        self.to_write = total or 0

    def advance(self, count: int = 1) -> None:
        self.references += count

    def reach(self, done: int, note: str = "") -> None:
        self.samples, self.note = done, note

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def contents(folder: Path) -> dict[str, str]:
    """File → hash, for everything in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``stopping(n)``: the next conversion is interrupted after n shards."""

    def stop_after(count: int) -> None:
        real = write.write_shard
        done: list[str] = []

        def write_one(place: local.Workspace, name: str, spare_cores: bool) -> Any:
            if len(done) == count:
                monkeypatch.setattr(write, "write_shard", real)
                signal.raise_signal(signal.SIGINT)
            done.append(name)
            return real(place, name, spare_cores)

        monkeypatch.setattr(write, "write_shard", write_one)

    return stop_after


# --- the same bytes everywhere --------------------------------------------------------------------

HEAVY = {"crop": 64, "augment": 2, "shards": 5, "seed": 1}


def test_any_number_of_workers_gives_the_same_folder(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = convert_to(tmp_path / "0", coco, **HEAVY)
    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0)
    for workers in (1, 2):
        outcome = convert_to(tmp_path / str(workers), coco, workers=workers, **HEAVY)
        assert outcome.manifest.root_hash == alone.manifest.root_hash
        assert contents(tmp_path / str(workers)) == contents(tmp_path / "0")
    assert alone.written_samples == 40


@pytest.mark.parametrize("options", [HEAVY, {"validate_images": "decode", "shards": 3}])
def test_decoding_ahead_gives_the_same_folder(
    own_coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    damaged = own_coco.parent / "images/000007.jpg"
    damaged.write_bytes(damaged.read_bytes()[:60] + b"\xff\xd9")
    real, threads = write.render, set()

    def render(*arguments: Any) -> Rendered:
        threads.add(threading.current_thread() is threading.main_thread())
        return real(*arguments)

    monkeypatch.setattr(write, "render", render)
    hashes = []
    for cores in (1, 2):
        monkeypatch.setattr(execution, "usable_cores", lambda cores=cores: cores)
        outcome = convert_to(tmp_path / str(cores), own_coco, max_quarantine=5, **options)
        hashes.append(outcome.manifest.root_hash)
    assert hashes[0] == hashes[1]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert threads == {True, False}
    assert outcome.manifest.quarantine


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="nothing can be pinned here")
def test_cores_that_the_process_may_not_use_do_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    assert execution.usable_cores() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert execution.usable_cores() == 1
        assert not execution.Execution(1).spare_cores
    finally:
        os.sched_setaffinity(0, allowed)


def test_the_worker_processes_are_really_used(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(place: local.Workspace, name: str, spare_cores: bool) -> None:
        raise AssertionError("written in the driver")

    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0)
    monkeypatch.setattr(write, "write_shard", here)
    convert_to(tmp_path / "out", coco, workers=2)
    with pytest.raises((JobError, AssertionError)):
        convert_to(tmp_path / "alone", coco, workers=1)


# A PNG of 2 × 2 pixels in red, green, blue and white.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP4z8DA8J+BkYHh////DAAe9gT9Ce00PgAA"
    "AABJRU5ErkJggg=="
)


def test_an_untouched_conversion_is_pinned_to_the_byte(convert_to: Convert, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    images = [{"id": n, "file_name": f"{n}.png", "width": 2, "height": 2} for n in range(1, 4)]
    for image in images:
        (tmp_path / "images" / str(image["file_name"])).write_bytes(PNG + bytes([int(image["id"])]))
    annotation = {
        "id": 7, "image_id": 2, "category_id": 1, "iscrowd": 0, "area": 1.5, "bbox": [0, 0, 1, 1.5],
        "keypoints": [0.5, 0, 2, 1, 0.25, 1], "num_keypoints": 2,
    }  # fmt: skip
    category = {"id": 1, "name": "stick", "keypoints": ["tip", "end"], "skeleton": [[1, 2]]}
    path = tmp_path / "annotations.json"
    path.write_text(
        json.dumps({"images": images, "annotations": [annotation], "categories": [category]})
    )
    outcome = convert_to(tmp_path / "out", path, split="train=100")
    (shard,) = outcome.manifest.splits["train"].shards
    assert (shard.records, shard.name) == (3, "train-00000-of-00001.tfrecord")
    assert file_sha256(tmp_path / "out" / shard.name) == (
        "c9d426cb4b302d1449063354d6d673f621fee4703cb125ca0fefe1808c9d65b5"
    )
    assert shard.blake3 == file_blake3(tmp_path / "out" / shard.name)


def test_another_seed_or_option_gives_another_root_hash(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"seed": 2}, {"crop": 32}, {"margin": 2.0}, {"augment": 1}, {"shards": 4},
        {"jpeg_quality": 50}, {"split": "70/20/10"}, {"crop_from": "image"},
    ]  # fmt: skip
    roots = [
        convert_to(tmp_path / str(n), coco, **HEAVY | change).manifest.root_hash
        for n, change in enumerate(changes)
    ]
    assert len(set(roots)) == len(changes)


def test_a_size_of_shards_has_no_say_where_their_number_is_given(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    given = convert_to(tmp_path / "given", coco, shards=4, shard_size=1000)
    usual = convert_to(tmp_path / "usual", coco, shards=4)
    assert given.manifest.root_hash == usual.manifest.root_hash
    assert usual.manifest.options["sharding"] == {"count": 4}
    by_size = convert_to(tmp_path / "by size", coco).manifest
    assert by_size.options["sharding"] == {"bytes_per_shard": 128_000_000, "count": None}


def test_a_finished_folder_holds_the_dataset_and_nothing_else(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "out", coco, shards=5)
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".tfrecord"}
    assert names == {"kpdata.json", "dataset_info.json", "features.json", "quarantine.jsonl"}
    _, faults = verify(tmp_path / "out")
    assert faults == []


def test_the_manifest_counts_what_the_records_hold(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    found = convert_to(tmp_path / "out", coco, crop=48, augment=2, shards=5).manifest
    source = json.loads(coco.read_text())
    assert sum(split.samples for split in found.splits.values()) == 40
    assert sum(split.instances for split in found.splits.values()) == len(source["annotations"])
    train = found.splits["train"]
    assert train.copies == 2 * train.instances
    assert train.records == 3 * train.instances
    assert all(split.copies == 0 for name, split in found.splits.items() if name != "train")
    assert found.sizes == {
        "min_width": 48, "max_width": 48, "min_height": 48, "max_height": 48
    }  # fmt: skip
    labelled = sum(row[1] + row[2] for split in found.splits.values() for row in split.visibility)
    lost = found.counts.get("keypoints outside a crop, set to v = 0", 0)
    assert labelled == sum(a["num_keypoints"] for a in source["annotations"]) - lost
    assert found.skeleton == COCO17
    assert found.source.files == {"annotations.json": file_sha256(coco)}


def test_no_source_lies_in_two_splits_and_copies_lie_in_train_only(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "out", coco, split="50/25/25", **HEAVY)
    dataset = kpdata.open(tmp_path / "out")
    keys = {split: {sample.key for sample in dataset[split]} for split in dataset.splits}
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == 40
    copies = {
        split: sum(bool(sample.view and sample.view.copy) for sample in dataset[split])
        for split in dataset.splits
    }
    assert copies["train"] > 0
    assert copies["val"] == copies["test"] == 0


def test_records_lead_back_to_the_annotations(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "out", coco, split="train=100", crop=64)
    source = {a["id"]: a for a in json.loads(coco.read_text())["annotations"]}
    for sample in kpdata.open(tmp_path / "out")["train"]:
        (found,) = sample.instances
        expected = np.array(source.pop(found.id)["keypoints"]).reshape(-1, 3)
        assert sample.view is not None
        back = apply_affine(invert(sample.view.transform), found.xy)
        kept = found.visibility > 0
        assert np.abs(back - expected[:, :2] - 0.5)[kept].max() < 1e-3
        assert (found.visibility[kept] == expected[kept, 2]).all()
    assert not source


def test_shards_are_a_source_too_and_keep_their_splits_and_bytes(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "first", coco, augment=1, split="50/25/25")
    again = convert_to(tmp_path / "again", tmp_path / "first", format="shards", split="official")
    first, second = kpdata.open(tmp_path / "first"), kpdata.open(tmp_path / "again")
    for split in first.splits:
        originals = {s.key: s.image.data for s in first[split] if s.view and not s.view.copy}
        assert {s.key: s.image.data for s in second[split]} == originals
    assert (
        again.manifest.counts["augmented copies left behind"]
        == first.manifest.splits["train"].copies
    )
    crops = convert_to(tmp_path / "crops", tmp_path / "first", format="shards", crop=32)
    assert sum(split.samples for split in crops.manifest.splits.values()) == 40
    assert verify(tmp_path / "crops")[1] == []


def test_progress_hears_it_all(coco: Path, convert_to: Convert, tmp_path: Path) -> None:
    heard = Count()
    outcome = convert_to(
        tmp_path / "out", coco, split="train=99,val=1", group="^(.)", progress=heard
    )
    size = sum(shard.bytes for shard in outcome.manifest.splits["train"].shards)
    assert (heard.references, heard.to_write, heard.samples) == (40, 40, 40)
    assert heard.note == f"{size / 1e6:,.0f} MB"
    assert heard.warnings == list(outcome.warnings)
    assert "split val is empty" in heard.warnings[0]


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [1, 3])
def test_an_interrupted_conversion_goes_on_where_it_stopped(
    coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    stopping: Callable[[int], None],
    done: int,
) -> None:
    whole = convert_to(tmp_path / "whole", coco, **HEAVY)
    out = tmp_path / "out"
    stopping(done)
    with pytest.raises(KeyboardInterrupt):
        convert_to(out, coco, **HEAVY)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tfrecord")}
    assert len(kept) == done
    assert not (out / "kpdata.json").exists()
    resumed = convert_to(out, coco, **HEAVY)
    assert resumed.manifest.root_hash == whole.manifest.root_hash
    assert contents(out) == contents(tmp_path / "whole")
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert 0 < resumed.written_samples < 40
    assert resumed.written_samples + resumed.kept_samples == 40
    written = [path for path in out.glob("*.tfrecord") if path.name not in kept]
    assert resumed.written_bytes == sum(path.stat().st_size for path in written)


@pytest.fixture
def convert_unsealed(convert_to: Convert, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``convert_to``, killed when every shard is written, but the manifest is not."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def convert_partly(out: Path, annotations: Path, **options: Any) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(convert_module, "seal", killed)
            with pytest.raises(KeyboardInterrupt):
                convert_to(out, annotations, **options)

    return convert_partly


@pytest.fixture
def unfinished(coco: Path, convert_unsealed: Callable[..., None], tmp_path: Path) -> Path:
    """A folder in which every shard is written, but the manifest is not."""
    convert_unsealed(tmp_path / "out", coco, **HEAVY)
    return tmp_path / "out"


def train_shards(out: Path) -> list[Path]:
    """The train split's files, of which HEAVY makes three."""
    found = sorted(out.glob("train-*.tfrecord"))
    assert len(found) == 3
    return found


def inodes(out: Path) -> dict[str, int]:
    """Shard → its inode, which changes when it is written again."""
    return {path.name: path.stat().st_ino for path in out.glob("*.tfrecord")}


def report_of(shard: Path) -> Path:
    return local.Workspace(shard.parent).report_path(shard.name)


@pytest.mark.parametrize(
    ("spoil", "rewritten"),
    [
        pytest.param(lambda out: None, 0, id="nothing lost"),
        pytest.param(lambda out: train_shards(out)[0].unlink(), 1, id="a shard lost"),
        pytest.param(
            lambda out: [path.unlink() for path in train_shards(out)[::2]], 2, id="two shards lost"
        ),
        pytest.param(lambda out: report_of(train_shards(out)[0]).unlink(), 1, id="a report lost"),
        pytest.param(
            lambda out: report_of(train_shards(out)[0]).write_bytes(b""),
            1,
            id="a report emptied by a crash",
        ),
        pytest.param(
            lambda out: os.truncate(path := train_shards(out)[2], path.stat().st_size - 9),
            1,
            id="a shard cut",
        ),
        pytest.param(
            lambda out: (out / f".{train_shards(out)[0].name}.abc.tmp").write_bytes(b"half"),
            0,
            id="a half file",
        ),
    ],
)
def test_only_what_is_missing_is_written_again(
    unfinished: Path,
    coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    rewritten: int,
) -> None:
    spoil(unfinished)
    before = inodes(unfinished)
    outcome = convert_to(unfinished, coco, **HEAVY)
    after = inodes(unfinished)
    assert sum(before.get(name) != inode for name, inode in after.items()) == rewritten
    assert (outcome.written_samples > 0) == (rewritten > 0)
    assert (
        outcome.manifest.root_hash == convert_to(tmp_path / "w", coco, **HEAVY).manifest.root_hash
    )
    assert contents(unfinished) == contents(tmp_path / "w")


@pytest.mark.parametrize("change", ["option", "annotations"])
def test_the_unfinished_work_of_another_command_is_not_thrown_away(
    unfinished: Path, coco: Path, convert_to: Convert, tmp_path: Path, change: str
) -> None:
    before = inodes(unfinished)
    elsewhere = Path(shutil.copytree(coco.parent, tmp_path / "elsewhere"))
    options = HEAVY | ({"jpeg_quality": 60} if change == "option" else {})
    if change == "annotations":
        (elsewhere / coco.name).rename(elsewhere / "other.json")
    says = r"unfinished conversion of other annotations or options: run that command again"
    with pytest.raises(DatasetError, match=says):
        convert_to(unfinished, next(elsewhere.glob("*.json")), **options)
    assert inodes(unfinished) == before
    (elsewhere / coco.name).write_bytes(coco.read_bytes())
    assert convert_to(unfinished, elsewhere / coco.name, **HEAVY).manifest
    assert not (unfinished / ".kpdata").exists()


def test_work_goes_on_with_annotations_that_were_mended(
    own_coco: Path, convert_unsealed: Callable[..., None], convert_to: Convert, tmp_path: Path
) -> None:
    convert_unsealed(tmp_path / "out", own_coco, **HEAVY)
    before = inodes(tmp_path / "out")
    content = json.loads(own_coco.read_text())
    content["annotations"][0]["area"] += 1
    own_coco.write_text(json.dumps(content))
    outcome = convert_to(tmp_path / "out", own_coco, **HEAVY)
    after = inodes(tmp_path / "out")
    assert sum(before[name] != inode for name, inode in after.items()) == 1
    fresh = convert_to(tmp_path / "fresh", own_coco, **HEAVY)
    assert outcome.manifest.root_hash == fresh.manifest.root_hash


def test_what_left_no_shard_bars_nobody(coco: Path, convert_to: Convert, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert_to(tmp_path / "out", coco, progress=StopBeforeWriting())
    (tmp_path / "out/.kpdata").mkdir(parents=True)
    (tmp_path / "out/.kpdata/fingerprint.json").write_text("something else")
    assert convert_to(tmp_path / "out", coco, seed=1).written_samples == 40


def forget_what_was_asked(unfinished: Path) -> None:
    """As when a worker of that conversion outlives its folder's removal."""
    (unfinished / ".kpdata/fingerprint.json").unlink()


def test_a_changed_option_reuses_no_shard_of_an_unfinished_folder(
    unfinished: Path, coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    options = HEAVY | {"jpeg_quality": 60}
    forget_what_was_asked(unfinished)
    outcome = convert_to(unfinished, coco, **options)
    assert outcome.written_samples == 40
    convert_to(tmp_path / "clean", coco, **options)
    assert contents(unfinished) == contents(tmp_path / "clean")


def test_shards_of_an_abandoned_layout_are_swept(
    unfinished: Path, coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    options = HEAVY | {"shards": 3}
    forget_what_was_asked(unfinished)
    convert_to(unfinished, coco, **options)
    convert_to(tmp_path / "clean", coco, **options)
    assert contents(unfinished) == contents(tmp_path / "clean")


def test_a_shard_says_which_plan_it_was_made_from_though_the_plan_changes_meanwhile(
    unfinished: Path, coco: Path, convert_to: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a killed driver's worker goes on beside a new driver with other options."""
    place = local.Workspace(unfinished)
    shard = train_shards(unfinished)[0].name
    stale = place.plan_path(shard).read_bytes()
    real = tfrecord.Writer.write

    def replan(writer: tfrecord.Writer, *parts: bytes) -> None:
        real(writer, *parts)
        place.plan_path(shard).write_bytes(stale + b"another plan")

    monkeypatch.setattr(tfrecord.Writer, "write", replan)
    before = file_blake3(place.plan_path(shard))
    place.prepare([shard])
    report = write.write_shard(place, shard, spare_cores=False)
    assert report.plan_blake3 == before


def test_a_runner_that_asks_for_a_shard_again_gets_the_one_that_is_there(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = local.Workspace(unfinished)
    shard = train_shards(unfinished)[0]
    kept, report = inodes(unfinished), report_of(shard).read_bytes()
    write.write_shard(place, shard.name, spare_cores=False)
    assert inodes(unfinished) == kept
    assert report_of(shard).read_bytes() == report
    place.prepare([shard.name])
    assert not report_of(shard).exists()
    write.write_shard(place, shard.name, spare_cores=False)
    assert inodes(unfinished)[shard.name] != kept[shard.name]
    assert report_of(shard).read_bytes() == report
    shard.unlink()
    write.write_shard(place, shard.name, spare_cores=False)
    assert shard.exists()


def test_an_image_changed_meanwhile_is_read_again_though_its_size_is_the_same(
    own_coco: Path, convert_to: Convert, convert_unsealed: Callable[..., None], tmp_path: Path
) -> None:
    options = {"shards": 20, "split": "train=100"}
    old, new = (own_coco.parent / f"images/00000{number}.jpg" for number in (1, 2))
    size = max(old.stat().st_size, new.stat().st_size)
    old.write_bytes(old.read_bytes().ljust(size + 1, b"1"))
    convert_unsealed(tmp_path / "out", own_coco, **options)
    kept, age = inodes(tmp_path / "out"), old.stat().st_mtime_ns
    old.write_bytes(new.read_bytes().ljust(size + 1, b"2"))
    os.utime(old, ns=(age + 1, age + 1))
    outcome = convert_to(tmp_path / "out", own_coco, **options)
    assert outcome.written_samples == 100 / 20
    after = inodes(tmp_path / "out")
    assert sum(after[name] != inode for name, inode in kept.items()) == 1
    clean = convert_to(tmp_path / "clean", own_coco, **options)
    assert outcome.manifest.root_hash == clean.manifest.root_hash


def test_other_versions_reuse_no_shard_of_an_unfinished_folder(
    unfinished: Path, coco: Path, convert_to: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = manifest.software() | {"opencv": "99.0"}
    monkeypatch.setattr("kpdata.pipelines.plan.make.software", lambda: newer)
    monkeypatch.setattr("kpdata.pipelines.write.shard.software", lambda: newer)
    assert convert_to(unfinished, coco, **HEAVY).written_samples == 40


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_with_other_versions_than_the_driver_writes_nothing(
    coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    newer = manifest.software() | {"opencv": "99.0"}
    monkeypatch.setattr("kpdata.pipelines.plan.make.software", lambda: newer)
    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0)
    here = manifest.software()["opencv"]
    says = rf"worker on .*: opencv is {here}, but 99\.0 on .*install the same on every"
    with pytest.raises(JobError, match=says):
        convert_to(tmp_path / "out", coco, workers=workers)
    assert not list((tmp_path / "out").glob("*.tfrecord"))


def test_a_report_that_does_not_fit_is_not_said_to_be_missing(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a worker's kpdata writes reports that the driver's cannot read."""

    def write_unreadable(place: local.Workspace, name: str, spare_cores: bool) -> None:
        place.report_path(name).write_text("{}")

    def write_nothing(place: local.Workspace, name: str, spare_cores: bool) -> None:
        pass

    for write_one, says in (
        (write_unreadable, r"the report of t.* does not fit its plan and its shard"),
        (write_nothing, r"(\d) of \1 shards were not written"),
    ):
        monkeypatch.setattr(write, "write_shard", write_one)
        with pytest.raises(JobError, match=says):
            convert_to(tmp_path / says[:5], coco)


def test_a_report_does_not_outlive_the_shard_that_it_speaks_of(
    unfinished: Path,
    coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a second run replaces a shard, and is killed before it has written its report."""

    def killed(path: Path, data: bytes, durable: bool = True) -> None:
        signal.raise_signal(signal.SIGINT)

    content = json.loads(coco.read_text())
    for annotation in content["annotations"]:
        annotation["area"] += 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    forget_what_was_asked(unfinished)
    sizes = {path.name: path.stat().st_size for path in unfinished.glob("*.tfrecord")}
    kept = inodes(unfinished)
    with monkeypatch.context() as patched:
        patched.setattr("kpdata.pipelines.write.shard.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            convert_to(unfinished, other, images=coco.parent / "images", **HEAVY)
    replaced = {name for name, inode in inodes(unfinished).items() if inode != kept[name]}
    assert len(replaced) == 1
    assert sizes == {path.name: path.stat().st_size for path in unfinished.glob("*.tfrecord")}
    forget_what_was_asked(unfinished)
    outcome = convert_to(unfinished, coco, **HEAVY)
    convert_to(tmp_path / "clean", coco, **HEAVY)
    assert outcome.written_samples > 0
    assert contents(unfinished) == contents(tmp_path / "clean")


def test_a_finished_folder_is_left_as_it_is(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = convert_to(tmp_path / "out", coco, **HEAVY)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = convert_to(tmp_path / "out", coco, workers=2, max_quarantine=50, **HEAVY)
    assert again.unchanged
    assert not first.unchanged
    assert again.written_samples == 0
    assert again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_finished_dataset_is_known_where_nothing_can_be_written(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = convert_to(tmp_path / "out", coco, shards=3)
    real = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if path.is_relative_to(tmp_path / "out"):
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("/out"))
    again = convert_to(tmp_path / "out", coco, shards=3)
    assert again.unchanged
    assert again.manifest == first.manifest
    with pytest.raises(DatasetError, match="already holds another dataset"):
        convert_to(tmp_path / "out", coco, shards=4)


# --- what decides a split, whatever format a dataset travels through ------------------------------


def through_coco(shards: Path, out: Path) -> Path:
    """Shards written as one COCO file, splits forgotten; its path."""
    source = formats.read("shards", shards)
    samples = (
        replace(sample, split=None) for sample in source.samples if isinstance(sample, Sample)
    )
    coco_writer.write(samples, source.skeleton, out)
    return out / "annotations.json"


def splits_by_group(shards: Path) -> dict[str, set[str]]:
    dataset = kpdata.open(shards)
    found: dict[str, set[str]] = {}
    for split in dataset.splits:
        for sample in dataset[split]:
            found.setdefault(sample.sample.split_group, set()).add(split)
    return found


@pytest.mark.parametrize(
    "options", [{"crop": 48}, {"group": r"0*(\d+)\d\.jpg"}, {"crop": 48, "group": r"(\d)\.jpg"}]
)
def test_crops_and_groups_that_went_through_coco_stay_in_one_split(
    coco: Path, convert_to: Convert, tmp_path: Path, options: dict[str, Any]
) -> None:
    convert_to(tmp_path / "shards", coco, split="50/25/25", seed=1, **options)
    first = splits_by_group(tmp_path / "shards")
    again = through_coco(tmp_path / "shards", tmp_path / "coco")
    convert_to(tmp_path / "again", again, split="50/25/25", seed=1)
    assert splits_by_group(tmp_path / "again") == first
    assert all(len(splits) == 1 for splits in first.values())


def test_an_image_whose_coco_id_changes_stays_in_its_split(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    content = json.loads(coco.read_text())
    for entry in content["images"]:
        entry["id"] += 1000
    for entry in content["annotations"]:
        entry["image_id"] += 1000
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(coco.parent / "images")
    splits = []
    for name, path in (("old", coco), ("new", tmp_path / "annotations.json")):
        convert_to(tmp_path / name, path, split="50/25/25")
        dataset = kpdata.open(tmp_path / name)
        splits.append({split: {s.image.name for s in dataset[split]} for split in dataset.splits})
    assert splits[0] == splits[1]


# --- folders that are not ours to write -----------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"augment": 3}, {"split": "80/20"}, {"shards": 3}, {"group": r"(\d{5})"}],
    ids=str,
)
def test_another_dataset_in_the_folder_is_refused_and_untouched(
    coco: Path, convert_to: Convert, tmp_path: Path, change: dict[str, Any]
) -> None:
    convert_to(tmp_path / "out", coco, **HEAVY)
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match=r"already holds another dataset.*choose another `out`"):
        convert_to(tmp_path / "out", coco, **HEAVY | change)
    assert contents(tmp_path / "out") == before


def test_other_annotations_are_another_dataset(
    coco: Path, own_coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "out", coco)
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match="already holds another dataset"):
        convert_to(tmp_path / "out", own_coco)
    assert contents(tmp_path / "out") == before


def test_the_order_of_splits_is_part_of_the_dataset(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "out", coco, split="train=90,test=10")
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match="already holds another dataset"):
        convert_to(tmp_path / "out", coco, split="test=10,train=90")
    assert contents(tmp_path / "out") == before


def test_images_of_another_folder_are_another_dataset(
    coco: Path, make_coco: MakeCoco, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "out", coco)
    before = contents(tmp_path / "out")
    other = make_coco(tmp_path / "other", 40, seed=1).parent / "images"
    with pytest.raises(DatasetError, match="made of other annotations, images or options"):
        convert_to(tmp_path / "out", coco, images=other)
    assert contents(tmp_path / "out") == before
    copy = shutil.copytree(coco.parent / "images", tmp_path / "copy")
    assert convert_to(tmp_path / "out", coco, images=copy).unchanged


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: os.truncate(path, 99)], ids=["lost", "cut"]
)
def test_a_finished_folder_that_lost_a_shard_is_not_said_to_be_complete(
    coco: Path, convert_to: Convert, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    convert_to(tmp_path / "out", coco, **HEAVY)
    shard = train_shards(tmp_path / "out")[1]
    spoil(shard)
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match="is missing or damaged") as caught:
        convert_to(tmp_path / "out", coco, **HEAVY)
    assert str(shard) in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_another_dataset_is_refused_even_where_its_work_was_not_swept(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    """As when the first conversion was killed right after it had written the manifest."""
    convert_to(tmp_path / "out", coco)
    (tmp_path / "out/.kpdata/reports").mkdir(parents=True)
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match="already holds another dataset"):
        convert_to(tmp_path / "out", coco, seed=1)
    assert contents(tmp_path / "out") == before
    assert convert_to(tmp_path / "out", coco).unchanged


def test_a_folder_of_something_else_is_refused_and_untouched(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("chapter one")
    with pytest.raises(DatasetError, match=r"out is not empty \(it holds 'thesis\.txt'\)"):
        convert_to(tmp_path / "out", coco)
    assert contents(tmp_path / "out").keys() == {"thesis.txt"}


def test_a_file_is_no_folder(coco: Path, convert_to: Convert, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DatasetError, match=r"^out is .*, which is a file: name a folder"):
        convert_to(tmp_path / "out", coco)
    assert (tmp_path / "out").read_text() == "a file"


def test_an_empty_folder_is_taken(coco: Path, convert_to: Convert, tmp_path: Path) -> None:
    (tmp_path / "a/out").mkdir(parents=True)
    assert convert_to(tmp_path / "a/out", coco).written_samples == 40


def test_a_damaged_manifest_is_not_written_over(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kpdata.json").write_text("{")
    with pytest.raises(DatasetError, match=r"kpdata\.json: not a manifest"):
        convert_to(tmp_path / "out", coco)
    assert (tmp_path / "out/kpdata.json").read_text() == "{"


def test_two_conversions_at_once_do_not_share_a_folder(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    class Second(Progress):
        def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
            if step != "writing":
                return
            with pytest.raises(DatasetError, match="another conversion is writing to this folder"):
                convert_to(tmp_path / "out", coco, seed=7)
            self.tried = True

    progress = Second()
    convert_to(tmp_path / "out", coco, progress=progress)
    assert progress.tried
    assert verify(tmp_path / "out")[1] == []


def test_a_lock_left_by_a_killed_conversion_does_not_bar_the_next(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    (tmp_path / "out/.kpdata").mkdir(parents=True)
    (tmp_path / "out/.kpdata/lock").touch()
    assert convert_to(tmp_path / "out", coco).written_samples == 40


def test_a_lock_whose_file_was_removed_while_it_was_waited_for_is_taken_anew(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its last holder ends right between opening the file and locking it."""
    real, lock = fcntl.flock, tmp_path / "out/.kpdata/lock"
    inodes_locked = []

    def remove_first(file: Any, how: int) -> None:
        if not inodes_locked:
            lock.unlink()
        real(file, how)
        inodes_locked.append(os.fstat(file.fileno()).st_ino)

    class Second(Progress):
        def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
            if step != "writing":
                return
            assert lock.stat().st_ino == inodes_locked[-1]
            with pytest.raises(DatasetError, match="another conversion is writing to this folder"):
                convert_to(tmp_path / "out", coco)
            self.tried = True

    monkeypatch.setattr(fcntl, "flock", remove_first)
    progress = Second()
    convert_to(tmp_path / "out", coco, progress=progress)
    assert progress.tried
    assert len(inodes_locked) == 2


def test_a_note_of_what_workers_printed_outlives_a_job_that_failed(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = local.Workspace(tmp_path / "out").log_path

    def killed(*_: Any, **__: Any) -> None:
        log.write_text("Segmentation fault")
        raise JobError("a worker process was killed.")

    monkeypatch.setattr(execution, "run", killed)
    with pytest.raises(JobError, match=f"was killed. {log} has what workers printed"):
        convert_to(tmp_path / "out", coco)
    assert log.read_text() == "Segmentation fault"


@pytest.mark.parametrize(("shards", "workers"), [(3, 3), (5, 4), (1, 0)])
def test_no_more_workers_start_than_there_are_shards_to_write(
    coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shards: int,
    workers: int,
) -> None:
    started = []

    def note(planned: Any, where: execution.Execution, *_: Any, **__: Any) -> None:
        started.append(where.workers)
        for name in planned.shards:
            planned.write_function()(name)

    monkeypatch.setattr(execution, "run", note)
    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0)
    convert_to(tmp_path / "out", coco, shards=shards, split="train=100", workers=4)
    assert started == [workers]


def test_a_conversion_that_finished_while_another_waited_for_it_is_safe(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    convert_to(tmp_path / "other", coco, seed=1)
    before = contents(tmp_path / "other")

    def finish_meanwhile(file: Any, how: int) -> None:
        real(file, how)
        shutil.copytree(tmp_path / "other", tmp_path / "out", dirs_exist_ok=True)

    monkeypatch.setattr(fcntl, "flock", finish_meanwhile)
    with pytest.raises(DatasetError, match="already holds another dataset"):
        convert_to(tmp_path / "out", coco)
    assert contents(tmp_path / "out") == before


# --- bad samples ----------------------------------------------------------------------------------


def spoil_images(annotations: Path) -> dict[str, str]:
    """Spoil five images; key → the reason that each must be listed under."""
    images = annotations.parent / "images"
    (images / "000001.jpg").unlink()
    (images / "000002.jpg").write_bytes(b"")
    (images / "000003.jpg").write_text("not a picture")
    whole = (images / "000004.jpg").read_bytes()
    (images / "000004.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "000005.jpg").write_bytes((images / "000006.jpg").read_bytes()[:10])
    return {
        "1": "image missing", "2": "image empty", "3": "not an image", "4": "image cut short",
        "5": "image cut short",
    }  # fmt: skip


def test_bad_samples_are_listed_counted_and_left_out(
    own_coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    reasons = spoil_images(own_coco)
    found = convert_to(tmp_path / "out", own_coco, max_quarantine=5).manifest
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").open()]
    assert {line["key"]: line["reason"] for line in lines} == reasons
    assert all(set(line) == set(Rejected._fields) for line in lines)
    assert all(f"00000{line['key']}.jpg" in line["detail"] for line in lines)
    assert found.quarantine == {
        "image cut short": 2, "image empty": 1, "image missing": 1, "not an image": 1
    }  # fmt: skip
    assert sum(split.samples for split in found.splits.values()) == 95
    with open(tmp_path / "out/quarantine.jsonl", "rb") as written:
        assert found.quarantine_sha256 == digest(written)
    assert verify(tmp_path / "out")[1] == []


def test_too_many_bad_samples_stop_the_job_while_planning(
    own_coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        (own_coco.parent / f"images/00000{number}.jpg").unlink()
    with pytest.raises(JobError) as caught:
        convert_to(tmp_path / "out", own_coco, max_quarantine=2.5)
    message = str(caught.value)
    assert (
        "3 of 100 samples are bad (3 × image missing), more than the 2.5 % that `max_quarantine`"
        in message
    )
    assert "000001.jpg: No such file" in message
    assert message.endswith("Mend them, or quarantine them with a larger `max_quarantine`.")
    assert not (tmp_path / "out").exists()


def test_too_many_bad_samples_stop_the_job_after_writing_and_only_their_shards_are_redone(
    own_coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    spoil_images(own_coco)
    out = tmp_path / "out"
    with pytest.raises(JobError) as caught:
        convert_to(out, own_coco, max_quarantine=4.9, shards=20)
    message = str(caught.value)
    assert "5 of 100 samples are bad (2 × image cut short" in message
    assert message.count("\n  ") == 3
    assert not (out / "kpdata.json").exists()
    shards = sorted(out.glob("*.tfrecord"))
    refused = {
        s.name for s in shards if json.loads(report_of(s).read_bytes().splitlines()[0])["rejected"]
    }
    assert 1 <= len(refused) <= 3
    kept = inodes(out)
    forgiven = convert_to(out, own_coco, max_quarantine=5, shards=20)
    after = inodes(out)
    assert {name for name in kept if after[name] != kept[name]} == refused
    clean = convert_to(tmp_path / "clean", own_coco, max_quarantine=5, shards=20)
    assert forgiven.manifest.root_hash == clean.manifest.root_hash


def test_a_finished_dataset_is_held_to_the_percentage_of_bad_samples_too(
    own_coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    spoil_images(own_coco)
    convert_to(tmp_path / "out", own_coco, max_quarantine=5)
    before = contents(tmp_path / "out")
    with pytest.raises(JobError, match="5 of 100 samples are bad") as caught:
        convert_to(tmp_path / "out", own_coco, max_quarantine=4.9)
    assert f"{tmp_path / 'out/quarantine.jsonl'} lists them" in str(caught.value)
    assert convert_to(tmp_path / "out", own_coco, max_quarantine=5).unchanged
    assert contents(tmp_path / "out") == before


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def reverse(path: Path) -> None:
    """Damage that neither the file's size nor its age tells of."""
    age = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(age, age))


@pytest.mark.parametrize("spoil", [cut, reverse])
@pytest.mark.parametrize("forgiven", [False, True], ids=["stopped", "quarantined, then killed"])
def test_images_mended_after_a_stop_are_read_again(
    own_coco: Path,
    convert_to: Convert,
    convert_unsealed: Callable[..., None],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    forgiven: bool,
) -> None:
    clean = convert_to(tmp_path / "clean", own_coco, shards=20)
    whole = shutil.copytree(own_coco.parent / "images", tmp_path / "whole")
    for number in (4, 5, 6):
        spoil(own_coco.parent / f"images/00000{number}.jpg")
    if forgiven:
        convert_unsealed(tmp_path / "out", own_coco, shards=20, max_quarantine=3)
    else:
        with pytest.raises(JobError, match="3 of 100 samples are bad"):
            convert_to(tmp_path / "out", own_coco, shards=20)
    shutil.copytree(whole, own_coco.parent / "images", dirs_exist_ok=True)
    mended = convert_to(tmp_path / "out", own_coco, shards=20)
    assert 0 < mended.written_samples < 100
    assert mended.manifest.quarantine == {}
    assert mended.manifest.root_hash == clean.manifest.root_hash
    assert verify(tmp_path / "out")[1] == []


def test_values_that_no_record_can_hold_are_quarantined(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write.render

    def render(sample: Sample, *arguments: Any) -> Rendered:
        rendered = real(sample, *arguments)

        def records() -> Iterator[Sample]:
            yield from rendered.records
            if sample.key == "2":
                raise SchemaError("transform cannot be inverted")

        return Rendered(records(), rendered.counts)

    monkeypatch.setattr(write, "render", render)
    found = convert_to(tmp_path / "out", coco, crop=32, max_quarantine=2.5).manifest
    assert found.quarantine == {"bad values": 1}
    (line,) = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").open()]
    assert line["key"] == "2"
    assert line["detail"].endswith("images/000002.jpg: transform cannot be inverted")
    keys = {s.key for split in found.splits for s in kpdata.open(tmp_path / "out")[split]}
    assert len(keys) == 39
    assert verify(tmp_path / "out")[1] == []


@pytest.mark.parametrize("call", ["stat", "open", "pread"])
def test_a_failing_disk_is_no_bad_image(
    coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    failing = str((coco.parent / "images/000007.jpg").resolve())
    opened: dict[int, str] = {}
    real = {name: getattr(os, name) for name in ("stat", "open", "pread")}

    def broken(what: Any, *arguments: Any, **options: Any) -> Any:
        if opened.get(what, what) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real[call](what, *arguments, **options)

    def remember(path: Any, *arguments: Any, **options: Any) -> int:
        file: int = real["open"](path, *arguments, **options)
        opened[file] = path
        return file

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", remember)
        patched.setattr(os, call, broken)
        with pytest.raises(JobError) as caught:
            convert_to(tmp_path / "out", coco, max_quarantine=50)
    assert f"Input/output error: {failing}" in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert not (tmp_path / "out/kpdata.json").exists()
    assert convert_to(tmp_path / "out", coco).manifest.quarantine == {}


def test_where_the_source_lies_does_not_change_the_dataset_even_where_an_image_is_missing(
    own_coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_coco.parent / "images/000001.jpg").unlink()
    cut(own_coco.parent / "images/000002.jpg")
    here = convert_to(tmp_path / "here", own_coco, max_quarantine=5)
    moved = shutil.copytree(own_coco.parent, tmp_path / "elsewhere/deep/source")
    monkeypatch.chdir(moved.parent)
    there = convert_to(Path("out"), Path("source/annotations.json"), max_quarantine=5)
    assert here.manifest.quarantine == {"image missing": 1, "image cut short": 1}
    assert here.manifest.root_hash == there.manifest.root_hash
    details = [
        (folder / "quarantine.jsonl").read_bytes() for folder in (tmp_path / "here", Path("out"))
    ]
    assert details[0] != details[1]


def test_pictures_joined_once_stay_together_under_another_grouping(
    make_coco: MakeCoco, convert_to: Convert, tmp_path: Path
) -> None:
    """The crops of two identical images differ, so that only the first conversion can know."""
    source = make_coco(tmp_path / "source", 60)
    images = source.parent / "images"
    for number in range(1, 31):
        shutil.copy(images / f"{number:06}.jpg", images / f"{number + 30:06}.jpg")
    first = convert_to(tmp_path / "crops", source, crop=64, split="50/25/25")
    assert first.manifest.counts["identical images joined into one group"] == 30
    convert_to(
        tmp_path / "again", tmp_path / "crops", format="shards", split="50/25/25",
        group=r"(\d+)\.jpg", seed=1,
    )  # fmt: skip
    dataset = kpdata.open(tmp_path / "again")
    splits: dict[int, set[str]] = {}
    pictures = set()
    for split in dataset.splits:
        for sample in dataset[split]:
            number = int(sample.image.name.removesuffix(".jpg"))
            splits.setdefault(number % 30, set()).add(split)
            pictures.add(sample.image.sha256)
    assert len(splits) == 30
    assert len(pictures) > 60
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}


def test_what_official_splits_refuse_is_no_bad_sample(
    own_coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    convert_to(tmp_path / "shards", own_coco, split="50/0/50")
    source = kpdata.open(tmp_path / "shards")
    twin = next(iter(source["test"])).image.name
    other = next(iter(source["train"])).image.name
    (own_coco.parent / "images" / twin).write_bytes(
        (own_coco.parent / "images" / other).read_bytes()
    )
    joined = convert_to(tmp_path / "joined", own_coco, split="50/0/50")
    assert joined.manifest.counts["identical images joined into one group"] == 1
    assert verify(tmp_path / "joined")[1] == []


# --- a full disk ----------------------------------------------------------------------------------


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_writing_is_named_and_nothing_claims_to_be_a_dataset(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = convert_to(tmp_path / "whole", coco, **HEAVY)
    real, last = tfrecord.Writer.write, train_shards(tmp_path / "whole")[-1].name

    def write_or_fail(writer: tfrecord.Writer, *parts: bytes) -> None:
        if writer.path.name == last:
            full()
        real(writer, *parts)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(tfrecord.Writer, "write", write_or_fail)
        expected = r"writing stopped: No space left on device: .*out\. .*run the same command again"
        with pytest.raises(JobError, match=expected):
            convert_to(out, coco, **HEAVY)
    assert not (out / "kpdata.json").exists()
    assert not list(out.glob(".*.tmp"))
    assert convert_to(out, coco, **HEAVY).manifest.root_hash == whole.manifest.root_hash


def test_a_full_disk_while_planning_is_named_and_leaves_no_folder(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecord.Writer, "_put", full)
    with pytest.raises(JobError, match=r"No space left on device: .*out\. Put this right"):
        convert_to(tmp_path / "out", coco)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_while_sealing_leaves_the_shards_for_the_next_run(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("kpdata.pipelines.seal.write_manifest", full)
        with pytest.raises(JobError, match=r"No space left on device: .*out"):
            convert_to(out, coco, **HEAVY)
    assert not (out / "kpdata.json").exists()
    assert convert_to(out, coco, **HEAVY).written_samples == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_really_fills_up_is_named_and_left_without_half_files(
    small_disk: Path,
    coco: Path,
    convert_to: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0)
    options = {"split": "train=100", "augment": 10, "shards": 8}
    with pytest.raises(JobError, match="No space left on device"):
        convert_to(small_disk / "out", coco, workers=workers, **options)
    left = contents(small_disk)
    assert not [name for name in left if name.endswith(("kpdata.json", ".tmp"))]


def test_a_worker_that_dies_of_a_full_disk_is_not_said_to_be_out_of_memory(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(planned: Any, *_: Any, **__: Any) -> None:
        with pytest.raises(OSError, match="No space left"):
            planned.write_function()(planned.shards[0])
        raise JobError("a worker process was killed")

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(convert_module.execution, "run", run)
    monkeypatch.setattr(write, "write_shard", no_space)
    with pytest.raises(JobError, match="writing stopped: No space left on device"):
        convert_to(tmp_path / "out", coco)


def test_a_note_that_did_not_fit_on_the_disk_still_names_the_cause(tmp_path: Path) -> None:
    work = local.Workspace(tmp_path)
    work.start()
    (work.folder / "failures" / "train-00000-of-00001.tfrecord").touch()
    assert work.failures() == [f"No space left on device: {tmp_path}"]


# --- requests that make no sense ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("crop", 7, "crop is 7: expected 8 to 8192"),
        ("crop", 9000, "crop is 9000: expected"),
        ("margin", 0, "margin is 0: expected 0.1 to 10"),
        ("margin", float("nan"), "margin is nan: expected"),
        ("augment", -1, "augment is -1: expected 0 to 1000"),
        ("jpeg_quality", 101, "jpeg_quality is 101: expected 1 to 100"),
        ("max_pixels", 0, "max_pixels is 0: expected"),
        ("seed", -1, "seed is -1: expected"),
        ("shards", 0, "shards is 0: expected 1 to 99999"),
        ("shard_size", 0, "shard_size is 0: expected 1 or more"),
        ("max_quarantine", 101, "max_quarantine is 101: expected 0 to 100"),
        ("group_near_duplicates", 97, "group_near_duplicates is 97: expected 0 to 96"),
        ("workers", 0, "workers is 0: expected 1 to 1024"),
        ("crop", "256", "crop is '256': expected 8 to 8192"),
        ("crop", 64.5, "crop is 64.5: expected 8 to 8192"),
        ("augment", True, "augment is True: expected 0 to 1000"),
        ("augment", None, "augment is None: expected 0 to 1000"),
        ("crop_from", "head", "crop_from is 'head': expected bbox or keypoints or image"),
        ("exif", "maybe", "exif is 'maybe': expected applied or ignored"),
        ("validate_images", "pixels", "validate_images is 'pixels': expected header or decode"),
        ("beam_options", ("--parallelism=2",), "Beam options are given without a `runner`"),
    ],
)
def test_an_option_out_of_range_is_named_with_its_range(
    option: str, value: Any, message: str
) -> None:
    with pytest.raises(JobError) as caught:
        Request(skeleton=COCO17, **{option: value})
    assert str(caught.value).startswith(message)


def test_the_official_split_of_a_source_without_one_leaves_no_folder(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match="has no split of its own"):
        convert_to(tmp_path / "out", coco, split="official")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder_was_there", [True, False])
def test_an_interrupt_before_any_shard_leaves_no_trace(
    coco: Path, convert_to: Convert, tmp_path: Path, folder_was_there: bool
) -> None:
    out = tmp_path / "out"
    if folder_was_there:
        out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        convert_to(out, coco, progress=StopBeforeWriting())
    assert out.exists() == folder_was_there
    assert not folder_was_there or not list(out.iterdir())


def test_a_shard_that_lacks_its_report_does_not_bar_the_next_run(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a conversion is stopped between the two."""

    def killed(path: Path, data: bytes, durable: bool = True) -> None:
        signal.raise_signal(signal.SIGINT)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("kpdata.pipelines.write.shard.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            convert_to(out, coco)
    assert list(out.glob("*.tfrecord"))
    assert convert_to(out, coco).written_samples == 40


def test_the_manifest_is_written_last(
    coco: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        order.append(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    convert_to(tmp_path / "out", coco)
    assert order[-1] == manifest.MANIFEST
    assert order.count(manifest.MANIFEST) == 1
