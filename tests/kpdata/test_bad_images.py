"""Images from strangers: cut, damaged, huge, missing, or named to lead out of their folder."""

import errno
import io
import os
import re
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpdata.core.errors import ImageError
from kpdata.images import codec
from kpdata.images.codec import decode, decode_upright
from kpdata.images.headers import probe
from kpdata.storage import image_files
from kpdata.storage.image_files import prefetch, read_file, safe_path, stamp

NOISE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
UNDECODABLE = "image does not decode"
SMALL = 1_000_000  # pixels: keeps what a fuzzed header may claim quick to decode


def saved(format: str, mode: str = "RGB", **options: object) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG whose header holds a whole smaller JPEG, end marker included."""
    data, thumbnail = saved("JPEG"), saved("JPEG", quality=5)
    segment = b"Exif\0\0II*\0\x08\0\0\0" + bytes(6) + thumbnail
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


WHOLE = {
    "jpeg": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True),
    "thumbnail": with_thumbnail(),
    "cmyk": saved("JPEG", mode="CMYK"),
    "png": saved("PNG"),
}
OTHER = {name: saved(name) for name in ("WEBP", "BMP", "TIFF", "GIF", "PPM")}
pytestmark = pytest.mark.filterwarnings("ignore:::PIL", "ignore:Image size:UserWarning")

every_whole_image = pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)


def read(data: bytes) -> None:
    """All that a conversion may do with an image's bytes."""
    header = probe(data, max_pixels=SMALL)
    decode_upright(data, header)
    if header.storable:
        decode(data)
        decode(data, 4)


@every_whole_image
def test_a_file_cut_anywhere_before_its_end_marker_is_refused_unread(data):
    assert probe(data).width == 24
    reasons = set()
    for cut in range(len(data)):
        with pytest.raises(ImageError) as caught:
            probe(data[:cut])
        reasons.add(caught.value.reason)
    assert reasons == {"not an image", "image cut short"}  # the first few bytes name no format


@every_whole_image
def test_bytes_behind_the_end_marker_do_not_matter(data):
    for tail in (b"\0", b"\xff", b"trailing", data):
        header = probe(data + tail)
        assert header == probe(data)
        assert decode_upright(data + tail, header).shape == (20, 24, 3)


def test_a_cut_file_says_so_whatever_its_format():
    with pytest.raises(ImageError, match="the end marker is missing: the file was cut short"):
        probe(WHOLE["jpeg"][:-2])
    with pytest.raises(ImageError, match="the end marker is missing: the file was cut short"):
        probe(WHOLE["png"][:-1])


@settings(max_examples=500)
@given(st.sampled_from([*WHOLE.values(), *OTHER.values()]), st.data())
def test_a_damaged_image_never_raises_anything_but_an_image_error(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)) | st.just(len(data)))
    outcome_is_clean(bytes(damaged[:cut]))


STARTS = (
    b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00\x20Exif\0\0", b"\x89PNG\r\n\x1a\n", b"GIF89a",
    b"BM", b"II*\0", b"MM\0*", b"RIFF\x24\0\0\0WEBPVP8 ", b"P6 3 2 255\n",
)  # fmt: skip


@settings(max_examples=500)
@given(st.sampled_from(STARTS), st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_an_image_error(start, data):
    outcome_is_clean(start + data)


def outcome_is_clean(data: bytes) -> None:
    """``data`` is either read or refused under one of the known reasons."""
    reason = None
    try:
        read(data)
    except ImageError as error:
        reason = error.reason
    assert reason in {None, "not an image", "image cut short", "image too large", UNDECODABLE}


@pytest.mark.parametrize("name", OTHER)
def test_a_cut_file_of_another_format_is_found_when_it_is_decoded(name):
    data = OTHER[name][: len(OTHER[name]) // 2]
    with pytest.raises(ImageError):
        read(data)


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"\0" * 100, b"\xff\xd8", b"x"])
def test_what_is_no_image_says_how_it_begins(data):
    with pytest.raises(ImageError, match="begins with") as caught:
        probe(data)
    assert caught.value.reason == "not an image"


def test_a_record_that_does_not_decode_says_so():
    for data in (b"", b"text", WHOLE["png"][:40]):
        with pytest.raises(ImageError) as caught:
            decode(data)
        assert caught.value.reason == UNDECODABLE


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 16))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_claiming(width: int, height: int) -> bytes:
    data = WHOLE["jpeg"]
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def bmp_claiming(width: int, height: int) -> bytes:
    return OTHER["BMP"][:18] + struct.pack("<ii", width, height) + OTHER["BMP"][26:]


def gif_claiming(width: int, height: int) -> bytes:
    return OTHER["GIF"][:6] + struct.pack("<HH", width, height) + OTHER["GIF"][10:]


@pytest.mark.parametrize(
    ("claiming", "side"),
    [
        (png_claiming, 60_000),
        (png_claiming, 2**31 - 1),
        (jpeg_claiming, 65_500),
        (bmp_claiming, 60_000),
        (gif_claiming, 65_535),
    ],
)
def test_a_decompression_bomb_is_refused_by_its_header(claiming, side, monkeypatch):
    monkeypatch.setattr(codec.cv2, "imdecode", None)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(ImageError) as caught:
        probe(claiming(side, side))
    assert caught.value.reason == "image too large"
    assert f"{side}" in str(caught.value) or f"{side * side}" in str(caught.value)


