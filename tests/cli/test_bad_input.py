"""Bad input: each ends in one message that names place and fix, or in quarantine."""

import errno
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from kpdata.shards import tfrecord

MakeCoco = Callable[..., Path]
Kpdata = Callable[..., Any]
Refuses = Callable[..., str]
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def coco(make_coco: MakeCoco, tmp_path: Path) -> Path:
    """Twelve images to spoil: one bad one is 8.3 %."""
    return make_coco(tmp_path / "source")


def edit(path: Path, change: Edit) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_no_name_writes_to_the_terminal(kpdata: Kpdata, coco: Path, tmp_path: Path) -> None:
    steal, wipe, out = "\x1b]52;c;b3duZWQ=\x07", "\x1b[2J\x9b2J", tmp_path / "shards"

    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["keypoints"][0] = f"nose{steal}"
        content["images"][0]["file_name"] = f"gone{wipe}.jpg"

    edit(coco, change)
    convert = ("convert", "coco", coco, "--images", coco.parent / "images", "--out", out)
    refused, made, inspected = (
        kpdata(*convert),
        kpdata(*convert, "--max-quarantine", 50),
        kpdata("inspect", out),
    )
    with next(out.glob("*.tfrecord")).open("r+b") as shard:
        shard.truncate(100)
    verified = kpdata("verify", out)
    assert [each.code for each in (refused, made, inspected, verified)] == [1, 0, 0, 1]
    assert r"gone\x1b[2J\x9b2J.jpg" in refused.err
    assert r"nose\x1b]52;c;b3duZWQ=\x07" in inspected.out
    said = "".join(each.out + each.err for each in (refused, made, inspected, verified))
    assert not set(said) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}


# --- annotation files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(lambda whole: whole[: len(whole) // 2], "$.", id="truncated"),
        pytest.param(lambda whole: b"", "empty", id="empty"),
        pytest.param(lambda whole: b"   \n", "", id="blank"),
        pytest.param(lambda whole: b"hello, world", "", id="text"),
        pytest.param(lambda whole: bytes(range(256)) * 40, "", id="binary"),
        pytest.param(lambda whole: b"[1, 2, 3]", "", id="an array"),
        pytest.param(lambda whole: b'{"images": 3}', "images", id="no array of images"),
        pytest.param(lambda whole: b"{}", "", id="an empty object"),
        pytest.param(lambda whole: whole + b"}", "", id="something behind it"),
        pytest.param(lambda whole: b"\xff\xfe" + whole, "", id="another encoding"),
        pytest.param(lambda whole: b"[" * 100_000, "", id="nested for ever"),
    ],
)
def test_a_coco_file_that_is_none_is_named(
    coco: Path, refuses: Refuses, content: Callable[[bytes], bytes], says: str
) -> None:
    coco.write_bytes(content(coco.read_bytes()))
    message = refuses("convert", "coco", coco, says=[f"kpdata: {coco}", says])
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("format_name", ["coco", "lsp", "lspet"])
def test_a_folder_in_place_of_an_annotation_file_is_named(
    coco: Path, refuses: Refuses, format_name: str
) -> None:
    says = [f"kpdata: {coco.parent}: is a folder: give the annotation file"]
    refuses("convert", format_name, coco.parent, says=says)


@pytest.mark.parametrize("format_name", ["coco", "lsp", "lspet", "json", "shards"])
def test_annotations_that_do_not_exist_are_named(
    tmp_path: Path, refuses: Refuses, format_name: str
) -> None:
    refuses("convert", format_name, tmp_path / "nothing", says=[f"kpdata: {tmp_path / 'nothing'}"])


def test_images_that_are_not_found_are_asked_for(coco: Path, refuses: Refuses) -> None:
    (coco.parent / "images").rename(coco.parent / "pictures")
    refuses("convert", "coco", coco, says=[f"kpdata: {coco}", "give --images"])
    says = ["nowhere: no such folder: give --images, the folder of the images"]
    refuses("convert", "coco", coco, "--images", coco.parent / "nowhere", says=says)


# --- MATLAB files ---------------------------------------------------------------------------------


@pytest.fixture
def lsp(tmp_path: Path) -> Path:
    """A folder for a joints.mat, with an images folder beside it."""
    (tmp_path / "lsp/images").mkdir(parents=True)
    return tmp_path / "lsp/joints.mat"


