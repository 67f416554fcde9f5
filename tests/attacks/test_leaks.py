"""One picture under two encodings never lies in two splits of a sealed dataset."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kpdata.checks.audit import audit
from kpdata.checks.certificate import IDENTICAL
from kpdata.checks.verify import verify
from kpdata.core.errors import JobError
from kpdata.core.progress import Progress
from kpdata.formats import read
from kpdata.formats.merged import merge
from kpdata.pipelines.conversion import Conversion, convert
from kpdata.pipelines.request import Request
from kpdata.pipelines.write.render import ONE_COLOUR

PAIRS = 30
BOX = (2, 2, 60, 60)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(number: int) -> Image.Image:
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC)


def png_text(text: str) -> PngInfo:
    info = PngInfo()
    info.add_text("Software", text)
    return info


def turned(software: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, software
    return exif.tobytes()


def grey_png(n: int) -> tuple[bytes, bytes]:
    grey = picture(n).convert("L")
    return saved(grey, "PNG"), saved(grey, "PNG", pnginfo=png_text("exported"))


def grey_jpeg(n: int) -> tuple[bytes, bytes]:
    grey = picture(n).convert("L")
    return saved(grey, "JPEG"), saved(grey, "JPEG", comment=b"copy")


def turned_jpeg(n: int) -> tuple[bytes, bytes]:
    return tuple(saved(picture(n), "JPEG", exif=turned(by)) for by in ("camera", "phone"))


def gif_and_bmp(n: int) -> tuple[bytes, bytes]:
    few = picture(n).quantize(64)
    return saved(few, "GIF"), saved(few.convert("RGB"), "BMP")


def jpeg_comment(n: int) -> tuple[bytes, bytes]:
    return saved(picture(n), "JPEG"), saved(picture(n), "JPEG", comment=b"copy")


def png_and_bmp(n: int) -> tuple[bytes, bytes]:
    return saved(picture(n), "PNG"), saved(picture(n), "BMP")


Maker = Callable[[int], tuple[bytes, bytes]]


def annotated(folder: Path, make: Maker, box: tuple[int, ...] = BOX) -> Path:
    """A COCO file with PAIRS pairs of images, each with one instance."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for pair in range(PAIRS):
        for half, data in zip("ab", make(pair), strict=True):
            number = len(images) + 1
            name = f"{half}{pair:03}.img"
            (folder / "images" / name).write_bytes(data)
            images.append({"id": number, "file_name": name})
            annotations.append({
                "id": number, "image_id": number, "category_id": 1, "bbox": box,
                "keypoints": [5, 6, 2, 20, 20, 2],
            })  # fmt: skip
    categories = [{"id": 1, "name": "t", "keypoints": ["a", "b"]}]
    path = folder / "a.json"
    value = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(value))
    return path


def converted(path: Path, out: Path, **options: object):
    source = read("coco", path)
    return convert(source, Request.of(source, format="coco", **options), out).manifest


def assert_sound(out: Path, records: int) -> None:
    manifest, faults = verify(out)
    assert faults == []
    assert sum(info.records for info in manifest.splits.values()) == records
    assert audit([out]).counts[IDENTICAL] == 0


@pytest.mark.parametrize(
    ("make", "crop"),
    [
        (grey_png, None),
        (grey_jpeg, None),
        (turned_jpeg, None),
        (gif_and_bmp, None),
        (jpeg_comment, 64),
        (png_and_bmp, 64),
        (turned_jpeg, 48),
    ],
)
def test_pictures_that_are_stored_as_the_same_bytes_share_a_split(tmp_path, make, crop):
    path = annotated(tmp_path / "in", make)
    manifest = converted(path, tmp_path / "out", crop=crop)
    assert_sound(tmp_path / "out", 2 * PAIRS)
    assert sum(n for what, n in manifest.counts.items() if what.startswith("groups joined")) > 0


