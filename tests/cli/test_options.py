"""Sizes, the order of arguments, and what the contact sheet says of a disk that refuses."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from kpdata.cli import convert
from kpdata.cli.options import SIZE
from kpdata.core.skeletons import COCO17
from kpdata.pipelines.request import Request
from kpdata.shards import fetch
from kpdata.view import draw

Kpdata = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("500K", 500_000), ("1.5m", 1_500_000), ("2GB", 2 * 10**9), ("1e6G", 10**15)],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert SIZE.convert(text, None, None) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inf", "'inf': expected at most a million G"),
        ("1e999", "'1e999': expected at most a million G"),
        ("1e7G", "'1e7G': expected at most a million G"),
        ("-inf", "'-inf': expected at least one byte"),
        ("0.5", "'0.5': expected at least one byte"),
        ("nan", "'nan': expected a size such as 500K, 128M or 2G"),
        ("1KM", "'1KM': expected a size such as 500K, 128M or 2G"),
        ("12T", "'12T': expected a size such as"),
        ("", "'': expected a size such as"),
    ],
)
def test_a_size_that_is_none_is_named_with_what_is_expected(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        SIZE.convert(text, None, None)
    assert caught.value.message.startswith(says)


def test_the_usual_size_of_a_shard_is_the_librarys() -> None:
    option = next(p for p in convert.command.params if p.name == "shard_size")
    assert SIZE.convert(option.default, None, None) == Request(skeleton=COCO17).shard_size


def test_arguments_in_the_wrong_order_are_told_the_right_one(
    kpdata: Kpdata, tiny_coco: Path
) -> None:
    result = kpdata("augment-preview", tiny_coco / "annotations.json", "coco")
    assert result.code == 1
    assert f"the format comes first: coco {tiny_coco / 'annotations.json'}" in result.err


def preview(kpdata: Kpdata, annotations: Path, out: Path) -> str:
    result = kpdata("augment-preview", "coco", annotations, "--rows", 1, "--out", out)
    assert result.code == 1
    assert result.out == ""
    assert "Traceback" not in result.err
    return str(result.err)


def test_a_contact_sheet_that_cannot_be_written_says_where_and_what_to_do(
    kpdata: Kpdata, tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = tiny_coco / "annotations.json"
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for out in (tmp_path / "file/sheet.png", tmp_path / "folder.png"):
        message = preview(kpdata, annotations, out)
        assert message.startswith(f"kpdata: {out}: cannot be written: ")
        assert message.endswith(": choose another place\n")

    def full(path: Path, pixels: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(draw, "write_png", full)
    message = preview(kpdata, annotations, tmp_path / "sheet.png")
    assert f"{tmp_path / 'sheet.png'}: cannot be written: No space left on device" in message


def test_the_preview_draws_five_copies_unless_told_and_refuses_idle_options(
    kpdata: Kpdata, tiny_coco: Path, tmp_path: Path
) -> None:
    assert "[default: 5;" in " ".join(kpdata("augment-preview", "--help").out.split())
    arguments = ("augment-preview", "coco", tiny_coco / "annotations.json", "--rows", 1)
    out = ("--out", tmp_path / "sheet.png")
    assert f"{tmp_path / 'sheet.png'}: 6 pictures" in kpdata(*arguments, *out).out
    config = tmp_path / "mild.toml"
    config.write_text("flip = 0\n")
    assert kpdata(*arguments, *out, "--augment-config", config).code == 0
    for options, says in (
        (["--augment", 0], "'--augment': 0 is not in the range 1<=x<=1000"),
        (["--margin", 2], "--margin changes nothing without --crop"),
        (["--crop-from", "image"], "--crop-from changes nothing without --crop"),
    ):
        result = kpdata(*arguments, *out, *options)
        assert result.code != 0
        assert says in result.err


def test_an_image_that_a_disk_refuses_is_named_with_what_to_do(
    kpdata: Kpdata, tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fetch, "fetch", fail)
    message = preview(kpdata, tiny_coco / "annotations.json", tmp_path / "sheet.png")
    image = tiny_coco / "images/000001.jpg"
    assert f"{image}: cannot be read: Input/output error: check its disk" in message
    assert not (tmp_path / "sheet.png").exists()
