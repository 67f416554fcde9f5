"""Shards from a stranger: whatever is wrong with them, every reader names the file, and ends."""

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from PIL import Image, ImageOps

import kpdata
from kpdata import formats
from kpdata.checks import verify
from kpdata.core.crop import CropRule
from kpdata.core.errors import DatasetError, ImageError, KpdataError
from kpdata.images import codec
from kpdata.images.headers import probe
from kpdata.shards import records, tfrecord
from kpdata.shards.dataset import Dataset, read_record
from kpdata.shards.protobuf_bytes import varint
from kpdata.shards.wire.example_pb2 import Example
from kpdata.train.data.crops import load

Forge = Callable[[list[bytes]], list[bytes]]


def pixels(folder: Path) -> None:
    for sample in kpdata.open(folder)["train"]:
        codec.decode_stored(sample.image)


def convert(folder: Path) -> None:
    for _ in formats.read("shards", folder).samples:
        pass


def learn(folder: Path) -> None:
    load(Dataset.open(folder), "train", CropRule("keypoints"), 16, copies=True)


def check(folder: Path) -> None:
    faults = verify.verify(folder)[1]
    if faults:
        raise KpdataError("\n".join(faults))


READERS = {"open": pixels, "convert": convert, "train": learn, "verify": check}


def first_shard(folder: Path) -> Path:
    return Dataset.open(folder).shard_path(Dataset.open(folder)["train"].shards[0])


def rewrite(path: Path, forge: Forge) -> None:
    payloads = [payload for _, payload in tfrecord.read(path)]
    with tfrecord.Writer(path) as writer:
        for payload in forge(payloads):
            writer.write(payload)


def with_feature(name: str, *values: object) -> Forge:
    """Replace a feature of the second record, an original or a copy with instances."""

    def forge(payloads: list[bytes]) -> list[bytes]:
        example = Example.FromString(payloads[1])
        feature = example.features.feature[name]
        kind = feature.WhichOneof("kind")
        old = list(getattr(feature, kind).value)
        new = values if len(values) == len(old) else list(values) * len(old)
        getattr(feature, kind).value[:] = new
        return [payloads[0], example.SerializeToString(), *payloads[2:]]

    return forge


def without_a_keypoint(payloads: list[bytes]) -> list[bytes]:
    example = Example.FromString(payloads[1])
    for axis in ("x", "y"):
        del example.features.feature[f"image/object/keypoint/{axis}"].float_list.value[-1]
    del example.features.feature["image/object/keypoint/visibility"].int64_list.value[-1]
    return [payloads[0], example.SerializeToString(), *payloads[2:]]


