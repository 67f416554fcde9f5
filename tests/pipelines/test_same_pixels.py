"""Pictures with the same pixels in other bytes are one picture: to the audit, and to the split."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

import kpdata
from kpdata.checks.audit import audit
from kpdata.checks.certificate import IDENTICAL
from kpdata.core.sample import ImageRef, Instance, Pixels, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats.base import Source
from kpdata.images.perceptual import fingerprint
from kpdata.pipelines.plan.file import read_plan
from kpdata.pipelines.plan.make import make_plan
from kpdata.pipelines.request import Request

ORIENTATION, DESCRIPTION = 0x0112, 0x010E
SKELETON = Skeleton("dot", ("dot",))


def photo(seed: int, width: int = 80, height: int = 60, channels: int = 3) -> Pixels:
    noise = np.random.default_rng(seed).normal(110, 60, (6, 8, channels))
    grown = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(grown, 0, 255).astype(np.uint8)


def saved(pixels: Pixels, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_, **options)
    return buffer.getvalue()


def png(pixels: Pixels, text: str = "") -> bytes:
    """A PNG; one with a text is packed in another way, too."""
    info = PngInfo()
    if text:
        info.add_text("Comment", text)
    return saved(pixels, "PNG", pnginfo=info, compress_level=9 if text else 1)


def turned(pixels: Pixels, text: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION] = 6, text
    return saved(pixels, "JPEG", exif=exif)


def deep(pixels: Pixels, level: int) -> bytes:
    done, data = cv2.imencode(
        ".png", pixels.astype(np.uint16) * 257, [cv2.IMWRITE_PNG_COMPRESSION, level]
    )
    assert done
    return data.tobytes()


def decoded(data: bytes) -> Pixels:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


GREY = [photo(seed, channels=1) for seed in range(5)]
LARGE = saved(photo(20, 560, 420), "JPEG")
FAINT = saved(
    np.random.default_rng(0).integers(124, 133, (400, 400, 3), np.uint8), "JPEG", quality=95
)
ONE_COLOUR = np.full((50, 50, 3), 200, np.uint8)
PAIRS: dict[str, tuple[bytes, bytes]] = {
    "a grey PNG with other metadata": (png(GREY[0]), png(GREY[0], "x")),
    "a grey JPEG with a comment": (
        saved(GREY[1], "JPEG"), saved(GREY[1], "JPEG", comment=b"hello")
    ),
    "a JPEG that EXIF turns, with another tag": (turned(photo(7), "x"), turned(photo(7), "yyy")),
    "a GIF and a BMP": (saved(GREY[3], "GIF"), saved(GREY[3], "BMP")),
    "a PNG of 16 bits, packed anew": (deep(GREY[4], 1), deep(GREY[4], 9)),
    "one colour": (png(ONE_COLOUR), png(ONE_COLOUR, "x")),
    "one pixel": (png(photo(8)[:1, :1]), png(photo(8)[:1, :1], "x")),
    "a PNG in colour with other metadata": (png(photo(9)), png(photo(9), "x")),
    "a JPEG in colour with a comment": (
        saved(photo(10), "JPEG"), saved(photo(10), "JPEG", comment=b"x")
    ),
    "a progressive JPEG": (
        saved(photo(11), "JPEG"), saved(photo(11), "JPEG", progressive=True)
    ),
    "a WebP and a PNG": (saved(photo(12), "WEBP", lossless=True), png(photo(12))),
    "a large JPEG and its PNG": (LARGE, png(decoded(LARGE))),
    "a faint JPEG and its PNG": (FAINT, png(decoded(FAINT))),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_equal_pixels_have_one_fingerprint(pair: tuple[bytes, bytes]) -> None:
    first, second = map(fingerprint, pair)
    assert pair[0] != pair[1]
    assert first.pixels == second.pixels


def test_looks_alone_would_miss_some() -> None:
    """Or the tests of distance 0 below would show nothing."""
    for name in ("a large JPEG and its PNG", "a faint JPEG and its PNG"):
        first, second = map(fingerprint, PAIRS[name])
        assert (first.looks != second.looks).any()


def test_other_pixels_have_another_fingerprint() -> None:
    pictures = [photo(1), photo(1)[::-1], photo(1)[:, ::-1], photo(1).reshape(80, 60, 3)]
    pictures += [np.full((4, 6, 3), level, np.uint8) for level in (0, 1, 255)]
    pictures += [np.zeros((6, 4, 3), np.uint8), np.zeros((1, 24, 3), np.uint8)]
    found = {fingerprint(png(np.ascontiguousarray(one))).pixels for one in pictures}
    assert len(found) == len(pictures)


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """Two datasets, ``0`` and ``1``: the one and the other picture of each pair."""
    for half in (0, 1):
        folder = tmp_path / str(half)
        (folder / "images").mkdir(parents=True)
        for number, pair in enumerate(PAIRS.values()):
            (folder / "images" / f"{number}-{half}").write_bytes(pair[half])
        numbers = range(len(PAIRS))
        label = {"category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "keypoints": [0, 0, 2]}
        content = {
            "images": [{"id": n, "file_name": f"{n}-{half}"} for n in numbers],
            "annotations": [{"id": n, "image_id": n} | label for n in numbers],
            "categories": [{"id": 1, "name": "dot", "keypoints": ["dot"]}],
        }
        (folder / "a.json").write_text(json.dumps(content))
    return tmp_path


def test_an_audit_finds_them_identical_whatever_the_distance(halves: Path) -> None:
    folders = [
        kpdata.convert(
            halves / str(half) / "a.json", halves / split, split=f"{split}=100", progress=False
        ).location
        for half, split in enumerate(("train", "test"))
    ]
    found = audit(folders, distance=0)
    pairs = {
        (leak.first.file.partition("-")[0], leak.second.file.partition("-")[0]): leak.kind
        for leak in found.leaks
        if leak.kind == IDENTICAL
    }
    assert pairs == {(str(n), str(n)): IDENTICAL for n in range(len(PAIRS))}


def test_near_duplicates_join_them_whatever_the_distance(halves: Path, tmp_path: Path) -> None:
    dot = Instance(np.array([[0, 0, 2]], np.float32))
    names = [f"{half}/images/{n}-{half}" for n in range(len(PAIRS)) for half in (0, 1)]
    samples = (Sample(name, ImageRef(name), (dot,)) for name in names)
    source = Source(SKELETON, samples, halves, (), Counter(), True)
    request = Request(
        skeleton=SKELETON, images_root=str(halves), split="50/25/25", group_near_duplicates=0
    )
    plan = make_plan(source, request, tmp_path / "plan")
    groups: dict[str, set[str]] = {}
    for shard in plan.shards:
        for sample, _ in read_plan(plan.folder / f"{shard.name}.plan")[1]:
            number = sample.key.rpartition("/")[2].partition("-")[0]
            groups.setdefault(number, set()).add(sample.split_group)
    assert {number: len(found) for number, found in groups.items()} == dict.fromkeys(groups, 1)
    assert len(groups) == len(PAIRS)
