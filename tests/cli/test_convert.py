"""``kpdata convert``: what its options do, what it prints, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

import kpdata as library
from kpdata.cli.outcome import show_outcome
from kpdata.core.skeletons import BUILT_IN
from kpdata.pipelines import conversion
from kpdata.pipelines.conversion import Outcome
from kpdata.pipelines.run import beam_job

MakeCoco = Callable[..., Path]
Kpdata = Callable[..., Any]
Refuses = Callable[..., str]


@pytest.fixture(scope="module")
def coco(make_coco: MakeCoco, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty small images. Never write into their folder."""
    return make_coco(tmp_path_factory.mktemp("coco"), 50)


@pytest.fixture(scope="module")
def lsp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in LSP's layout, which has no boxes. Never write into their folder."""
    folder = tmp_path_factory.mktemp("lsp")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, 7):
        _, data = cv2.imencode(".jpg", rng.integers(0, 256, (48, 64, 3), np.uint8))
        (folder / f"images/im{number:04}.jpg").write_bytes(data.tobytes())
    joints = rng.uniform(5, 40, (3, 14, 6))
    joints[2] = rng.integers(0, 2, (14, 6))
    savemat(folder / "joints.mat", {"joints": joints})
    return folder / "joints.mat"


# --- what it prints -------------------------------------------------------------------------------