def picture(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds next to nothing."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "png")
    data = out.getvalue()
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def bomb(payloads: list[bytes]) -> list[bytes]:
    example = Example.FromString(payloads[1])
    features = example.features.feature
    features["image/encoded"].bytes_list.value[:] = [picture(60_000, 60_000)]
    features["image/format"].bytes_list.value[:] = [b"png"]
    for name in ("image/width", "image/height"):
        features[name].int64_list.value[:] = [60_000]
    return [payloads[0], example.SerializeToString(), *payloads[2:]]


FORGED = {
    "a giant image declared": with_feature("image/width", 10**9),
    "sides beyond any format": with_feature("image/height", 2**62),
    "no width": with_feature("image/width", 0),
    "another size": with_feature("image/width", 63),
    "NaN": with_feature("image/object/keypoint/x", float("nan")),
    "infinity": with_feature("image/object/bbox/xmax", float("inf")),
    "a visibility of 3": with_feature("image/object/keypoint/visibility", 3),
    "labelled keypoints miscounted": with_feature("image/object/keypoint/num", 1),
    "a crowd of 7": with_feature("image/object/is_crowd", 7),
    "a flat transform": with_feature("kpdata/transform", 0.0),
    "no source": with_feature("kpdata/source/width", 0),
    "a negative copy": with_feature("kpdata/copy", -1),
    "an instance before the first": with_feature("kpdata/instance", -2),
    "another format": with_feature("image/format", b"tiff"),
    "wrong K": without_a_keypoint,
    "no Example": lambda payloads: [payloads[0], b"\x0a\xff\xff\xff\xff\x0f", *payloads[2:]],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", FORGED)
def test_a_forged_record_is_named_though_every_checksum_fits(shards, reseal, what, reader):
    if what in ("a giant image declared", "another size") and reader == "convert":
        pytest.skip("the conversion compares sizes when it opens the image, as with any source")
    path = first_shard(shards)
    rewrite(path, FORGED[what])
    reseal(shards)
    with pytest.raises(KpdataError) as error:
        READERS[reader](shards)
    message = str(error.value)
    by_size = what in ("a giant image declared", "another size") and reader == "open"
    assert by_size or f"{path}: record" in message
    assert "0000" in message


@pytest.mark.parametrize("reader", ["open", "train"])
def test_a_bomb_in_a_shard_is_not_decoded(shards, reseal, reader):
    rewrite(first_shard(shards), bomb)
    reseal(shards)
    with pytest.raises(ImageError, match="60000 × 60000 pixels, over the limit of 100,000,000"):
        READERS[reader](shards)


def swapped(folder: Path) -> Path:
    one, other = (folder / shard.name for shard in Dataset.open(folder)["train"].shards)
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    return one


def exchanged(folder: Path) -> Path:
    """The first records of two shards change places: their checksums do not depend on the place."""
    paths = [folder / shard.name for shard in Dataset.open(folder)["train"].shards]
    firsts = [next(tfrecord.read(path))[1] for path in paths]
    for path, theirs in zip(paths, reversed(firsts), strict=True):
        rewrite(path, lambda payloads, theirs=theirs: [theirs, *payloads[1:]])
    return paths[0]


def cut_behind_a_record(folder: Path) -> Path:
    path = first_shard(folder)
    rewrite(path, lambda payloads: payloads[:-1])
    return path


def linked_elsewhere(folder: Path) -> Path:
    path = first_shard(folder)
    other = folder.with_name("elsewhere.tfrecord")
    shutil.copy(folder / Dataset.open(folder)["train"].shards[1].name, other)
    path.unlink()
    path.symlink_to(other)
    return path


def grown(folder: Path) -> Path:
    path = first_shard(folder)
    rewrite(path, lambda payloads: [*payloads, payloads[0]])
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "change", [swapped, exchanged, cut_behind_a_record, linked_elsewhere, grown]
)
def test_whole_records_in_the_wrong_place_are_never_taken_in_silence(shards, change, reader):
    path = change(shards)
    with pytest.raises(KpdataError, match=f"{path}"):
        READERS[reader](shards)


@pytest.mark.parametrize("reader", READERS)
def test_a_link_to_the_very_file_is_as_good_as_the_file(shards, reader):
    path = first_shard(shards)
    path.rename(shards.with_name("kept.tfrecord"))
    path.symlink_to(shards.with_name("kept.tfrecord"))
    READERS[reader](shards)


@pytest.mark.parametrize("target", ["/dev/zero", "pipe", "nowhere", "."])
def test_a_link_to_what_is_no_file_is_not_followed(shards, tmp_path, target):
    path = first_shard(shards)
    path.unlink()
    if target == "pipe":
        target = str(tmp_path / "pipe")
        os.mkfifo(target)
    path.symlink_to(target)
    for reader in READERS.values():
        with pytest.raises(KpdataError, match=f"{path} is missing"):
            reader(shards)


def test_an_edited_manifest_is_refused_before_a_shard_is_opened(shards):
    text = (shards / "kpdata.json").read_text()
    (shards / "kpdata.json").write_text(text.replace("left_hip", "left_hop"))
    for reader in (pixels, convert, learn):
        with pytest.raises(DatasetError, match="the manifest was changed: see `kpdata verify"):
            reader(shards)


def test_a_huge_sparse_record_is_refused_by_its_length(tmp_path):
    path = tmp_path / "a.tfrecord"
    header = struct.pack("<Q", 1 << 30)
    crc = google_crc32c.value(header)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    with open(path, "wb") as file:
        file.write(header + struct.pack("<I", masked))
        file.truncate(1 << 31)
    with pytest.raises(DatasetError, match=r"claims 1,073,741,824 bytes: at most 335,544,320"):
        list(tfrecord.read(path))


def test_what_no_reader_would_take_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "MAX_RECORD_BYTES", 10)

    def write() -> None:
        with tfrecord.Writer(tmp_path / "a.tfrecord") as writer:
            writer.write(b"x" * 10)
            writer.write(b"x" * 5, b"x" * 6)

    with pytest.raises(DatasetError, match="record 1 of 11 bytes: at most 10"):
        write()
    assert not (tmp_path / "a.tfrecord").exists()