def test_the_pixel_limit_is_the_callers():
    assert probe(WHOLE["png"], max_pixels=24 * 20).width == 24
    with pytest.raises(ImageError, match="24 × 20 pixels, over the limit of 479"):
        probe(WHOLE["png"], max_pixels=24 * 20 - 1)


@pytest.mark.parametrize("claiming", [png_claiming, jpeg_claiming])
@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0)])
def test_an_image_without_pixels_is_none(claiming, width, height):
    with pytest.raises(ImageError, match=f"its header says {width} × {height} pixels"):
        probe(claiming(width, height))


def test_a_picture_that_its_format_cannot_hold_is_refused():
    with pytest.raises(ImageError, match="a jpeg cannot hold 65536 × 1 pixels"):
        codec.encode(np.zeros((1, 65536, 3), np.uint8), "jpeg")


def test_a_file_larger_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(1001))
    assert stamp(str(path), max_bytes=1001).size == 1001
    for look in (stamp, read_file):
        with pytest.raises(ImageError, match=r"1,001 bytes, over the limit 1,000") as caught:
            look(str(path), max_bytes=1000)
        assert caught.value.reason == "image too large"


def test_an_empty_file_a_folder_a_pipe_and_nothing_are_no_images(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason, message in (
        ("empty.jpg", "image empty", "has no bytes"),
        ("folder.jpg", "image missing", "is not a file"),
        ("pipe.jpg", "image missing", "is not a file"),
        ("none.jpg", "image missing", "No such file"),
        ("x" * 300, "image missing", "File name too long"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read_file(safe_path(str(tmp_path), name))
        assert caught.value.reason == reason
        assert name in str(caught.value)


def test_a_file_that_shrinks_while_it_is_read_is_cut_short(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(image_files.os, "pread", lambda file, size, start: bytes(size - 1))
    with pytest.raises(ImageError, match="shrank while it was read") as caught:
        read_file(str(path))
    assert caught.value.reason == "image cut short"


def test_a_file_with_another_stamp_than_expected_has_changed(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    expected = stamp(str(path))
    assert read_file(str(path), expected=expected) == b"first"
    real = os.pread

    def read_while_written_to(*place):
        data = real(*place)
        os.utime(path, ns=(0, expected.mtime_ns + 1))
        return data

    monkeypatch.setattr(image_files.os, "pread", read_while_written_to)
    with pytest.raises(ImageError, match=f"{path} has changed") as caught:
        read_file(str(path), expected=expected)
    assert caught.value.reason == "image changed"
    monkeypatch.undo()
    path.write_bytes(b"longer")
    with pytest.raises(ImageError, match=f"{path} has changed"):
        read_file(str(path), expected=expected)


@pytest.mark.parametrize("call", ["open", "pread"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
def test_a_failing_disk_is_not_the_images_fault(tmp_path, monkeypatch, call, code):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"data")
    monkeypatch.setattr(image_files.os, call, failing(code))
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
        read_file(str(path))
    assert (caught.value.errno, caught.value.filename) == (code, str(path))


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EACCES, "image unreadable"), (errno.EPERM, "image unreadable"),
     (errno.ENOENT, "image missing")],
)  # fmt: skip
def test_an_image_that_may_not_be_read_is_not_said_to_be_missing(
    tmp_path, monkeypatch, code, reason
):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"data")
    monkeypatch.setattr(image_files.os, "open", failing(code))
    with pytest.raises(ImageError, match=f"{path}: {os.strerror(code)}") as caught:
        read_file(str(path))
    assert caught.value.reason == reason


def failing(code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_stamp_tells_a_file_from_the_same_file_changed(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"data")
    before = stamp(str(path))
    os.utime(path, ns=(0, before.mtime_ns + 1))
    assert stamp(str(path)) == (4, before.mtime_ns + 1)


@pytest.fixture
def root(tmp_path):
    """An images folder beside a secret that no name may reach."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.jpg").write_bytes(b"inside")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "sub/../../secret.jpg",
        "sub/..",
        "..",
        "..\\secret.jpg",
        "sub\\..\\..\\secret.jpg",
        "/etc/passwd",
        "sub/a.jpg\0.png",
    ],
)
def test_a_name_that_climbs_out_is_refused_with_the_folder(root, name):
    with pytest.raises(ImageError, match="leads out of the images folder") as caught:
        safe_path(str(root), name)
    assert caught.value.reason == "unsafe path"
    assert repr(name) in str(caught.value)
    assert str(root) in str(caught.value)


def test_symlinks_may_stay_inside_but_not_lead_out(root):
    (root / "inside.jpg").symlink_to("sub/a.jpg")
    (root / "again").symlink_to("sub")
    (root / "out.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "up").symlink_to(root.parent)
    (root / "chain.jpg").symlink_to("up/secret.jpg")
    for name in ("sub/a.jpg", "inside.jpg", "again/a.jpg", "./sub//a.jpg"):
        assert read_file(safe_path(str(root), name)) == b"inside"
    for name in ("out.jpg", "up/secret.jpg", "chain.jpg", "up/images/../secret.jpg"):
        with pytest.raises(ImageError) as caught:
            safe_path(str(root), name)
        assert caught.value.reason == "unsafe path"


def test_a_folder_whose_name_continues_the_roots_is_outside(root):
    (root.parent / "images_private").mkdir()
    (root.parent / "images_private" / "a.jpg").write_bytes(b"secret")
    (root / "beside").symlink_to(root.parent / "images_private")
    with pytest.raises(ImageError, match="symlink that leads out"):
        safe_path(str(root), "beside/a.jpg")


def test_the_images_folder_itself_may_be_a_symlink(root):
    link = root.parent / "link"
    link.symlink_to(root)
    assert read_file(safe_path(str(link), "sub/a.jpg")) == b"inside"


def test_a_symlink_in_a_circle_is_no_image(root):
    (root / "circle.jpg").symlink_to("circle.jpg")
    with pytest.raises(ImageError):
        read_file(safe_path(str(root), "circle.jpg"))


@pytest.mark.parametrize("name", ["Köln/影 01.jpg", "sub/…🙂.png", " leading and trailing .jpg"])
def test_names_in_any_script_are_found(root, name):
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"found")
    assert read_file(safe_path(str(root), name)) == b"found"


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice")
def test_prefetching_asks_for_the_whole_file_and_closes_it(tmp_path, monkeypatch):
    path, asked = tmp_path / "a.jpg", []
    path.write_bytes(WHOLE["jpeg"])

    def advise(file, start, length, advice):
        asked.append((os.fstat(file).st_ino, start, length, advice))

    monkeypatch.setattr(image_files.os, "posix_fadvise", advise)
    before = os.listdir("/proc/self/fd")
    prefetch(str(path))
    assert asked == [(path.stat().st_ino, 0, 0, os.POSIX_FADV_WILLNEED)]
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", ["nowhere.jpg", "", "folder", "pipe"])
def test_prefetching_what_cannot_be_read_is_silent(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    prefetch(str(tmp_path / name))


def test_prefetching_needs_no_advice(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(WHOLE["jpeg"])
    monkeypatch.delattr(image_files.os, "posix_fadvise", raising=False)
    prefetch(str(tmp_path / "a.jpg"))


# --- headers that cost more than they are worth -------------------------------------------------


def processor_seconds(data: bytes) -> float:
    before = time.process_time()
    with pytest.raises(ImageError):
        probe(data)
    return time.process_time() - before


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG")[:2] + b"\xff" * (8 << 20),
        saved("JPEG")[:2] + b"\xff\xd0" * (4 << 20),
        saved("JPEG")[:2] + b"\xff\xfe\0\2" * (2 << 20),
        saved("PNG")[:33] + (bytes(4) + b"tEXt" + bytes(4)) * (1 << 20),
    ],
    ids=["fill bytes", "bare markers", "empty segments", "empty chunks"],
)
def test_a_header_without_an_end_is_given_up(data):
    with pytest.raises(ImageError, match="over 250,000"):
        probe(data)
    assert processor_seconds(data) < 2


def test_only_the_first_exif_block_is_read():
    block = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5400) + bytes(5400 * 12)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    data = saved("JPEG")[:2] + segment * 200
    assert processor_seconds(data) < 2


def test_a_jpeg_of_too_many_scans_is_refused_undecoded():
    """Each scan may cover the whole picture: a small file could keep a decoder busy for hours."""
    data = saved("JPEG", progressive=True)
    header = probe(data)
    scan = b"\xff\xda\0\x08\1\1\0\0\0\0"
    many = data[: header.body] + scan * 1000 + data[header.body :]
    assert probe(many).width == 24
    with pytest.raises(ImageError, match=r"1\d\d\d scans of 24 × 20 pixels: too much to decode"):
        probe(many, max_pixels=24 * 20)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_film_behind_a_photo_is_not_taken_for_scans(progressive):
    """As phones append one, in whose bytes a scan's marker stands every 64 KiB."""
    film = b"\xff\xda" * 1000 + b"\xff\xda\0\x08\3" * 1000
    assert probe(saved("JPEG", progressive=progressive) + film, max_pixels=24 * 20).width == 24


def test_a_baseline_jpeg_of_many_scans_is_refused_too():
    """It may have a scan for each component, and then as many again as it likes."""
    data = saved("JPEG")
    body = probe(data).body
    scan = b"\xff\xda\0\x08\1\1\0\0\0\0"
    with pytest.raises(ImageError, match=r"100\d scans"):
        probe(data[:body] + scan * 1000 + data[body:], max_pixels=24 * 20)


def test_a_webp_may_have_half_as_many_pixels():
    """Its decoder keeps two whole frames."""
    assert probe(saved("WEBP"), max_pixels=2 * 24 * 20).width == 24
    with pytest.raises(ImageError, match="over the limit of 479"):
        probe(saved("WEBP"), max_pixels=2 * 24 * 20 - 1)
