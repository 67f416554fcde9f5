"""The other commands, and what all of them have in common."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import kpdata as library
from kpdata.cli.inspect import show
from kpdata.cli.main import COMMANDS
from kpdata.core.mapping import map_by_name
from kpdata.core.skeletons import COCO17, MPII16
from kpdata.formats import FORMATS
from kpdata.shards.manifest import read_manifest, write_manifest

Kpdata = Callable[..., Any]


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", list(COMMANDS))
def test_each_command_has_help_with_examples_that_begin_lines(kpdata: Kpdata, command: str) -> None:
    result = kpdata(command, "--help")
    assert result.code == 0
    assert f"Usage: kpdata {command}" in result.out
    lines = [line.strip() for line in result.out.splitlines()]
    place = next(i for i, line in enumerate(lines) if line in ("Example:", "Examples:"))
    assert lines[place + 1].startswith(f"kpdata {command}")
    assert "\\b" not in result.out


def test_python_dash_m_is_a_command_too() -> None:
    command = [sys.executable, "-m", "kpdata", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage: python -m kpdata " in result.stdout


def test_the_groups_help_lists_every_command_with_examples(kpdata: Kpdata) -> None:
    result = kpdata("--help")
    assert result.code == 0
    listed = result.out.partition("Commands:")[2]
    assert all(f"  {command} " in listed for command in COMMANDS)
    assert "Examples:\n    kpdata demo\n" in result.out


def test_help_imports_neither_beam_nor_numpy() -> None:
    code = (
        "import sys; from kpdata.cli.main import main\n"
        "sys.argv = ['kpdata', '--help']\n"
        "main()\n"
        "heavy = {'apache_beam', 'numpy', 'cv2', 'rich', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_the_version_is_the_packages(kpdata: Kpdata) -> None:
    result = kpdata("--version")
    assert (result.code, result.out) == (0, f"kpdata, version {library.__version__}\n")


def test_no_command_and_an_unknown_one_are_usage_errors(kpdata: Kpdata) -> None:
    assert kpdata().code == 2
    unknown = kpdata("shred")
    assert unknown.code == 2
    assert "No such command 'shred'" in unknown.err


def test_a_closed_pipe_ends_quietly(tiny_shards: Path) -> None:
    code = f"import sys; sys.argv = ['kpdata', 'inspect', {str(tiny_shards)!r}, '--json']\n" + (
        "from kpdata.cli.main import main; main()"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_screen_that_cannot_show_a_character_shows_another(tiny_shards: Path) -> None:
    code = "from kpdata.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", tiny_shards],
        capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"64?64 \xd7 48?48 px" in done.stdout


@pytest.mark.parametrize(
    ("place", "arguments", "says"),
    [
        ("kpdata.cli.synth.render_dataset", ["synth"], "kpdata: interrupted\n"),
        ("kpdata.cli.convert.run_conversion", ["convert", "coco", "{coco}"],
         "kpdata: interrupted. Run the same command again to go on where it stopped.\n"),
        ("kpdata.cli.synth.render_dataset", ["demo"],
         "kpdata: interrupted. Run the same command again to go on where it stopped.\n"),
    ],
    ids=["synth", "convert", "demo"],
)  # fmt: skip
def test_only_commands_that_can_go_on_say_so_when_interrupted(
    kpdata: Kpdata,
    tiny_coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    arguments: list[str],
    says: str,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    importlib.import_module(place.rpartition(".")[0])
    monkeypatch.setattr(place, interrupted)
    words = [word.format(coco=tiny_coco / "annotations.json") for word in arguments]
    result = kpdata(*words, "--out", tmp_path / "out")
    assert result.code == 130
    assert result.err.lstrip() == says


# --- formats --------------------------------------------------------------------------------------


def test_formats_lists_each_with_its_convention(kpdata: Kpdata) -> None:
    result = kpdata("formats")
    assert result.code == 0
    text = " ".join(result.out.split())
    for entry in FORMATS.values():
        assert entry.name in text
    rows = {line.split()[0]: line.split() for line in result.out.splitlines() if line.strip()}
    for name, entry in FORMATS.items():
        assert rows[name].count("yes") == entry.writable
    assert "flag 1" in text
    assert "occluded" in text


# --- inspect --------------------------------------------------------------------------------------


def test_inspect_shows_what_the_folder_holds(kpdata: Kpdata, tiny_shards: Path) -> None:
    result = kpdata("inspect", tiny_shards)
    manifest = library.open(tiny_shards).manifest
    assert result.code == 0
    lines = result.out.splitlines()
    for name, split in manifest.splits.items():
        row = next(line for line in lines if line.startswith(name)).split()
        numbers = [
            split.samples,
            split.records - split.copies,
            split.copies,
            split.instances,
            len(split.shards),
        ]
        assert row[1:6] == [str(number) for number in numbers]
    assert "skeleton coco17: 17 keypoints, 8 flip pairs, OKS sigmas" in result.out
    row = next(line for line in lines if line.startswith("nose")).split()
    nose = [sum(split.visibility[0][v] for split in manifest.splits.values()) for v in range(3)]
    assert row[1:4] == [str(number) for number in nose]
    assert row[4] == f"{100 * nose[1] / (nose[1] + nose[2]):.2f}"
    for text in ("coco", "annotations.json sha256", "64–64 × 48–48 px", manifest.root_hash):
        assert text in result.out


def test_inspect_tells_an_official_split_by_its_name(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path
) -> None:
    for options, says in (
        ((), "splits official"),
        (("--val-from-train", 20), "splits official, val_share 0.2, seed 0"),
    ):
        out = tmp_path / str(len(options))
        assert kpdata("convert", "shards", tiny_shards, "--out", out, *options).code == 0
        lines = [" ".join(line.split()) for line in kpdata("inspect", out).out.splitlines()]
        assert says in lines


def test_inspect_prints_the_manifest_as_json(kpdata: Kpdata, tiny_shards: Path) -> None:
    result = kpdata("inspect", tiny_shards, "--json")
    assert result.json == json.loads((tiny_shards / "kpdata.json").read_text())


def test_inspect_shows_where_each_mapped_keypoint_comes_from(
    kpdata: Kpdata, tiny_coco: Path, tmp_path: Path
) -> None:
    options = ("--to-skeleton", "mpii16", "--quiet", "--out", tmp_path / "out")
    assert kpdata("convert", "coco", tiny_coco / "annotations.json", *options).code == 0
    lines = kpdata("inspect", tmp_path / "out").out.splitlines()
    rows = {line.split()[0]: " ".join(line.split()) for line in lines if line.strip()}
    assert "mapped from" in "\n".join(lines)
    assert rows["right_ankle"].startswith("right_ankle exact ")
    assert rows["pelvis"].startswith("pelvis mean of left_hip, right_hip ")
    assert rows["head_top"].startswith("head_top missing ")
    reasons = [line for line in lines if "lies midway" in line]
    assert reasons == [
        "pelvis: MPII's pelvis lies midway between the hips",
        "thorax: MPII's thorax lies midway between the shoulders",
    ]
    mapping = kpdata("inspect", tmp_path / "out", "--json").json["mapping"]
    assert {entry["how"] for entry in mapping} == {"exact", "derived", "missing"}


def manifest_of(shards: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder that holds the changed manifest of ``shards``, sealed anew, and nothing else."""
    content = json.loads((shards / "kpdata.json").read_text())
    change(content)
    folder.mkdir()
    (folder / "kpdata.json").write_text(json.dumps(content))
    write_manifest(folder, read_manifest(folder))
    return folder