def field(body: bytes) -> bytes:
    return b"\x0a" + varint(len(body)) + body


def test_a_record_of_millions_of_tiny_values_is_refused_unparsed():
    """Parsed, they would take ten times the memory; an image of that size is a single value."""
    tiny = b"\x0a\x00" * (records.MAX_BESIDE_IMAGE // 2 + 10)
    entry = field(b"image/encoded") + b"\x12" + varint(len(field(tiny))) + field(tiny)
    with pytest.raises(DatasetError, match=r"not a tf\.train\.Example with an image"):
        records.decode(field(field(entry)), 3)
    many = field(b"\x0a\x00" * (records.MAX_BESIDE_IMAGE // 2 + 10))
    with pytest.raises(DatasetError, match=r"not a tf\.train\.Example"):
        records.decode(many, 3)


def test_a_large_image_is_told_from_large_labels(tiny_shards):
    sample = next(iter(Dataset.open(tiny_shards)["train"]))
    large = sample.image.data + bytes(records.MAX_BESIDE_IMAGE)
    example = Example.FromString(records.encode(sample))
    example.features.feature["image/encoded"].bytes_list.value[0] = large
    assert records.decode(example.SerializeToString(), 17).image.data == large
    example.features.feature["more"].bytes_list.value[:] = [bytes(records.MAX_BESIDE_IMAGE + 1)]
    with pytest.raises(DatasetError, match="bytes beside the image: at most 16,777,216"):
        records.decode(example.SerializeToString(), 17)


def test_too_many_instances_are_refused_before_they_are_made(tiny_shards):
    sample = next(iter(Dataset.open(tiny_shards)["train"]))
    example = Example.FromString(records.encode(sample))
    labels = example.features.feature["image/object/class/label"].int64_list.value
    labels[:] = [1] * (records.MAX_INSTANCES + 1)
    with pytest.raises(DatasetError, match="10,001 instances: at most 10,000 fit one record"):
        records.decode(example.SerializeToString(), 17)


def test_a_damaged_record_read_by_its_place_is_named(shards):
    dataset = Dataset.open(shards)
    path = first_shard(shards)
    rewrite(path, with_feature("image/width", 0))
    offsets = [offset for offset, _ in tfrecord.read(path)]
    uri = dataset.record_uri(dataset["train"].shards[0], offsets[1])
    with pytest.raises(DatasetError, match=f"{path}: record at byte {offsets[1]}: image/width"):
        read_record(uri)


def kinds() -> list[tuple[str, bytes]]:
    made = []
    for kind in ("webp", "bmp", "tiff", "gif", "ppm"):
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, kind)
        made.append((kind, out.getvalue()))
    return made


@pytest.mark.parametrize(("kind", "data"), kinds())
def test_only_a_jpeg_or_png_is_decoded_out_of_a_record(kind, data):
    """OpenCV would decode a dozen formats, each a parser more to attack."""
    with pytest.raises(ImageError, match="neither a JPEG nor a PNG"):
        codec.decode(data)


def test_orientation_and_bands_agree_with_pillow(monkeypatch):
    """LabelledCrops are converted a few rows at a time, and turned at the end."""
    monkeypatch.setattr(codec, "_BAND_PIXELS", 40)
    rgb = np.random.default_rng(0).integers(0, 256, (11, 7, 3), np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, "png", exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue()))))
        seen = codec.decode_upright(out.getvalue(), probe(out.getvalue()))
        np.testing.assert_array_equal(seen, expected)
