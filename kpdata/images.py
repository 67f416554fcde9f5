"""Image bytes ⇄ RGB: sniffing, orientation, colour modes, limits, safe paths.

Images come from strangers. A format is told by its bytes, never by its name; sizes are read from
the header and checked before anything is decoded; and a name can never lead out of its folder.
"""

import io
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from kpdata import geometry
from kpdata.errors import ImageError
from kpdata.schema import ImageRef

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB

MAX_BYTES = 256 << 20
MAX_PIXELS = 100_000_000

_PILLOW_FORMATS = ("WEBP", "BMP", "TIFF", "GIF", "PPM")
_EXIF_START, _EXIF_ORIENTATION = b"Exif\0\0", 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes the picture upright."""

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_NO_END = "the end marker is missing: the file was cut short"
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_APP1 = 0xDA, 0xE1
_JPEG_BARE = frozenset(range(0xD0, 0xD8)) | {0x01}
_PNG_RGB = 2


@dataclass(frozen=True)
class Header:
    """What an image's first bytes say.

    Attributes:
        format: ``jpeg``, ``png``, or ``other`` for what Pillow reads beyond these.
        width, height: raw pixels, before orientation.
        orientation: EXIF's, 1 to 8; 1 is upright.
        rgb8: three channels of eight bits, as records hold them.
        body: offset behind the header, from where the end marker is looked for.
    """

    format: str
    width: int
    height: int
    orientation: int
    rgb8: bool
    body: int = 0

    @property
    def storable(self) -> bool:
        """Whether a record can hold the file's own bytes untouched."""
        return self.format != "other" and self.rgb8 and self.orientation == 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the orientation is baked in."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def safe_path(root: str, name: str) -> str:
    """The real path of ``name`` below ``root``.

    Raises:
        ImageError: ``unsafe path``: absolute, through ``..``, or through a symlink that leaves.
    """
    if os.path.isabs(name) or "\0" in name or ".." in name.replace("\\", "/").split("/"):
        raise ImageError("unsafe path", f"{name!r} leads out of the images folder {root}")
    folder, base = os.path.split(os.path.join(root, name))
    path = os.path.join(_real_folder(folder), base)
    if os.path.islink(path):
        path = os.path.realpath(path)
    top = _real_folder(root)
    if os.path.commonpath([top, path]) != top:
        raise ImageError(
            "unsafe path", f"{name!r} is a symlink that leads out of the images folder {root}"
        )
    return path


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def file_size(path: str, max_bytes: int = MAX_BYTES) -> int:
    """Size of an image file in bytes.

    Raises:
        ImageError: there is no regular file, it is empty, or it exceeds ``max_bytes``.
    """
    try:
        return _checked_size(path, os.stat(path), max_bytes)
    except OSError as error:
        raise ImageError("image missing", f"{path}: {error.strerror}") from error