def test_inspect_takes_a_users_brackets_and_colons_for_text(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path
) -> None:
    def rename(content: dict[str, Any]) -> None:
        skeleton = content["skeleton"]
        skeleton |= {"name": "[bold]:warning:", "keypoints": ["[/x]", *skeleton["keypoints"][1:]]}
        skeleton |= {"edges": [], "flip_pairs": [], "sigmas": {}, "torso": None, "head": None}
        content["counts"] = {"[/count]": 3}

    result = kpdata("inspect", manifest_of(tiny_shards, tmp_path / "[x", rename))
    assert result.code == 0, result.err
    for text in (f"{tmp_path / '[x'}", "skeleton [bold]:warning:: 17", "\n[/x] ", "[/count]"):
        assert text in result.out


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(sizes={"min_width": 3}),
        lambda content: content.update(sizes={}),
        lambda content: content.update(splits={}),
        lambda content: content.update(mapping=[{"name": "nose", "how": "exact"}]),
        lambda content: content.update(mapping=[{"name": "?", "how": "missing"}] * 40),
        lambda content: content.update(options={"splits": [1, {"a": None}]}),
        lambda content: content["skeleton"].update(edges=[], sigmas={}),
    ],
    ids=["part of a size", "no size", "no split", "short mapping", "long mapping", "odd options",
         "bare skeleton"],
)  # fmt: skip
def test_inspect_shows_odd_manifests(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    result = kpdata("inspect", manifest_of(tiny_shards, tmp_path / "odd", change))
    assert result.code == 0, result.err
    assert "root hash" in result.out
    assert "right_ankle" in result.out


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_inspect_never_breaks_a_name_or_a_number_on_a_narrow_terminal(
    tiny_shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    manifest = library.open(tiny_shards).manifest
    counts = tuple((10**k, 20, 123_456) for k in range(16))
    manifest = msgspec.structs.replace(
        manifest,
        skeleton=MPII16,
        mapping=map_by_name(COCO17, MPII16).keypoints,
        splits={"train": msgspec.structs.replace(manifest.splits["train"], visibility=counts)},
    )
    show(manifest, tiny_shards)
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line[:1].strip()}
    for name, row, origin in zip(MPII16.keypoints, counts, manifest.mapping, strict=True):
        assert rows[name][-4:-1] == [f"{count:,}" for count in row]
        assert rows[name][0] == {"derived": "mean"}.get(origin.how, origin.how)


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_folder_that_is_no_dataset_is_refused(
    kpdata: Kpdata, tmp_path: Path, command: str
) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        result = kpdata(command, folder)
        assert result.code == (2 if command == "verify" else 1)
        assert f"kpdata: {folder} is not a dataset: it has no kpdata.json" in result.err
        assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b"[" * 90_000])