def test_the_join_is_the_same_for_more_shards_workers_and_a_second_run(tmp_path):
    path = annotated(tmp_path / "in", grey_jpeg)
    first = converted(path, tmp_path / "one", shards=6, workers=1)
    second = converted(path, tmp_path / "two", shards=6, workers=2)
    assert first.root_hash == second.root_hash
    source = read("coco", path)
    again = convert(source, Request.of(source, format="coco", shards=6), tmp_path / "one")
    assert again.unchanged


def test_copies_are_made_of_the_joined_pictures_of_train_alone(tmp_path):
    path = annotated(tmp_path / "in", grey_jpeg)
    manifest = converted(path, tmp_path / "out", augment=2)
    train = manifest.splits["train"]
    assert_sound(tmp_path / "out", 2 * PAIRS + 2 * train.samples)


def test_of_official_splits_the_one_that_measures_keeps_the_picture(tmp_path):
    test = annotated(tmp_path / "test", lambda n: (grey_jpeg(n)[1],) * 2)
    mixed = annotated(
        tmp_path / "mixed", lambda n: (grey_jpeg(n)[0], saved(picture(n + 999), "JPEG"))
    )
    source = merge({"train": read("coco", mixed), "test": read("coco", test)})
    request = Request.of(source, format="coco", split="official")
    manifest = convert(source, request, tmp_path / "out").manifest
    assert manifest.quarantine == {"leaks into another split": PAIRS}
    assert manifest.splits["train"].samples == PAIRS
    assert_sound(tmp_path / "out", PAIRS + 2 * PAIRS)


def test_a_split_that_is_emptied_by_the_join_is_warned_of(tmp_path):
    train, test = (
        annotated(tmp_path / str(i), lambda n, i=i: (grey_jpeg(n)[i],) * 2) for i in (0, 1)
    )
    source = merge({"train": read("coco", train), "test": read("coco", test)})
    request = Request.of(source, format="coco", split="official", max_quarantine=100)
    progress, told = Progress(), []
    progress.warn = told.append
    outcome = convert(source, request, tmp_path / "out", progress)
    assert list(outcome.manifest.splits) == ["test"]
    assert told == list(outcome.warnings)
    assert "the source's official split has only test: nothing to test on" in told


def test_crops_of_one_colour_are_left_out_and_counted(tmp_path):
    def black_or_not(n: int) -> tuple[bytes, bytes]:
        return saved(Image.new("RGB", (80 + n, 64)), "JPEG"), saved(picture(n), "JPEG")

    manifest = converted(annotated(tmp_path / "in", black_or_not), tmp_path / "out", crop=64)
    assert manifest.counts[ONE_COLOUR] == PAIRS
    assert_sound(tmp_path / "out", PAIRS)


def test_a_dataset_of_nothing_is_an_error_that_says_why(tmp_path):
    path = annotated(tmp_path / "in", jpeg_comment, box=(5000, 5000, 60, 60))
    with pytest.raises(JobError, match=f"nothing to write into .*; {2 * PAIRS} {ONE_COLOUR}"):
        converted(path, tmp_path / "out", crop=64)


def test_black_frames_that_stay_whole_share_a_split(tmp_path):
    def black(n: int) -> tuple[bytes, bytes]:
        frame = Image.new("L", (64, 64))
        return saved(frame, "PNG", pnginfo=png_text(str(n))), saved(picture(n), "PNG")

    converted(annotated(tmp_path / "in", black), tmp_path / "out")
    assert_sound(tmp_path / "out", 2 * PAIRS)


def test_sealing_a_pipeline_of_ones_own_joins_them_too(tmp_path):
    source = read("coco", annotated(tmp_path / "in", grey_jpeg))
    request = Request.of(source, format="coco", shards=4)
    with Conversion.plan(source, request, tmp_path / "out") as conversion:
        for shard in conversion.shards:
            conversion.write_function()(shard)
        conversion.seal()
    assert_sound(tmp_path / "out", 2 * PAIRS)
