"""Read image headers, and check that a file is complete, without decoding pixels.

A format is recognised by its bytes, never by its name. Sizes are checked before pixels are decoded.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from kpdata.core import defaults
from kpdata.core.errors import ImageError
from kpdata.core.sample import ImageRef
from kpdata.storage.bounded import open_regular

MAX_PIXELS = defaults.MAX_PIXELS
"""The most pixels of a JPEG or PNG that is read."""

_MEMORY_FACTORS = {"WEBP": 2}
"""Format → how many times as much memory its decoding takes; its pixel limit is divided by it."""

_MAX_SEGMENTS = 250_000
"""The most segments or chunks of one file: those of a PNG of 256 MiB in chunks of 1 KiB."""

PILLOW_FORMATS = ("WEBP", "BMP", "TIFF", "GIF", "PPM")
"""The formats that are read besides JPEG and PNG."""

_EXIF_START, _EXIF_ORIENTATION = b"Exif\0\0", 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG_SCAN_START = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""The start of a scan, with a length that fits its number of components.

Other matches are chance bytes after the picture."""

_MAX_SCANS = 16
"""The most scans of a JPEG of the largest size; smaller ones may have more. Encoders write ten."""

_NO_END = "the end marker is missing: the file was cut short"
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEQUENTIAL = frozenset({0xC0, 0xC1})
_JPEG_COMMON = _JPEG_SEQUENTIAL | {0xC2}
"""Baseline, extended and progressive JPEG, which every decoder reads; the others are rare."""
_JPEG_SCAN, _JPEG_APP1 = 0xDA, 0xE1
_JPEG_BARE = frozenset(range(0xD0, 0xD8)) | {0x01}
_PNG_RGB = 2


