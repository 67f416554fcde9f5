"""Images: told by their bytes, made upright RGB8, and reduced without moving anything."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from kpdata.core import transform
from kpdata.core.errors import ImageError
from kpdata.core.sample import ImageRef
from kpdata.images import codec
from kpdata.images.codec import decode, decode_upright
from kpdata.images.headers import Header, check_size, probe
from kpdata.images.resample import mean_of_blocks
from kpdata.storage.image_files import read_file, safe_path

WIDTH, HEIGHT = 40, 24
ORIENTATIONS = range(1, 9)


def quadrants(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Red, green over blue, white: no turn or mirror image of it is itself."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = 255
    return Image.fromarray(pixels)


def saved(image: Image.Image, format: str, **options: object) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_block(orientation: int, order: str) -> bytes:
    """A TIFF header and one directory with nothing but the orientation."""
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    head = struct.pack(f"{order}HI", 42, 8)
    return mark + head + struct.pack(f"{order}H", 1) + entry + bytes(4)


def jpeg_with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def upright(data: bytes) -> np.ndarray:
    return decode_upright(data, probe(data))


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("JPEG", Header("jpeg", WIDTH, HEIGHT, 1, True)),
        ("PNG", Header("png", WIDTH, HEIGHT, 1, True)),
        ("WEBP", Header("other", WIDTH, HEIGHT, 1, False)),
        ("BMP", Header("other", WIDTH, HEIGHT, 1, False)),
        ("TIFF", Header("other", WIDTH, HEIGHT, 1, False)),
        ("GIF", Header("other", WIDTH, HEIGHT, 1, False)),
    ],
)
def test_the_format_is_told_by_the_bytes(format, expected):  # noqa: A002
    header = probe(saved(quadrants(), format))
    assert (header.format, header.width, header.height, header.orientation, header.rgb8) == (
        expected.format,
        expected.width,
        expected.height,
        expected.orientation,
        expected.rgb8,
    )
    assert header.storable == (format in ("JPEG", "PNG"))


def with_frame(marker: int) -> bytes:
    """A JPEG whose frame header says that it is coded in another way."""
    data = bytearray(saved(quadrants(), "JPEG"))
    data[data.index(b"\xff\xc0") + 1] = marker
    return bytes(data)


@pytest.mark.parametrize("marker", [*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC)])
def test_only_jpegs_that_every_decoder_reads_are_stored_as_they_are(marker):
    header = probe(with_frame(marker))
    assert (header.width, header.height) == (WIDTH, HEIGHT)
    assert header.storable == (marker in (0xC0, 0xC1, 0xC2))


@pytest.mark.parametrize(
    ("orientation", "stated", "seen", "fault"),
    [
        (1, (40, 24), [(40, 24)], None),
        (1, (None, 24), [(40, 24)], None),
        (6, (24, 40), [(24, 40)], None),
        (6, (40, 24), [(24, 40), (40, 24)], None),
        (6, (40, 24), [(24, 40)], "24 × 40 pixels, but its annotation says 40 × 24: its EXIF"),
        (6, (80, 48), [(24, 40)], "24 × 40 pixels, but its annotation says 80 × 48: was it"),
        (1, (24, 40), [(40, 24)], "40 × 24 pixels, but its annotation says 24 × 40: was it"),
    ],
)
def test_a_stated_size_must_be_one_that_the_author_may_have_seen(orientation, stated, seen, fault):
    header = Header("jpeg", WIDTH, HEIGHT, orientation, rgb8=True)
    image = ImageRef("a.jpg", width=stated[0], height=stated[1])
    if fault is None:
        check_size(image, header, *seen)
        return
    with pytest.raises(ImageError) as caught:
        check_size(image, header, *seen)
    assert caught.value.reason == "size mismatch"
    assert str(caught.value).startswith(f"a.jpg is {fault}")


def test_a_png_under_a_jpg_name_is_read_as_a_png(tmp_path):
    (tmp_path / "a.jpg").write_bytes(saved(quadrants(), "PNG"))
    data = read_file(safe_path(str(tmp_path), "a.jpg"))
    assert probe(data).format == "png"
    np.testing.assert_array_equal(decode(data), np.asarray(quadrants()))


@pytest.mark.parametrize("format", ["WEBP", "BMP", "TIFF", "GIF", "PNG"])
def test_lossless_formats_decode_to_the_very_pixels(format):  # noqa: A002
    data = saved(quadrants(), format, **({"lossless": True} if format == "WEBP" else {}))
    np.testing.assert_array_equal(upright(data), np.asarray(quadrants()))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_baked_in(format, orientation):  # noqa: A002
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(quadrants(), format, exif=exif)
    header = probe(data)
    assert header.orientation == orientation
    assert (header.width, header.height) == (WIDTH, HEIGHT)
    assert header.storable == (orientation == 1 and format in ("JPEG", "PNG"))
    pixels = decode_upright(data, header)
    np.testing.assert_array_equal(pixels, by_pillow(data))
    assert pixels.shape[1::-1] == header.upright_size


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_raw_annotations_follow_the_pixels_through_every_orientation(orientation):
    data = jpeg_with_segment(
        saved(quadrants(), "JPEG", quality=100), 0xE1, b"Exif\0\0" + exif_block(orientation, "<")
    )
    header = probe(data)
    pixels = decode_upright(data, header)
    affine = codec.source_to_upright(header, "ignored")
    for raw_xy, colour in (((10, 6), (255, 0, 0)), ((30, 6), (0, 255, 0)), ((10, 18), (0, 0, 255))):
        x, y = transform.apply_affine(affine, np.array(raw_xy, np.float64))
        assert np.abs(pixels[int(y), int(x)].astype(int) - colour).max() < 12
    np.testing.assert_array_equal(codec.source_to_upright(header, "applied"), np.eye(2, 3))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_either_byte_order(order, orientation):
    block = exif_block(orientation, order)
    jpeg = jpeg_with_segment(saved(quadrants(), "JPEG"), 0xE1, b"Exif\0\0" + block)
    assert probe(jpeg).orientation == orientation
    png = saved(quadrants(), "PNG")
    assert probe(png[:33] + png_chunk(b"eXIf", block) + png[33:]).orientation == orientation


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_means_nothing_is_upright(orientation):
    block = b"Exif\0\0" + exif_block(orientation, ">")
    assert probe(jpeg_with_segment(saved(quadrants(), "JPEG"), 0xE1, block)).orientation == 1


@pytest.mark.parametrize("block", [b"", b"II", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"\0" * 40])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_says_nothing_and_stops_nothing(block):
    data = jpeg_with_segment(saved(quadrants(), "JPEG"), 0xE1, b"Exif\0\0" + block)
    header = probe(data)
    assert header.storable
    assert decode_upright(data, header).shape == (HEIGHT, WIDTH, 3)


def test_exif_behind_a_pngs_pixels_counts():
    png = saved(quadrants(), "PNG")
    end = png.rindex(b"IEND") - 4
    data = png[:end] + png_chunk(b"eXIf", exif_block(6, ">")) + png[end:]
    assert probe(data).orientation == 6
    np.testing.assert_array_equal(upright(data), by_pillow(data))


def test_the_first_exif_of_a_jpeg_counts():
    second = jpeg_with_segment(saved(quadrants(), "JPEG"), 0xE1, b"Exif\0\0" + exif_block(1, "<"))
    data = jpeg_with_segment(second, 0xE1, b"Exif\0\0" + exif_block(6, "<"))
    assert probe(data).orientation == 6


def test_xmp_does_not_turn_a_picture_behind_the_headers_back():
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf tiff:Orientation="6"/>'
    data = jpeg_with_segment(saved(quadrants().convert("CMYK"), "JPEG"), 0xE1, xmp)
    header = probe(data)
    assert header.orientation == 1
    assert decode_upright(data, header).shape[1::-1] == header.upright_size


def test_an_embedded_thumbnail_is_not_the_picture():
    thumbnail = saved(quadrants(8, 8), "JPEG")
    block = b"Exif\0\0" + exif_block(1, "<") + thumbnail
    header = probe(jpeg_with_segment(saved(quadrants(), "JPEG"), 0xE1, block))
    assert (header.width, header.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_every_kind_of_colour_jpeg_is_stored_as_it_is(options):
    data = saved(quadrants(), "JPEG", **options)
    assert probe(data).storable
    assert np.abs(decode(data).astype(int) - by_pillow(data)).max() <= 3


def test_cmyk_becomes_rgb():
    data = saved(Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), "JPEG", quality=100)
    assert not probe(data).storable
    assert np.abs(upright(data).astype(int) - (255, 0, 0)).max() <= 3


def test_grey_becomes_three_equal_channels():
    ramp = Image.fromarray(np.tile(np.arange(WIDTH, dtype=np.uint8) * 6, (HEIGHT, 1)))
    for format in ("JPEG", "PNG"):  # noqa: A001
        data = saved(ramp, format)
        assert not probe(data).storable
        pixels = upright(data)
        assert (pixels == pixels[..., :1]).all()
        assert np.abs(pixels[..., 0].astype(int) - np.asarray(ramp)).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_8_bits(format):  # noqa: A002
    grey = np.tile(np.linspace(0, 0xFFFF, WIDTH).astype(np.uint16), (HEIGHT, 1))
    data = saved(Image.fromarray(grey), format)
    assert not probe(data).storable
    np.testing.assert_array_equal(upright(data), np.repeat((grey >> 8)[..., None], 3, axis=2))


def test_16_bit_rgb_keeps_its_upper_8_bits():
    pixels = np.random.default_rng(0).integers(0, 0x10000, (HEIGHT, WIDTH, 3), np.uint16)
    _, encoded = cv2.imencode(".png", pixels[..., ::-1])
    data = encoded.tobytes()
    assert not probe(data).storable
    np.testing.assert_array_equal(upright(data), pixels >> 8)


def test_a_black_and_white_png_becomes_0_and_255():
    bits = Image.new("1", (WIDTH, HEIGHT), 1)
    bits.putpixel((3, 2), 0)
    pixels = upright(saved(bits, "PNG"))
    assert pixels[2, 3].tolist() == [0, 0, 0]
    assert pixels[5, 5].tolist() == [255, 255, 255]


def test_a_palette_gives_its_colours_and_its_transparent_one_is_white():
    picture = Image.new("P", (WIDTH, HEIGHT), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((0, 0), 0)
    plain, transparent = saved(picture, "PNG"), saved(picture, "PNG", transparency=0)
    assert not probe(plain).storable
    assert upright(plain)[0, 0].tolist() == [10, 20, 30]
    for pixels in (upright(plain), upright(transparent)):
        assert pixels[5, 5].tolist() == [200, 100, 50]
    assert upright(transparent)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (128, 177), (255, 100)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode, alpha, expected):
    colour = (100, 100, 100, alpha) if mode == "RGBA" else (100, alpha)
    data = saved(Image.new(mode, (WIDTH, HEIGHT), colour), "PNG")
    assert not probe(data).storable
    assert np.abs(upright(data).astype(int) - expected).max() <= 1


def test_a_transparent_colour_of_an_rgb_png_is_white():
    data = saved(quadrants(), "PNG", transparency=(255, 0, 0))
    assert not probe(data).storable
    pixels = upright(data)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, -1].tolist() == [0, 255, 0]


def test_the_first_of_several_frames_counts():
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert upright(data)[0, 0].tolist() == [255, 0, 0]


def blob(width: int, height: int, xy: tuple[float, float]) -> np.ndarray:
    """A Gaussian spot, its centre in continuous pixels, on black."""
    x, y = np.arange(width) + 0.5 - xy[0], np.arange(height)[:, None] + 0.5 - xy[1]
    spot = 255 * np.exp(-(x**2 + y**2) / (2 * 6.0**2))
    return np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)


def centroid(pixels: np.ndarray) -> np.ndarray:
    weights = pixels[..., 0].astype(np.float64)
    weights[weights < 8] = 0
    x, y = np.arange(weights.shape[1]) + 0.5, np.arange(weights.shape[0])[:, None] + 0.5
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
@pytest.mark.parametrize(("width", "height"), [(128, 96), (123, 87), (121, 89)])
@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_reducing_keeps_every_position(format, width, height, reduce):  # noqa: A002
    xy = (61.3, 40.8)
    data = codec.encode(blob(width, height, xy), format)
    pixels = decode(data, reduce)
    assert pixels.shape == (-(-height // reduce), -(-width // reduce), 3)
    np.testing.assert_allclose(centroid(pixels) * reduce, xy, atol=0.15)


def test_a_block_over_the_edge_repeats_it():
    pixels = np.full((3, 5, 3), 200, np.uint8)
    np.testing.assert_array_equal(mean_of_blocks(pixels, 4), np.full((1, 2, 3), 200))
    assert mean_of_blocks(pixels, 1) is pixels


def test_decoding_ignores_orientation_as_records_are_upright():
    data = jpeg_with_segment(saved(quadrants(), "JPEG"), 0xE1, b"Exif\0\0" + exif_block(6, "<"))
    assert decode(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_decoding_what_was_encoded_gives_the_picture_back(format):  # noqa: A002
    pixels = blob(WIDTH, HEIGHT, (20, 12))
    data = codec.encode(pixels, format, quality=100)
    assert probe(data).storable
    assert np.abs(decode(data).astype(int) - pixels).max() <= (0 if format == "png" else 2)