JOINTS = np.ones((3, 14, 5))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"joints": np.ones((3, 13, 5))}, "joints has shape (3, 13, 5), lsp's is (3, 14, N)"),
        ({"joints": np.ones((14, 3, 5))}, "this is lspet's, read it as lspet"),
        ({"joints": np.ones((3, 14, 5, 2))}, "joints has shape (3, 14, 5, 2)"),
        ({"joints": "text"}, "expected an array of numbers"),
        ({"points": JOINTS}, "has no variable 'joints', it holds 'points'"),
        ({}, "has no variable 'joints', it holds nothing"),
    ],
    ids=["wrong shape", "the other format", "four axes", "text", "missing key", "nothing in it"],
)
def test_a_matlab_file_of_something_else_is_named(
    lsp: Path, refuses: Refuses, content: dict[str, Any], says: str
) -> None:
    savemat(lsp, content)
    refuses("convert", "lsp", lsp, says=[f"kpdata: {lsp}: ", says])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: data[: len(data) // 2], "not a MATLAB file, or a damaged one"),
        (lambda data: data[:150], "damaged one"),
        (lambda data: np.random.default_rng(0).bytes(3000), "not a MATLAB file"),
        (lambda data: b"", "is empty"),
        (lambda data: b"\x89HDF\r\n\x1a\n" + bytes(500), "v7.3 (HDF5) file: resave it"),
        (lambda data: data[:-400] + bytes(range(200)) * 2, "damaged one"),
    ],
    ids=["half", "hardly more than a header", "random bytes", "empty", "HDF5", "a damaged end"],
)
def test_a_damaged_matlab_file_is_named(
    lsp: Path, refuses: Refuses, spoil: Callable[[bytes], bytes], says: str
) -> None:
    numbers = np.random.default_rng(1).random((3, 14, 50))
    savemat(lsp, {"joints": numbers}, do_compression=True)
    lsp.write_bytes(spoil(lsp.read_bytes()))
    refuses("convert", "lsp", lsp, says=[f"kpdata: {lsp}: ", says])


# --- what is wrong with a COCO file as a whole ----------------------------------------------------


def _several(content: dict[str, Any]) -> None:
    content["categories"].append({"id": 2, "name": "dog", "keypoints": ["nose"]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            lambda c: c["images"][4].update(id=2),
            ["$.images[4].id: 2 is also the id of $.images[1]", "must differ"],
            id="duplicate image ids",
        ),
        pytest.param(lambda c: c.pop("categories"), ["categories"], id="no categories"),
        pytest.param(
            lambda c: c["categories"].clear(), ["no category has keypoints"], id="no category"
        ),
        pytest.param(
            lambda c: c["categories"][0].pop("keypoints"),
            ["does not name its keypoints, of which an annotation holds 17: give --skeleton"],
            id="no keypoints in the category",
        ),
        pytest.param(_several, ["give --category: 'person', 'dog'"], id="several categories"),
        pytest.param(
            lambda c: c["images"][2].pop("file_name"), ["$.images[2]", "file_name"], id="no name"
        ),
        pytest.param(
            lambda c: c["images"][2].update(width="wide"),
            ["$.images[2].width"],
            id="a width of text",
        ),
        pytest.param(
            lambda c: c["categories"][0].update(keypoints=["a", "a"], skeleton=[]),
            ["$.categories[0]", "the name 'a' is given twice"],
            id="a keypoint's name twice",
        ),
        pytest.param(
            lambda c: (c["images"].clear(), c["annotations"].clear()),
            ["holds no sample to write"],
            id="no images",
        ),
    ],
)
def test_a_fault_of_the_whole_file_is_named_by_its_json_path(
    coco: Path, refuses: Refuses, change: Edit, says: list[str]
) -> None:
    edit(coco, change)
    refuses("convert", "coco", coco, says=[f"kpdata: {coco}", *says])


def test_a_category_that_does_not_exist_lists_those_that_do(coco: Path, refuses: Refuses) -> None:
    edit(coco, _several)
    says = ["no category 'cat' with keypoints; there is 'person', 'dog'"]
    refuses("convert", "coco", coco, "--category", "cat", says=says)