def test_the_closing_tables_say_what_was_done(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    result = kpdata("convert", "coco", coco, "--out", tmp_path / "out", "--augment", 2)
    manifest = library.open(tmp_path / "out").manifest
    assert result.code == 0
    for text in ("images", "originals", "copies", "instances", "shards", "MB", "images/s", "MB/s"):
        assert text in result.out
    train = manifest.splits["train"]
    row = next(line for line in result.out.splitlines() if line.startswith("train"))
    numbers = [train.samples, train.records - train.copies, train.copies, train.instances]
    assert row.split()[1:5] == [str(number) for number in numbers]
    assert f"root hash {manifest.root_hash}" in result.out
    assert "keypoints outside a copy, set to v = 0" in result.out
    assert result.err == ""


def test_what_was_quarantined_is_in_the_closing_table(
    make_coco: MakeCoco, kpdata: Kpdata, tmp_path: Path
) -> None:
    source = make_coco(tmp_path / "source", 20)
    (source.parent / "images/000007.jpg").unlink()
    result = kpdata("convert", "coco", source, "--out", tmp_path / "out", "--max-quarantine", 5)
    assert result.code == 0
    row = next(line for line in result.out.splitlines() if line.startswith("quarantined"))
    assert row.split() == ["quarantined:", "image", "missing", "1"]
    assert f"{tmp_path / 'out/quarantine.jsonl'} says which were quarantined, and why" in result.out


def test_what_leaks_between_official_splits_is_counted_once(
    lsp: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    assert kpdata("convert", "lsp", lsp, "--out", shards, "--split", "50/0/50").code == 0
    options = ("--out", tmp_path / "out", "--group", "(im)")
    result = kpdata("convert", "shards", shards, *options)
    assert result.code == 0, result.err
    train = library.open(shards).manifest.splits["train"].samples
    rows = [line for line in result.out.splitlines() if line.endswith(f"  {train}")]
    assert [row.split("  ")[0] for row in rows] == ["quarantined: leaks into another split"]


def test_the_closing_line_speaks_of_this_run_alone(
    coco: Path, kpdata: Kpdata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        """Stands for a kill right before the manifest is written."""

    def killed(*arguments: object) -> None:
        raise Stop

    arguments = ("convert", "coco", coco, "--out", tmp_path / "out", "--shards", 4)
    with monkeypatch.context() as patched:
        patched.setattr(conversion, "seal", killed)
        with pytest.raises(Stop):
            kpdata(*arguments)
    result = kpdata(*arguments, "--json")
    assert (result.json["written_samples"], result.json["kept_samples"]) == (0, 50)
    assert result.json["images_per_second"] is None


@pytest.mark.parametrize(
    ("written", "kept", "says"),
    [
        (30, 10, "3.0 s in all; writing at 15 images/s, 4 MB/s (10 images were there already)"),
        (40, 0, "3.0 s in all; writing at 20 images/s, 4 MB/s"),
        (0, 40, "3.0 s in all (40 images were there already)"),
    ],
)
def test_rates_are_of_what_was_written(
    tiny_shards: Path, capsys: pytest.CaptureFixture[str], written: int, kept: int, says: str
) -> None:
    manifest = library.open(tiny_shards).manifest
    size = 8_000_000 if written else 0
    show_outcome(Outcome(manifest, 3.0, 2.0, written, size, kept), tiny_shards)
    assert capsys.readouterr().out.splitlines()[-1] == says


def test_json_is_json_and_nothing_else(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    result = kpdata("convert", "coco", coco, "--out", tmp_path / "out", "--json", "--crop", 32)
    manifest = library.open(tmp_path / "out").manifest
    found = result.json
    assert result.err == ""
    assert found["root_hash"] == manifest.root_hash
    assert found["splits"]["train"]["records"] == manifest.splits["train"].records
    assert found["splits"]["train"]["shards"] == len(manifest.splits["train"].shards)
    assert found["written_samples"] == 50
    assert found["unchanged"] is False
    assert found["seconds"] > 0
    assert found["images_per_second"] > 0
    again = kpdata("convert", "coco", coco, "--out", tmp_path / "out", "--json", "--crop", 32)
    assert (again.json["unchanged"], again.json["written_samples"]) == (True, 0)


def test_quiet_prints_nothing(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    options = ("--split", "train=99,val=1", "--quiet")
    result = kpdata("convert", "coco", coco, "--out", tmp_path / "out", *options)
    assert (result.code, result.out, result.err) == (0, "", "")
    result = kpdata("convert", "coco", coco, "--to", "coco", "--out", tmp_path / "back", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_quiet_still_prints_errors(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    result = kpdata("convert", "coco", coco, "--out", coco, "--quiet")
    assert result.code == 1
    assert ", which is a file: name a folder" in result.err


def test_warnings_are_printed_and_stand_in_the_json(
    coco: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    options = ("--split", "train=99,val=1", "--group", "^(.)")
    result = kpdata("convert", "coco", coco, "--out", tmp_path / "a", *options)
    assert "warning: split val is empty" in result.err
    result = kpdata("convert", "coco", coco, "--out", tmp_path / "b", "--json", *options)
    assert "split val is empty" in result.json["warnings"][0]
    assert result.err == ""


def test_a_finished_folder_is_said_to_be_so(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    arguments = ("convert", "coco", coco, "--out", tmp_path / "out", "--augment", 1)
    first = kpdata(*arguments)
    again = kpdata(*arguments)
    assert again.code == 0
    said = " ".join(again.out.split())
    assert "already holds the dataset of these annotations and options: nothing to do." in said
    assert "compared by name and size in bytes, not by content" in said
    assert "images/s" not in again.out
    assert again.out.splitlines()[-1] in first.out  # the root hash


# --- what the options do --------------------------------------------------------------------------


def test_each_option_reaches_the_manifest(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    config = tmp_path / "mild.toml"
    config.write_text("rotate = [-5, 5]\nflip = 0\n")
    options = {
        "--split": "train=60,dev=40", "--seed": 3, "--group": r"^(\d{5})", "--crop": 48,
        "--crop-from": "keypoints", "--margin": 1.5, "--augment": 1, "--augment-config": config,
        "--exif": "ignored", "--validate-images": "decode", "--max-pixels": 5000,
        "--jpeg-quality": 80, "--shards": 6,
    }  # fmt: skip
    flat = [item for pair in options.items() for item in pair]
    assert kpdata("convert", "coco", coco, "--out", tmp_path / "out", *flat).code == 0
    dataset = library.open(tmp_path / "out")
    found = dataset.manifest.options
    assert dataset.splits == ("train", "dev")
    assert found["splits"] == {"shares": {"train": 0.6, "dev": 0.4}, "val_share": 0.0, "seed": 3}
    assert found["sharding"] == {"count": 6}
    assert (found["seed"], found["group"]) == (3, r"^(\d{5})")
    assert (found["crop"], found["crop_from"], found["margin"]) == (48, "keypoints", 1.5)
    assert (found["augment"], found["augment_config"]["rotate"]) == (1, [-5, 5])
    assert (found["exif"], found["check"]) == ("ignored", "pixels")
    assert (found["max_pixels"], found["jpeg_quality"]) == (5000, 80)


def test_a_shard_size_decides_the_number_of_shards(
    coco: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    options = ("--split", "train=100", "--shard-size", "20K")
    assert kpdata("convert", "coco", coco, "--out", tmp_path / "out", *options).code == 0
    shards = library.open(tmp_path / "out").manifest.splits["train"].shards
    total = sum(path.stat().st_size for path in (coco.parent / "images").iterdir())
    assert len(shards) == -(-total // 20_000)


def test_a_group_expression_keeps_its_images_together(
    coco: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    kpdata("convert", "coco", coco, "--out", tmp_path / "out", "--group", r"^(\d{5})\d")
    dataset = library.open(tmp_path / "out")
    splits: dict[str, set[str]] = {}
    for split in dataset.splits:
        for sample in dataset[split]:
            assert sample.group == sample.image.name[:5]
            splits.setdefault(sample.group, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())


def test_shards_keep_the_splits_that_they_lie_in_unless_told_otherwise(
    coco: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    def splits_of(out: Path) -> dict[str, str]:
        dataset = library.open(out)
        return {sample.key: split for split in dataset.splits for sample in dataset[split]}

    def convert(*arguments: object) -> str:
        result = kpdata("convert", *arguments)
        assert result.code == 0, result.err
        return str(result.err)

    convert("coco", coco, "--out", tmp_path / "shards", "--split", "40/20/40")
    assert convert("shards", tmp_path / "shards", "--out", tmp_path / "same") == ""
    assert splits_of(tmp_path / "same") == splits_of(tmp_path / "shards")
    other = ("--out", tmp_path / "other", "--split", "80/10/10")
    said = convert("shards", tmp_path / "shards", *other)
    assert "warning: the source has an official split (train, val, test): --split official" in said
    assert splits_of(tmp_path / "other") != splits_of(tmp_path / "shards")
    val = ("--out", tmp_path / "val", "--val-from-train", 20)
    convert("shards", tmp_path / "shards", *val)
    assert library.open(tmp_path / "val").splits == ("train", "val", "test")


def test_shards_go_back_to_coco(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    kpdata("convert", "coco", coco, "--out", tmp_path / "shards", "--split", "train=100")
    arguments = ("convert", "shards", tmp_path / "shards", "--to", "coco", "--json")
    result = kpdata(*arguments, "--out", tmp_path / "back")
    source = json.loads(coco.read_text())
    back = json.loads((tmp_path / "back/train.json").read_text())
    assert result.json["images"] == len(back["images"]) == 50
    assert result.json["instances"] == len(source["annotations"])
    keypoints = {a["id"]: np.array(a["keypoints"]) for a in back["annotations"]}
    for annotation in source["annotations"]:
        assert keypoints[annotation["id"]] == pytest.approx(annotation["keypoints"], abs=0.01)


def test_shards_go_to_yolo_and_back(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    def samples_of(out: Path) -> dict[str, Any]:
        dataset = library.open(out)
        found = [(split, sample) for split in dataset.splits for sample in dataset[split]]
        return {sample.image.name.rpartition("/")[2]: (split, sample) for split, sample in found}

    shards = tmp_path / "shards"
    assert kpdata("convert", "coco", coco, "--out", shards, "--split", "60/20/20").code == 0
    arguments = ("convert", "shards", shards, "--to", "yolo")
    result = kpdata(*arguments, "--out", tmp_path / "yolo", "--json")
    first = samples_of(shards)
    instances = sum(len(sample.instances) for _, sample in first.values())
    assert (result.code, result.err) == (0, "")
    assert result.json == {"images": 50, "instances": instances}
    table = kpdata(*arguments, "--out", tmp_path / "told")
    assert [line.split() for line in table.out.splitlines()[-2:]] == [
        ["images", "50"],
        ["instances", str(instances)],
    ]

    again = ("convert", "yolo", tmp_path / "yolo/data.yaml", "--out", tmp_path / "again")
    assert kpdata(*again).code == 0
    assert kpdata("verify", tmp_path / "again").code == 0
    second = samples_of(tmp_path / "again")
    assert library.open(tmp_path / "again").skeleton == library.open(shards).skeleton
    assert second.keys() == first.keys()
    for name, (split, before) in first.items():
        assert second[name][0] == split
        after = second[name][1]
        assert after.image.data == before.image.data
        for a, b in zip(before.instances, after.instances, strict=True):
            np.testing.assert_allclose(b.keypoints, a.keypoints, rtol=0, atol=1e-3)
            np.testing.assert_allclose(b.bbox_xyxy, a.bbox_xyxy, rtol=0, atol=1e-3)


def test_what_yolo_cannot_hold_is_in_the_table(lsp: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    result = kpdata("convert", "lsp", lsp, "--to", "yolo", "--out", tmp_path / "out")
    assert result.code == 0
    rows = dict(line.rsplit(maxsplit=1) for line in result.out.splitlines()[2:])
    assert rows == {
        "boxes drawn around the keypoints": "6",
        "images": "6",
        "images without a split, written as train": "6",
        "instances": "6",
        "no split val, without which Ultralytics does not train": "1",
    }


def test_a_split_that_yolo_does_not_know_is_refused(
    coco: Path, kpdata: Kpdata, refuses: Refuses, tmp_path: Path
) -> None:
    kpdata("convert", "coco", coco, "--out", tmp_path / "shards", "--split", "dev=100")
    says = ["its split is 'dev', YOLO knows train, val, test"]
    refuses("convert", "shards", tmp_path / "shards", "--to", "yolo", says=says)


def test_a_manifest_from_a_stranger_writes_nothing_outside_the_folder(
    coco: Path, kpdata: Kpdata, refuses: Refuses, tmp_path: Path
) -> None:
    shards = tmp_path / "a/shards"
    kpdata("convert", "coco", coco, "--out", shards, "--split", "train=100")
    text = (shards / "kpdata.json").read_text()
    (shards / "kpdata.json").write_text(text.replace('"train', '"../../escaped'))
    (tmp_path / "escaped-00000-of-00001.tfrecord").write_bytes(
        (shards / "train-00000-of-00001.tfrecord").read_bytes()
    )
    before = sorted(tmp_path.rglob("*"))
    says = ["kpdata.json: '../../escaped' is not a split's name"]
    refuses("convert", "shards", shards, "--to", "coco", says=says)
    refuses("convert", "shards", shards, "--split", "official", says=says)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", ["shards", "coco"])
def test_a_skeleton_without_a_shared_name_is_refused(
    coco: Path, refuses: Refuses, tmp_path: Path, target: str
) -> None:
    (tmp_path / "boat.json").write_text('{"name": "boat", "keypoints": ["bow", "stern"]}')
    says = [
        "--to-skeleton is boat, which shares no keypoint name with coco17: nothing would be left"
    ]
    options = ("--to", target, "--to-skeleton", tmp_path / "boat.json")
    refuses("convert", "coco", coco, *options, says=says)


@pytest.mark.parametrize("skeleton", ["lsp14", "mpii16", "coco17", "blazepose33"])
def test_a_skeleton_is_mapped_by_name(
    coco: Path, kpdata: Kpdata, tmp_path: Path, skeleton: str
) -> None:
    options = ("--to-skeleton", skeleton)
    assert kpdata("convert", "coco", coco, "--out", tmp_path / "out", *options).code == 0
    dataset = library.open(tmp_path / "out")
    assert dataset.skeleton == BUILT_IN[skeleton]
    assert kpdata("verify", tmp_path / "out").code == 0
    result = kpdata("convert", "coco", coco, "--to", "coco", "--out", tmp_path / "back", *options)
    assert result.code == 0
    back = json.loads((tmp_path / "back/annotations.json").read_text())
    assert back["categories"][0]["keypoints"] == list(BUILT_IN[skeleton].keypoints)


# --- runners --------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What Beam was told, run by run."""
    heard: list[list[str]] = []
    real = beam_job.PipelineOptions

    def options(flags: list[str]) -> Any:
        heard.append(flags)
        return real(flags)

    monkeypatch.setattr(beam_job, "PipelineOptions", options)
    return heard


def test_beam_options_reach_the_runner(
    coco: Path, kpdata: Kpdata, tmp_path: Path, told: list[list[str]]
) -> None:
    plain = kpdata("convert", "coco", coco, "--out", tmp_path / "plain", "--json")
    assert told == []
    arguments = ("convert", "coco", coco, "--json", "--runner", "FnApiRunner", "--")
    named = kpdata(
        *arguments[:-1], "--out", tmp_path / "a", "--", "--job_name=some", "--parallelism=3"
    )
    assert told == [["--job_name=some", "--parallelism=3", "--runner=FnApiRunner"]]
    assert named.json["root_hash"] == plain.json["root_hash"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--direct_num_workers=abc", "argument --direct_num_workers: invalid int value: 'abc'"),
        (
            "--direct_running_mode=no",
            "argument --direct_running_mode: invalid choice: 'no' (choose",
        ),
        ("--flink_version=9", "argument --flink_version: invalid choice: '9' (choose from"),
        ("--streaming=3", "argument --streaming: ignored explicit argument '3'"),
        ("--project", "argument --project: expected one argument"),
        ("--help", "a request for help"),
    ],
)
def test_a_wrong_beam_option_is_named_in_one_line(
    coco: Path, kpdata: Kpdata, tmp_path: Path, option: str, says: str
) -> None:
    out = ("--out", tmp_path / "out", "--runner", "FnApiRunner", "--quiet")
    result = kpdata("convert", "coco", coco, *out, "--", option)
    assert (result.code, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert line.startswith(f"kpdata: Beam refuses its options: {says}")
    assert "https://beam.apache.org/" in line


def test_beam_options_without_a_runner_are_refused(
    coco: Path, tmp_path: Path, refuses: Callable[..., str]
) -> None:
    command = ("convert", "coco", coco, "--out", tmp_path / "out", "--", "--job_name=other")
    refuses(*command, says=["without a --runner"])


@pytest.mark.parametrize(
    ("runner", "says"),
    [
        ("FlinkyRunner", "Valid values are DataflowRunner"),
        ("no.such.Runner", "No module named 'no'"),
        ("json.Runner", "has no attribute 'Runner'"),
    ],
)
def test_a_runner_that_does_not_exist_is_named(
    coco: Path, refuses: Refuses, runner: str, says: str
) -> None:
    message = refuses(
        "convert", "coco", coco, "--runner", runner, says=[f"--runner is {runner}: ", says]
    )
    assert len(message.splitlines()) == 1


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--split", "80/10"], "the parts must add up to 100, not 90"),
        (["--split", "nan"], "--split is 'nan'"),
        (["--split", "eighty"], "expected percentages such as 80/10/10 or train=90,test=10"),
        (["--split", "40/30/20/10"], "expected percentages such as"),
        (["--split", "train=50,train=50"], "'train' is given twice"),
        (["--split", "Train=100"], "'Train' is no split name"),
        (["--split", "train=110,test=-10"], "a part is negative"),
        (["--val-from-train", "10"], "--val-from-train goes with --split official"),
        (
            ["--split", "official", "--val-from-train", "100"],
            "--val-from-train is 100: expected 0 to below 100",
        ),
        (["--split", "official"], "has no split of its own"),
        (["--group", "("], "--group is '(', not a regular expression"),
        (["--group", "video"], "--group is 'video', which captures nothing"),
        (["--crop", "4"], "--crop is 4: expected 8 to 8192"),
        (["--crop", "64", "--margin", "nan"], "--margin is nan: expected 0.1 to 10"),
        (["--margin", "2"], "--margin changes nothing without --crop"),
        (["--crop-from", "image"], "--crop-from changes nothing without --crop"),
        (["--augment-config", "a.toml"], "--augment-config changes nothing without --augment"),
        (["--max-quarantine", "nan"], "--max-quarantine"),
        (["--augment", "-1"], "--augment is -1: expected 0 to 1000"),
        (["--jpeg-quality", "0"], "--jpeg-quality is 0: expected 1 to 100"),
        (["--seed", "-1"], "--seed is -1: expected 0"),
        (["--crop", "many"], "'--crop': 'many' is not a valid integer"),
        (["--crop-from", "centre"], "'--crop-from': 'centre' is not one of"),
        (["--shard-size", "big"], "'big': expected a size such as 500K, 128M or 2G"),
        (["--shard-size", "0"], "'0': expected at least one byte"),
        (["--shards", "2", "--shard-size", "1M"], "--shards and --shard-size exclude each other"),
        (
            ["--augment", "1", "--split", "0/50/50"],
            "--augment is 1, but only split train gets copies",
        ),
        (["--augment", "1", "--split", "training=90,test=10"], "names training, test: call one"),
        (["--augment-config", "a.toml", "--augment", "0"], "changes nothing without --augment"),
        (["--shards", "0"], "'--shards': 0 is not in the range"),
        (["--workers", "0"], "'--workers': 0 is not in the range"),
        (["--max-quarantine", "101"], "'--max-quarantine': 101"),
        (["--exif", "maybe"], "'--exif': 'maybe' is not one of"),
        (["--to", "json"], "'--to': 'json' is not one of 'coco', 'yolo', 'shards'"),
        (["--style", "list"], "--style is not for format coco"),
        (["--to-skeleton", "coco18"], "lsp14, mpii16, coco17, blazepose33"),
        (["--no-such-option"], "No such option"),
    ],
    ids=" ".join,
)
def test_an_option_that_makes_no_sense_is_named_with_what_does(
    coco: Path, refuses: Refuses, options: list[str], says: str
) -> None:
    refuses("convert", "coco", coco, *options, says=[says])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--style", "list"], "--style is not for format lsp"),
        (["--category", "person"], "--category is not for format lsp"),
        (["--crop", "64"], "lsp has no boxes to crop around: choose --crop-from image"),
        (["--crop", "64", "--crop-from", "bbox"], "or --crop-from keypoints"),
        (["--split", "official"], "has no split of its own"),
    ],
    ids=" ".join,
)
def test_an_option_that_lsp_has_no_use_for_is_refused(
    lsp: Path, refuses: Refuses, options: list[str], says: str
) -> None:
    refuses("convert", "lsp", lsp, *options, says=[says])


@pytest.mark.parametrize("crop_from", ["image", "keypoints"])
def test_lsp_is_cropped_from_what_it_has(
    lsp: Path, kpdata: Kpdata, tmp_path: Path, crop_from: str
) -> None:
    options = ("--crop", 32, "--crop-from", crop_from, "--split", "train=100")
    assert kpdata("convert", "lsp", lsp, "--out", tmp_path / "out", *options).code == 0
    assert len(library.open(tmp_path / "out")["train"]) == 6


@pytest.mark.parametrize(
    "options",
    [["--crop", "64"], ["--augment", "1"], ["--split", "official"], ["--seed", "1"],
     ["--workers", "1"], ["--shards", "2"], ["--validate-images", "decode"]],
    ids=lambda options: options[0],
)  # fmt: skip
def test_options_of_shards_are_refused_for_another_target(
    coco: Path, refuses: Refuses, options: list[str]
) -> None:
    says = [f"{options[0]} is for --to shards: convert to shards with it first"]
    refuses("convert", "coco", coco, "--to", "coco", *options, says=says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read the augmentation: No such file"),
        ("rotate = [", "not a TOML file"),
        ("rotation = [-5, 5]", "an augmentation's keys are flip, rotate"),
        ("rotate = 5", "rotate"),
        ("scale = [2, 1]", "scale is [2"),
        ("flip = 1.5", "flip is 1.5: expected a value from 0 to 1"),
    ],
)
def test_an_augmentation_file_at_fault_is_named_with_its_key(
    coco: Path, refuses: Refuses, tmp_path: Path, content: str | None, says: str
) -> None:
    config = tmp_path / "augment.toml"
    if content is not None:
        config.write_text(content)
    options = ("--augment", 1, "--augment-config", config)
    refuses("convert", "coco", coco, *options, says=[f"kpdata: {config}: ", says])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "boat.json"),
        ("{", "boat.json"),
        ('{"name": "boat"}', "keypoints"),
        ('{"name": "boat", "keypoints": ["bow"], "edges": [["bow", "mast"]]}', "'mast'"),
        ('{"name": "boat", "keypoints": ["bow"], "joints": []}', "joints"),
    ],
)
def test_a_skeleton_file_at_fault_is_named_with_its_key(
    coco: Path, refuses: Refuses, tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "boat.json"
    if content is not None:
        path.write_text(content)
    refuses("convert", "coco", coco, "--to-skeleton", path, says=["kpdata: ", "boat.json", says])


def test_a_format_that_does_not_exist_lists_those_that_do(refuses: Refuses, tmp_path: Path) -> None:
    says = ["unknown format 'voc': kpdata knows lsp, lspet, mpii, coco, yolo, deeplabcut"]
    refuses("convert", "voc", tmp_path, says=says)


def test_an_output_folder_is_asked_for(coco: Path, kpdata: Kpdata) -> None:
    result = kpdata("convert", "coco", coco)
    assert result.code == 2
    assert "Missing option '--out'" in result.err
