"""How a command is told what to read: several ANNOTATIONS, and what stands behind ``--``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kpdata as library
from kpdata.checks.verify import verify

MakeCoco = Callable[..., Path]
Kpdata = Callable[..., Any]
Refuses = Callable[..., str]


@pytest.fixture(scope="module")
def parts(make_coco: MakeCoco, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` of twelve pictures and ``val/`` of six, whose numbers and names are the same."""
    folder = tmp_path_factory.mktemp("parts")
    for seed, (name, count) in enumerate({"train": 12, "val": 6}.items()):
        make_coco(folder / name, count, seed=seed)
    return folder


def named(parts: Path) -> list[str]:
    return [f"{name}={parts / name / 'annotations.json'}" for name in ("train", "val")]


def test_a_file_for_each_split_makes_one_dataset(
    parts: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    assert kpdata("convert", "coco", *named(parts), "--out", tmp_path / "out").code == 0
    dataset = library.open(tmp_path / "out")
    assert {name: len(dataset[name]) for name in dataset.splits} == {"train": 12, "val": 6}
    for name in dataset.splits:
        for sample in dataset[name]:
            assert sample.image.name.startswith(f"{name}/images/")
            assert sample.image.data == (parts / sample.image.name).read_bytes()
    assert verify(tmp_path / "out")[1] == []
    files = dataset.manifest.source.files
    assert list(files) == ["annotations.json", "annotations.json (2)"]
    assert len(set(files.values())) == 2


def test_the_parts_can_be_split_anew(parts: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    kpdata("convert", "coco", *named(parts), "--split", "train=100", "--out", tmp_path / "out")
    assert library.open(tmp_path / "out").splits == ("train",)


def test_each_split_may_have_a_folder_of_images(
    parts: Path, kpdata: Kpdata, refuses: Refuses, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    texts = {name: (parts / name / "annotations.json").read_text() for name in ("train", "val")}
    for name, text in texts.items():
        (away / f"{name}.json").write_text(text)
    given = [f"{name}={away / name}.json" for name in texts]
    images = [word for name in texts for word in ("--images", f"{name}={parts / name / 'images'}")]
    result = kpdata("convert", "coco", *given, *images, "--out", tmp_path / "out", "--json")
    assert {name: split["samples"] for name, split in result.json["splits"].items()} == {
        "train": 12,
        "val": 6,
    }
    refuses("convert", "coco", *given, *images[:2], says=["val.json: no images found"])
    refuses(
        "convert",
        "coco",
        *given,
        *images,
        *images,
        says=["names 2 folders for split train: name one"],
    )
    refuses("convert", "coco", *given, "--images", "dev=x", says=["no annotations are called dev="])


def test_what_is_written_as_coco_can_be_read_back(
    parts: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    kpdata("convert", "coco", *named(parts), "--out", tmp_path / "shards")
    kpdata("convert", "shards", tmp_path / "shards", "--to", "coco", "--out", tmp_path / "coco")
    written = [f"{name}={tmp_path / 'coco' / name}.json" for name in ("train", "val")]
    kpdata("convert", "coco", *written, "--out", tmp_path / "again")
    before, after = library.open(tmp_path / "shards"), library.open(tmp_path / "again")
    assert before.splits == after.splits
    for name in before.splits:
        hashes = [{sample.image.sha256 for sample in dataset[name]} for dataset in (before, after)]
        assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "words",
    [["a.json", "b.json"], ["train=a.json", "b.json"]],
    ids=["unnamed", "one unnamed"],
)
def test_several_annotations_each_need_a_split(refuses: Refuses, words: list[str]) -> None:
    refuses(
        "convert",
        "coco",
        *words,
        says=[" ".join(words), "such as train=a.json train=b.json val=c.json"],
    )


def test_a_split_may_have_several_files(parts: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    train, val = (parts / name / "annotations.json" for name in ("train", "val"))
    options = ("--out", tmp_path / "out", "--json")
    one = kpdata("convert", "coco", f"train={train}", f"train={val}", *options)
    assert one.json["splits"].keys() == {"train"}
    images = [f"--images=train={parts / name / 'images'}" for name in ("train", "val")]
    options = ("--out", tmp_path / "named", "--json")
    two = kpdata("convert", "coco", f"train={train}", f"train={val}", *images, *options)
    assert two.json["root_hash"] == one.json["root_hash"]
    odd = kpdata("convert", "coco", f"train={train}", *images, "--out", tmp_path / "odd")
    assert "`images`" not in odd.err
    assert "--images names 2 folders for split train: name one" in odd.err


def test_a_file_may_have_an_equals_sign_in_its_name(
    parts: Path, kpdata: Kpdata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (parts / "train/annotations.json").read_text()
    Path("crop=8.json").write_text(text)
    images = parts / "train/images"
    result = kpdata("convert", "coco", "crop=8.json", "--images", images, "--out", "out", "--json")
    assert sum(split["samples"] for split in result.json["splits"].values()) == 12


def test_a_preview_takes_several_too(parts: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert kpdata("augment-preview", "coco", *named(parts), "--rows", 2, "--out", out).code == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["b.json"], "-- b.json: Beam options begin with --"),
        (["--runner=FlinkRunner"], "--runner belongs before the --"),
        (["--parallelism", "2", "--runner", "x"], "--runner belongs before the --"),
    ],
)
def test_only_options_may_stand_behind_the_dashes(
    parts: Path, kpdata: Kpdata, tmp_path: Path, words: list[str], says: str
) -> None:
    coco, out = parts / "train/annotations.json", tmp_path / "out"
    result = kpdata("convert", "coco", coco, "--out", out, "--", *words)
    assert result.code == 1
    assert says in result.err
    assert not out.exists()