# --- what is wrong with one sample ----------------------------------------------------------------


def _keypoint(place: int, value: object) -> Edit:
    return lambda c: c["annotations"][2]["keypoints"].__setitem__(place, value)


BAD_SAMPLES = {
    "a keypoint list of the wrong length": (
        lambda c: c["annotations"][2]["keypoints"].pop(),
        "bad keypoints",
        "$.annotations[2].keypoints holds 50 numbers: expected 51",
    ),
    "a keypoint that is infinite": (_keypoint(0, 1e300), "bad keypoints", "is 1e+300: expected"),
    "a keypoint that is not a number": (
        _keypoint(0, float("nan")),
        "bad keypoints",
        "$.annotations[2].keypoints[0] is nan: expected a finite number",
    ),
    "v = 7": (
        _keypoint(2, 7),
        "bad keypoints",
        "$.annotations[2].keypoints[2] is 7: expected v of 0, 1 or 2",
    ),
    "a box of three numbers": (
        lambda c: c["annotations"][2]["bbox"].pop(),
        "bad box",
        "$.annotations[2].bbox holds 3 numbers",
    ),
    "a box of negative width": (
        lambda c: c["annotations"][2]["bbox"].__setitem__(2, -4),
        "bad box",
        "$.annotations[2].bbox is",
    ),
    "a negative area": (
        lambda c: c["annotations"][2].update(area=-1),
        "bad area",
        "$.annotations[2].area is -1",
    ),
}


@pytest.mark.parametrize("name", list(BAD_SAMPLES))
def test_a_bad_annotation_costs_one_sample_or_names_it(
    coco: Path, refuses: Refuses, kpdata: Kpdata, tmp_path: Path, name: str
) -> None:
    change, reason, detail = BAD_SAMPLES[name]
    edit(coco, change)
    says = [
        "1 of 12 samples are bad",
        f"1 × {reason}",
        str(coco),
        detail,
        "a larger --max-quarantine",
    ]
    refuses("convert", "coco", coco, says=says)
    _check_quarantine(kpdata, coco, tmp_path / "out", "2", reason, detail)