def test_a_manifest_that_is_none_is_refused(
    kpdata: Kpdata, tmp_path: Path, command: str, content: bytes
) -> None:
    (tmp_path / "kpdata.json").write_bytes(content)
    result = kpdata(command, tmp_path)
    assert result.code == (2 if command == "verify" else 1)
    assert f"kpdata: {tmp_path / 'kpdata.json'}: not a manifest" in result.err
    assert "Traceback" not in result.err


# --- verify ---------------------------------------------------------------------------------------


def test_verify_finds_a_sound_dataset_sound(kpdata: Kpdata, tiny_shards: Path) -> None:
    manifest = library.open(tiny_shards).manifest
    records = sum(split.records for split in manifest.splits.values())
    result = kpdata("verify", tiny_shards)
    assert result.code == 0
    assert f"sound: {records} records, no leak across train, val, test" in result.out
    assert manifest.root_hash in result.out
    quiet = kpdata("verify", tiny_shards, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    found = kpdata("verify", tiny_shards, "--json").json
    assert found == {"root_hash": manifest.root_hash, "records": records, "faults": []}


def test_verify_names_each_fault_and_exits_with_1(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_shards, tmp_path / "shards")
    first, second, *_ = sorted((tmp_path / "shards").glob("*.tfrecord"))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    second.unlink()
    result = kpdata("verify", tmp_path / "shards")
    assert result.code == 1
    assert result.out == ""
    faults = [line for line in result.err.splitlines() if line.startswith("FAULT")]
    assert any(str(first) in line for line in faults)
    assert any(f"{second} is missing" in line for line in faults)
    assert "faults: do not trust it" in result.err
    machine = kpdata("verify", tmp_path / "shards", "--json")
    assert machine.code == 1
    assert len(machine.json["faults"]) == len(faults)
    assert kpdata("verify", tmp_path / "shards", "--quiet").code == 1


def test_verify_does_not_drown_the_user_in_faults(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_shards, tmp_path / "shards")
    for number in range(60):
        (tmp_path / f"shards/extra-{number:05}-of-00060.tfrecord").touch()
    result = kpdata("verify", tmp_path / "shards")
    assert result.code == 1
    assert result.err.count("FAULT") == 50
    assert "… and 10 more" in result.err
    assert "60 faults: do not trust it" in result.err
