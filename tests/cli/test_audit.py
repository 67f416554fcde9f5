"""``kpdata audit`` and ``kpdata convert --group-near-duplicates``: options, output, exit codes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import kpdata as library
from kpdata.images.perceptual import DEFAULT_DISTANCE

MakeCoco = Callable[..., Path]
Kpdata = Callable[..., Any]


@pytest.fixture(scope="module")
def coco(make_coco: MakeCoco, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, of which 1 to 5 are there again, brighter, as 11 to 15. Only read it."""
    annotations = make_coco(tmp_path_factory.mktemp("coco"), 20)
    for number in range(1, 6):
        _write_bright(annotations.parent / "images", number, number + 10)
    return annotations


def _write_bright(images: Path, source: int, target: int) -> None:
    pixels = cv2.imread(str(images / f"{source:06d}.jpg"))
    assert pixels is not None
    brighter = np.clip(pixels * 1.1, 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(images / f"{target:06d}.jpg"), brighter)


@pytest.fixture
def leaking(coco: Path, kpdata: Kpdata, tmp_path: Path) -> Path:
    """``coco`` in halves, which tear some of the pairs apart."""
    out = tmp_path / "shards"
    assert kpdata("convert", "coco", coco, "--out", out, "--split", "50/0/50", "--quiet").code == 0
    return out


def torn_pairs(shards: Path) -> set[tuple[str, str]]:
    """(name in train, name in test) of the pairs that lie in two splits."""
    dataset = library.open(shards)
    names = {split: {s.image.name for s in dataset[split]} for split in dataset.splits}
    pairs = [(f"{n:06d}.jpg", f"{n + 10:06d}.jpg") for n in range(1, 6)]
    either = {(a, b) for pair in pairs for a, b in (pair, pair[::-1])}
    return {(a, b) for a, b in either if a in names["train"] and b in names["test"]}


# --- audit ----------------------------------------------------------------------------------------


def test_leaks_are_tabled_and_end_with_1(kpdata: Kpdata, leaking: Path) -> None:
    torn = torn_pairs(leaking)
    assert 0 < len(torn) < 5
    result = kpdata("audit", leaking)
    assert result.code == 1
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert f"near duplicate {len(torn)}" in lines
    assert "identical picture 0" in lines
    for train, test in torn:
        found = f"near duplicate train {train} test {test} "
        assert any(line.startswith(found) for line in lines)
    assert f"root hash {library.open(leaking).manifest.root_hash}" in lines
    assert result.err == f"kpdata: {len(torn)} leaks across splits\n"


def test_a_dataset_without_leaks_ends_with_0(kpdata: Kpdata, tiny_shards: Path) -> None:
    result = kpdata("audit", tiny_shards)
    assert (result.code, result.err) == (0, "")
    assert "near duplicate" in result.out
    quiet = kpdata("audit", tiny_shards, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_the_certificate_is_written_printed_and_drawn(
    kpdata: Kpdata, leaking: Path, tmp_path: Path
) -> None:
    out, sheet = tmp_path / "new/audit.json", tmp_path / "new/leaks.png"
    result = kpdata("audit", leaking, "--json", "--out", out, "--contact-sheet", sheet)
    assert result.code == 1
    certificate = json.loads(out.read_text())
    assert result.json == certificate
    assert certificate["distance"] == DEFAULT_DISTANCE
    pairs = {(leak["first"]["file"], leak["second"]["file"]) for leak in certificate["leaks"]}
    assert pairs == torn_pairs(leaking)
    assert cv2.imread(str(sheet)).shape[1] > 4 * 256


def test_the_distance_is_the_users(kpdata: Kpdata, leaking: Path) -> None:
    assert kpdata("audit", leaking, "--distance", 0, "--quiet").code == 0
    assert kpdata("audit", leaking, "--distance", 200).code == 2


def test_several_datasets_are_audited_together(
    kpdata: Kpdata, coco: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    tests, out = ("--split", "test=100", "--quiet"), tmp_path / "b"
    assert kpdata("convert", "coco", coco, "--out", out, *tests).code == 0
    result = kpdata("audit", tiny_shards, out, "--json")
    leaks = result.json["leaks"]
    assert result.code == 1
    assert {leak["second"]["dataset"] for leak in leaks} == {str(out)}
    train_and_val = [*library.open(tiny_shards)["train"], *library.open(tiny_shards)["val"]]
    shared = {one.image.sha256 for one in library.open(out)["test"]}
    expected = {one.image.sha256 for one in train_and_val} & shared
    identical = {leak["first"]["sha256"] for leak in leaks if leak["kind"] == "identical picture"}
    assert identical == expected != set()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--contact-sheet", "leaks.jpg"], "--contact-sheet is leaks.jpg: expected a name"),
        (["--out", "/dev/null/audit.json"], "/dev/null/audit.json: cannot be written: "),
        (["--out", "{folder}"], "cannot be written: Is a directory: choose another place"),
        (["--contact-sheet", "/dev/null/leaks.png"], "/dev/null/leaks.png: cannot be written: "),
    ],
)
def test_a_place_that_cannot_be_written_is_named(
    kpdata: Kpdata,
    tiny_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    says: str,
) -> None:
    monkeypatch.setattr("kpdata.cli.audit.audit", None)  # it is found out before the work
    result = kpdata("audit", tiny_shards, *(word.format(folder=tmp_path) for word in options))
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err


def test_no_picture_is_drawn_where_there_is_no_leak(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "leaks.png"
    result = kpdata("audit", tiny_shards, "--contact-sheet", sheet)
    assert (result.code, result.err) == (0, f"no leak to draw: {sheet} was not written\n")
    assert not sheet.exists()
    assert kpdata("audit", tiny_shards, "--contact-sheet", sheet, "--quiet").err == ""


def test_a_damaged_shard_is_named(kpdata: Kpdata, tiny_shards: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_shards, tmp_path / "damaged")
    path = next(folder.glob("test-*.tfrecord"))
    path.write_bytes(path.read_bytes()[:-1])
    result = kpdata("audit", folder)
    assert result.code == 2
    assert f"kpdata: {path}: record " in result.err
    assert "more than the file holds" in result.err


# --- convert --group-near-duplicates --------------------------------------------------------------


@pytest.mark.parametrize("option", ["--group-near-duplicates", "--group-near-duplicates=40"])
def test_grouped_pairs_are_counted_recorded_and_pass_the_audit(
    kpdata: Kpdata, coco: Path, tmp_path: Path, option: str
) -> None:
    out = tmp_path / "grouped"
    result = kpdata("convert", "coco", coco, "--out", out, "--split", "50/0/50", option)
    assert result.code == 0
    manifest = library.open(out).manifest
    assert manifest.counts["near-duplicate images grouped"] == 5
    assert "near-duplicate images grouped" in result.out
    distance = int(option.partition("=")[2] or DEFAULT_DISTANCE)
    assert manifest.options["group_near_duplicates"] == distance
    assert torn_pairs(out) == set()
    assert kpdata("audit", out, "--distance", distance).code == 0


def test_without_the_option_nothing_speaks_of_it(kpdata: Kpdata, leaking: Path) -> None:
    manifest = library.open(leaking).manifest
    assert "group_near_duplicates" not in manifest.options
    assert "near-duplicate images grouped" not in manifest.counts


def test_a_distance_out_of_range_is_a_usage_error(
    kpdata: Kpdata, coco: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = kpdata("convert", "coco", coco, "--out", out, "--group-near-duplicates=97")
    assert result.code == 2
    assert not out.exists()