def _check_quarantine(
    kpdata: Kpdata, coco: Path, out: Path, key: str, reason: str, detail: str, *options: object
) -> None:
    result = kpdata(
        "convert", "coco", coco, "--out", out, "--max-quarantine", 10, "--json", *options
    )
    assert result.code == 0
    assert result.json["quarantine"] == {reason: 1}
    assert sum(split["samples"] for split in result.json["splits"].values()) == 11
    (line,) = [json.loads(line) for line in (out / "quarantine.jsonl").open()]
    assert (line["key"], line["reason"]) == (key, reason)
    assert detail in line["detail"]
    assert kpdata("verify", out).code == 0


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _jpeg_bomb(whole: bytes) -> bytes:
    """The JPEG with a size of 65,500 × 65,500 in its header."""
    place = next(i for i in range(len(whole)) if whole[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return whole[: place + 5] + struct.pack(">HH", 65500, 65500) + whole[place + 9 :]


BAD_IMAGES: dict[str, tuple[Callable[[bytes], bytes | None], str, str]] = {
    "missing": (lambda whole: None, "image missing", "No such file"),
    "cut": (lambda whole: whole[: len(whole) // 2], "image cut short", "the end marker is missing"),
    "cut in its header": (lambda whole: whole[:12], "image cut short", "cut short"),
    "zero bytes": (lambda whole: b"", "image empty", "has no bytes"),
    "text": (lambda whole: b"hello, I am no picture", "not an image", "begins with b'hello, I'"),
    "a web page": (lambda whole: b"<!DOCTYPE html>", "not an image", "begins with"),
    "a decompression bomb in PNG": (
        lambda whole: png(60_000, 60_000),
        "image too large",
        "60000 × 60000 pixels, over the limit of 100,000,000",
    ),
    "a decompression bomb in JPEG": (_jpeg_bomb, "image too large", "65500 × 65500 pixels"),
    "no pixels": (lambda whole: png(0, 5), "not an image", "0 × 5"),
    "another size": (lambda whole: png(64, 47), "size mismatch", "64 × 48: was it resized"),
}


@pytest.mark.parametrize("name", list(BAD_IMAGES))
@pytest.mark.parametrize("crop", [(), ("--crop", 32)], ids=["whole", "crop"])
def test_a_bad_image_costs_one_sample_or_names_it(
    coco: Path,
    refuses: Refuses,
    kpdata: Kpdata,
    tmp_path: Path,
    name: str,
    crop: tuple[object, ...],
) -> None:
    spoil, reason, detail = BAD_IMAGES[name]
    image = coco.parent / "images/000003.jpg"
    spoiled = spoil(image.read_bytes())
    image.unlink()
    if spoiled is not None:
        image.write_bytes(spoiled)
    says = [
        "1 of 12 samples are bad",
        f"1 × {reason}",
        "000003.jpg",
        detail,
        "a larger --max-quarantine",
    ]
    refuses("convert", "coco", coco, *crop, says=says, begun=True)
    _check_quarantine(kpdata, coco, tmp_path / "out", "3", reason, detail, *crop)


def test_a_pixel_limit_can_be_set(coco: Path, refuses: Refuses) -> None:
    says = ["12 of 12 samples are bad", "over the limit of 3,000"]
    refuses("convert", "coco", coco, "--max-pixels", 3000, says=says, begun=True)


def test_a_damaged_jpeg_is_caught_where_pixels_are_checked(
    coco: Path, refuses: Refuses, kpdata: Kpdata, tmp_path: Path
) -> None:
    image = coco.parent / "images/000003.jpg"
    whole = image.read_bytes()
    middle = len(whole) * 3 // 4
    image.write_bytes(whole[:middle] + b"\xff" * 40 + whole[middle + 40 :])
    says = ["1 × image does not decode", "000003.jpg"]
    refuses("convert", "coco", coco, "--validate-images", "decode", says=says, begun=True)
    assert kpdata("convert", "coco", coco, "--out", tmp_path / "out").code == 0


UNSAFE = {
    "absolute": lambda secret: str(secret),
    "through ..": lambda secret: f"../../{secret.name}",
    "through .. inside": lambda secret: f"a/../../../{secret.name}",
    "a symlink": lambda secret: "link.jpg",
    "a symlinked folder": lambda secret: f"folder/{secret.name}",
}


@pytest.mark.parametrize("name", list(UNSAFE))
@pytest.mark.parametrize("target", ["shards", "coco"])
def test_a_path_never_leads_out_of_the_images_folder(
    coco: Path, refuses: Refuses, tmp_path: Path, name: str, target: str
) -> None:
    secret = tmp_path / "secret.jpg"
    shutil.copy(coco.parent / "images/000001.jpg", secret)
    (coco.parent / "images/link.jpg").symlink_to(secret)
    (coco.parent / "images/folder").symlink_to(tmp_path)
    unsafe = UNSAFE[name](secret)
    edit(coco, lambda c: c["images"][0].update(file_name=unsafe))
    says = ["1 × unsafe path", repr(unsafe), "leads out of the images folder"]
    refuses("convert", "coco", coco, "--to", target, says=says)


def test_a_path_that_leads_out_is_quarantined_by_name(
    coco: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    edit(coco, lambda c: c["images"][0].update(file_name="../../etc/passwd"))
    detail = "'../../etc/passwd' leads out of the images folder"
    _check_quarantine(kpdata, coco, tmp_path / "out", "1", "unsafe path", detail)


def test_a_name_that_is_not_utf_8_costs_one_sample(
    coco: Path, refuses: Refuses, kpdata: Kpdata, tmp_path: Path
) -> None:
    (tmp_path / "labels").mkdir()
    label = json.dumps([{"box": [1, 1, 5, 5], "keypoints": [[1, 2, 2]]}])
    (tmp_path / "bow.json").write_text('{"name": "boat", "keypoints": ["bow"]}')
    try:
        (tmp_path / "labels" / os.fsdecode(b"a\xff.json")).write_text(label)
    except OSError as error:
        pytest.skip(f"this file system takes no such name: {error}")
    shutil.copy(coco.parent / "images/000001.jpg", tmp_path / "labels" / os.fsdecode(b"a\xff.jpg"))
    options = ("--images", tmp_path / "labels", "--skeleton", tmp_path / "bow.json")
    says = ["no sample is usable (1 × name not UTF-8)", r"a\udcff.jpg: rename that file"]
    refuses("convert", "json", tmp_path / "labels", *options, says=says)
    (tmp_path / "labels/b.json").write_text(label)
    shutil.copy(coco.parent / "images/000001.jpg", tmp_path / "labels/b.jpg")
    arguments = ("convert", "json", tmp_path / "labels", *options, "--max-quarantine", 50)
    result = kpdata(*arguments, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert result.json["quarantine"] == {"name not UTF-8": 1}
    assert kpdata("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize("target", ["shards", "coco"])
@pytest.mark.parametrize("place", ["labels", "labels/out", "images/out", "link/out"])
def test_an_output_inside_folders_that_are_read_whole_is_refused(
    coco: Path, kpdata: Kpdata, tmp_path: Path, place: str, target: str
) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "labels")
    (tmp_path / "labels/000001.json").write_text('{"bow": [1, 2]}')
    shutil.copytree(coco.parent / "images", tmp_path / "images")
    before = sorted(tmp_path.rglob("*"))
    arguments = ("convert", "json", tmp_path / "labels", "--to", target)
    result = kpdata(*arguments, "--out", tmp_path / place)
    assert result.code == 1
    assert f"--out is {tmp_path / place}, which lies in {tmp_path}" in result.err
    assert "choose another --out" in result.err
    assert sorted(tmp_path.rglob("*")) == before
    assert kpdata(*arguments, "--out", tmp_path / "labels-out").code == 0


# --- shards as a source ---------------------------------------------------------------------------


def test_a_folder_that_is_no_dataset_says_how_one_is_finished(
    tmp_path: Path, refuses: Refuses
) -> None:
    says = [f"kpdata: {tmp_path} is not a dataset: it has no kpdata.json", "the same command again"]
    refuses("convert", "shards", tmp_path, says=says)


def test_a_damaged_shard_is_named_with_its_record(
    tiny_shards: Path, refuses: Refuses, tmp_path: Path
) -> None:
    shutil.copytree(tiny_shards, tmp_path / "shards")
    shard = sorted((tmp_path / "shards").glob("train-*"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    refuses("convert", "shards", tmp_path / "shards", says=[f"kpdata: {shard}: record "])
    shard.unlink()
    refuses("convert", "shards", tmp_path / "shards", says=[f"{shard} is missing"])


# --- where it is to be written --------------------------------------------------------------------


def test_a_folder_of_another_dataset_is_refused_and_left_alone(
    coco: Path, kpdata: Kpdata, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert kpdata("convert", "coco", coco, "--out", out).code == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    for change in (["--seed", 1], ["--crop", 32], ["--to-skeleton", "lsp14"], ["--to", "coco"]):
        result = kpdata("convert", "coco", coco, "--out", out, *change)
        assert result.code == 1
        assert f"kpdata: {out}" in result.err
        assert "already" in result.err
        assert "Traceback" not in result.err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("target", ["shards", "coco"])
def test_a_file_and_a_folder_of_something_else_are_refused(
    coco: Path, kpdata: Kpdata, tmp_path: Path, target: str
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/precious").touch()
    for out in (tmp_path / "file", tmp_path / "folder"):
        result = kpdata("convert", "coco", coco, "--to", target, "--out", out)
        assert result.code == 1
        assert str(out) in result.err
        assert "Traceback" not in result.err
    assert (tmp_path / "file").read_text() == "precious"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["precious"]


def test_a_folder_below_a_file_is_refused(coco: Path, kpdata: Kpdata, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = kpdata("convert", "coco", coco, "--out", tmp_path / "file/out")
    assert result.code == 1
    assert "Not a directory" in result.err
    assert "Traceback" not in result.err


def test_a_full_disk_ends_in_a_message(
    coco: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: tfrecord.Writer, pieces: list[bytes]) -> None:
        if writer.path.suffix == ".tfrecord":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writer._file.write(b"".join(pieces))
        writer._hash.update(b"".join(pieces))

    monkeypatch.setattr(tfrecord.Writer, "_put", full)
    says = ["kpdata: writing stopped: No space left on device", "run the same command again"]
    refuses("convert", "coco", coco, says=says)