@dataclass(frozen=True)
class Header:
    """An image's format and size, as its first bytes state them.

    Attributes:
        format: ``jpeg``, ``png``, or ``other`` for PILLOW_FORMATS.
        width, height: raw pixels, before orientation.
        orientation: EXIF's, 1 to 8; 1 is upright.
        rgb8: whether it has three channels of 8 bits in a coding that every decoder reads, as the
            images in records must.
        body: offset of the first byte after the header; the end marker is searched from here.
        one_scan: whether decoders surely pass over the pixels only once.
    """

    format: str
    width: int
    height: int
    orientation: int
    rgb8: bool
    body: int = 0
    one_scan: bool = True

    @property
    def storable(self) -> bool:
        """Whether a record can hold the file's bytes as they are."""
        return self.format != "other" and self.rgb8 and self.orientation == 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the orientation is applied."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def probe(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Read an image's header, and check that its end is there, without decoding it.

    Raises:
        ImageError: ``not an image``, ``image cut short`` or ``image too large``.
    """
    try:
        if data.startswith(_JPEG_START):
            header = _probe_jpeg(data)
        elif data.startswith(_PNG_START):
            header = _probe_png(data)
        else:
            header, max_pixels = _probe_other(data, max_pixels)
    except (struct.error, IndexError):
        raise ImageError("image cut short", _NO_END) from None
    if header.width < 1 or header.height < 1:
        raise ImageError("not an image", f"its header says {header.width} × {header.height} pixels")
    if header.width * header.height > max_pixels:
        raise ImageError(
            "image too large",
            f"{header.width} × {header.height} pixels, over the limit of {max_pixels:,}",
        )
    if not header.one_scan:
        _check_scans(data, header, max_pixels)
    end = {"jpeg": _JPEG_END, "png": _PNG_END}.get(header.format)
    if end and data.rfind(end, header.body) < 0:
        raise ImageError("image cut short", _NO_END)
    return header


def _check_scans(data: bytes, header: Header, max_pixels: int) -> None:
    """Refuse a JPEG of too many scans: each scan may cover, and cost, the whole picture."""
    scans = sum(1 for _ in _JPEG_SCAN_START.finditer(data, header.body))
    if scans * header.width * header.height > _MAX_SCANS * max_pixels:
        size = f"{header.width} × {header.height}"
        raise ImageError("image too large", f"{scans} scans of {size} pixels: too much to decode")


def check_size(image: ImageRef, header: Header, *seen: tuple[int, int]) -> None:
    """Compare the size that an annotation states with the sizes that its author may have seen.

    Args:
        image: holds the stated width and height, or None.
        header: of the image's bytes.
        seen: the accepted (width, height) pairs: raw, upright or both.

    Raises:
        ImageError: ``size mismatch``, with the first of ``seen``.
    """
    stated = (image.width, image.height)
    if None in stated or stated in seen:
        return
    width, height = seen[0]
    advice = "was it resized, or does `images` name another folder?"
    if header.orientation >= 5 and stated == (height, width):
        advice = "its EXIF turns it by 90°: try the other value of `exif`"
    raise ImageError(
        "size mismatch",
        f"{image.name} is {width} × {height} pixels, but its annotation says "
        f"{stated[0]} × {stated[1]}: {advice}",
    )


def _probe_jpeg(data: bytes) -> Header:
    position, orientation, coding = 2, 0, 0
    size: tuple[int, int, int, int] | None = None
    for _ in range(_MAX_SEGMENTS):
        if data[position] != 0xFF:
            raise ImageError("not an image", f"a broken JPEG: no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _JPEG_BARE:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_SIZES:
            size = struct.unpack_from(">BHHB", data, position + 4)
            coding = marker
        elif marker == _JPEG_APP1 and not orientation:
            orientation = _exif_orientation(data[position + 4 : position + 2 + length])
        elif marker == _JPEG_SCAN:
            break
        if length < 2:
            raise ImageError("not an image", f"a broken JPEG: empty segment at byte {position}")
        position += 2 + length
    else:
        raise ImageError("not an image", f"a broken JPEG: over {_MAX_SEGMENTS:,} segments")
    if size is None:
        raise ImageError("not an image", "a broken JPEG: it has no size before its pixels")
    precision, height, width, components = size
    rgb8 = coding in _JPEG_COMMON and (precision, components) == (8, 3)
    one_scan = coding in _JPEG_SEQUENTIAL and data[position + 4] == components
    return Header("jpeg", width, height, orientation or 1, rgb8, position, one_scan)


def _probe_png(data: bytes) -> Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    orientation, transparent, position = 0, False, 8
    for _ in range(_MAX_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            break
        if kind == b"eXIf" and not orientation:
            orientation = _exif_orientation(
                _EXIF_START + data[position + 8 : position + 8 + length]
            )
        transparent |= kind == b"tRNS"
        position += 12 + length
    else:
        raise ImageError("not an image", f"a broken PNG: over {_MAX_SEGMENTS:,} chunks")
    rgb8 = (depth, colour) == (8, _PNG_RGB) and not transparent
    return Header("png", width, height, orientation or 1, rgb8, position)


def upright_size(path: str) -> tuple[int, int]:
    """Width and height of an image file, orientation applied, from its header alone.

    Raises:
        ImageError: ``not an image``, ``image cut short``, or one that Pillow takes for a
            decompression bomb.
    """
    with open_regular(path) as file:
        if file.read(len(_PNG_START)) == _PNG_START:  # Pillow decodes a PNG to find its EXIF
            return probe(_PNG_START + file.read()).upright_size
    with open_with_pillow(path, ("JPEG", "PNG", *PILLOW_FORMATS)) as image:
        return _pillow_header(image).upright_size


def _probe_other(data: bytes, max_pixels: int) -> tuple[Header, int]:
    """The header, and the pixel limit of this format."""
    with open_with_pillow(io.BytesIO(data)) as image:
        return _pillow_header(image), max_pixels // _MEMORY_FACTORS.get(image.format or "", 1)


def _pillow_header(image: Image.Image) -> Header:
    orientation = _orientation_of(image.getexif)
    width, height = image.size
    if isinstance(image, TiffImageFile):  # its ``size`` may be the upright size
        width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
    if not (isinstance(width, int) and isinstance(height, int)):
        raise ImageError("not an image", f"its header says {width} × {height} pixels")
    return Header("other", width, height, orientation, rgb8=False)


def _exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block; 0 where ``block`` is not one."""

    def read() -> Image.Exif:
        exif = Image.Exif()
        exif.load(block)
        return exif

    return _orientation_of(read) if block.startswith(_EXIF_START) else 0


def _orientation_of(read: Callable[[], Image.Exif]) -> int:
    try:
        value = read().get(_EXIF_ORIENTATION, 1)
    except Exception:  # cameras write broken EXIF, on which Pillow raises many kinds
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def open_with_pillow(
    file: str | io.BytesIO, formats: tuple[str, ...] = PILLOW_FORMATS
) -> Image.Image:
    """Open an image lazily, as one of ``formats`` and no other.

    Raises:
        ImageError: ``not an image``, ``image cut short``, or one that Pillow takes for a
            decompression bomb.
    """
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError("image too large", f"{error}") from error
    except Exception as error:  # Pillow raises many kinds on damaged bytes
        what = file if isinstance(file, str) else f"begins with {file.getvalue()[:8]!r}"
        raise ImageError(
            "not an image", f"{what}: not a JPEG, PNG, WebP, BMP, TIFF or GIF"
        ) from error