def read_file(path: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of an image file, under the same conditions as :func:`file_size`."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not hold the job up
        try:
            size = _checked_size(path, os.fstat(file), max_bytes)
            data = os.read(file, size)
        finally:
            os.close(file)
    except OSError as error:
        raise ImageError("image missing", f"{path}: {error.strerror}") from error
    if len(data) < size:
        raise ImageError("image cut short", f"{path} shrank while it was read")
    return data


def _checked_size(path: str, status: os.stat_result, max_bytes: int) -> int:
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("image missing", f"{path} is not a file")
    if size == 0:
        raise ImageError("image empty", f"{path} has no bytes")
    if size > max_bytes:
        raise ImageError(
            "image too large", f"{path} has {size:,} bytes, over the limit {max_bytes:,}"
        )
    return size


def stored_bytes(image: ImageRef) -> bytes:
    """The encoded bytes that a sample read from shards carries."""
    if image.data is None:
        raise ImageError("image missing", f"{image.name}: this sample carries no image bytes")
    return image.data


def probe(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Read an image's header and check that it is whole, without decoding it.

    Raises:
        ImageError: ``not an image``, ``image cut short`` or ``image too large``.
    """
    try:
        if data.startswith(_JPEG_START):
            header = _probe_jpeg(data)
        elif data.startswith(_PNG_START):
            header = _probe_png(data)
        else:
            header = _probe_other(data)
    except (struct.error, IndexError):
        raise ImageError("image cut short", _NO_END) from None
    if header.width < 1 or header.height < 1:
        raise ImageError("not an image", f"its header says {header.width} × {header.height} pixels")
    if header.width * header.height > max_pixels:
        raise ImageError(
            "image too large",
            f"{header.width} × {header.height} pixels, over the limit of {max_pixels:,}",
        )
    end = {"jpeg": _JPEG_END, "png": _PNG_END}.get(header.format)
    if end and data.rfind(end, header.body) < 0:
        raise ImageError("image cut short", _NO_END)
    return header


def _probe_jpeg(data: bytes) -> Header:
    position, orientation = 2, 1
    size: tuple[int, int, int, int] | None = None
    while True:
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
        elif marker == _JPEG_APP1 and orientation == 1:
            orientation = _exif_orientation(data[position + 4 : position + 2 + length])
        elif marker == _JPEG_SCAN:
            break
        if length < 2:
            raise ImageError("not an image", f"a broken JPEG: empty segment at byte {position}")
        position += 2 + length
    if size is None:
        raise ImageError("not an image", "a broken JPEG: it has no size before its pixels")
    precision, height, width, components = size
    return Header("jpeg", width, height, orientation, (precision, components) == (8, 3), position)


def _probe_png(data: bytes) -> Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    orientation, transparent, position = 1, False, 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            break
        if kind == b"eXIf":
            orientation = _exif_orientation(
                _EXIF_START + data[position + 8 : position + 8 + length]
            )
        transparent |= kind == b"tRNS"
        position += 12 + length
    rgb8 = (depth, colour) == (8, _PNG_RGB) and not transparent
    return Header("png", width, height, orientation, rgb8, position)


def _probe_other(data: bytes) -> Header:
    with _pillow(data, _PILLOW_FORMATS) as image:
        orientation = _orientation_of(image.getexif)
        width, height = image.size
        if isinstance(image, TiffImageFile):  # whose ``size`` may be the upright one
            width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        return Header("other", width, height, orientation, rgb8=False)


def _exif_orientation(block: bytes) -> int:
    def read() -> Image.Exif:
        exif = Image.Exif()
        exif.load(block)
        return exif

    return _orientation_of(read) if block.startswith(_EXIF_START) else 1


def _orientation_of(read: Callable[[], Image.Exif]) -> int:
    try:
        value = read().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a camera's broken EXIF says nothing; Pillow raises many kinds
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decode(data: bytes, reduce: int = 1) -> Pixels:
    """Decode bytes as a record holds them: (H, W, 3) RGB, orientation tags ignored.

    Args:
        data: a JPEG or PNG of three 8-bit channels.
        reduce: 1, 2, 4 or 8: each pixel is the mean of a block of this side; the last blocks
            may reach over the edge.

    Raises:
        ImageError: the bytes do not decode.
    """
    by_codec = reduce > 1 and data.startswith(_JPEG_START)
    flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduce}") if by_codec else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError("image does not decode", str(error).strip()) from error
    if pixels is None:
        raise ImageError("image does not decode", "the decoder refused its bytes")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if by_codec else mean_of_blocks(pixels, reduce)


def mean_of_blocks(pixels: Pixels, side: int) -> Pixels:
    """Shrink (H, W, 3) by ``side``: each pixel the mean of a block, the edges repeated to fit."""
    if side == 1:
        return pixels
    height, width = pixels.shape[:2]
    whole = cv2.copyMakeBorder(pixels, 0, -height % side, 0, -width % side, cv2.BORDER_REPLICATE)
    size = whole.shape[1] // side, whole.shape[0] // side
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA)


def decode_upright(data: bytes, header: Header) -> Pixels:
    """Decode any readable image to upright (H, W, 3) RGB.

    Transparency is laid over white, 16 bits keep their upper 8, and of several frames the first
    counts. Every pixel is decoded: a cut or damaged file raises.

    Raises:
        ImageError: the bytes do not decode.
    """
    formats = _PILLOW_FORMATS if header.format == "other" else (header.format.upper(),)
    with _pillow(data, formats) as image:
        try:
            return np.ascontiguousarray(_to_rgb8(_upright(image, header)))
        except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
            raise ImageError("image does not decode", f"{error}") from error


def _upright(image: Image.Image, header: Header) -> Image.Image:
    """Turned as the header says: Pillow's own way also asks XMP, which other readers ignore."""
    image.load()
    turned = isinstance(image, TiffImageFile) or header.orientation == 1  # TIFF turns on loading
    return image if turned else image.transpose(_TURN[header.orientation])


def _pillow(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError("image too large", f"{error}") from error
    except Exception as error:  # as above
        raise ImageError(
            "not an image", f"begins with {data[:8]!r}: not a JPEG, PNG, WebP, BMP, TIFF or GIF"
        ) from error


def _to_rgb8(image: Image.Image) -> Pixels:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        grey = np.clip(np.asarray(image.convert("I")), 0, 0xFFFF) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def encode(pixels: Pixels, format: str, quality: int = 95) -> bytes:  # noqa: A002 - the term
    """Encode (H, W, 3) RGB as ``jpeg`` of the given quality, or as lossless ``png``.

    Raises:
        ImageError: the format cannot hold a picture of this size.
    """
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if format == "jpeg" else []
    try:
        done, encoded = cv2.imencode(".jpg" if format == "jpeg" else ".png", bgr, options)
    except cv2.error:  # OpenCV 4 raises, OpenCV 5 says False
        done = False
    if not done:
        size = f"{pixels.shape[1]} × {pixels.shape[0]}"
        raise ImageError("image too large", f"a {format} cannot hold {size} pixels")
    return encoded.tobytes()


def source_to_upright(header: Header, exif: str) -> geometry.Affine:
    """Annotated pixels → upright pixels.

    Args:
        header: the image's.
        exif: ``applied`` when the annotator saw the image upright, ``ignored`` when raw.
    """
    if exif == "applied":
        return geometry.IDENTITY
    return geometry.orientation_affine(header.orientation, header.width, header.height)
