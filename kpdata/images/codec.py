"""Decode images to upright RGB pixels, of any orientation and colour mode, and encode pixels."""

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from kpdata.core import transform
from kpdata.core.errors import ImageError
from kpdata.core.sample import ImageRef, Pixels
from kpdata.images.headers import PILLOW_FORMATS, Header, open_with_pillow, probe
from kpdata.images.resample import mean_of_blocks

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_TURN: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
"""EXIF orientation → a function that makes the picture upright.

Pillow's own function also reads XMP, which other readers ignore."""

_BAND_PIXELS = 1 << 20


def stored_bytes(image: ImageRef) -> bytes:
    """The encoded bytes in a sample that was read from shards.

    Raises:
        ImageError: the sample holds none.
    """
    if image.data is None:
        raise ImageError("image missing", f"{image.name}: this sample carries no image bytes")
    return image.data


def decode_stored(image: ImageRef, reduce: int = 1) -> Pixels:
    """Decode the picture of a sample that was read from shards, without trusting the record.

    Args:
        image: holds its bytes.
        reduce: as in :func:`decode`.

    Raises:
        ImageError: there are no bytes, they are not a JPEG or PNG of the size that the record
            states, have more than MAX_PIXELS, or do not decode.
    """
    data = stored_bytes(image)
    header = probe(data)
    if image.format not in (None, header.format):
        raise ImageError(
            "image does not decode", f"{image.name} is no {image.format}, as its record says"
        )
    if (header.width, header.height) != (image.width, image.height):
        raise ImageError(
            "size mismatch",
            f"{image.name} is {header.width} × {header.height} pixels, but its record says "
            f"{image.width} × {image.height}",
        )
    return decode(data, reduce)


def decode(data: bytes, reduce: int = 1) -> Pixels:
    """Decode an image from a record: (H, W, 3) RGB. Orientation tags are ignored.

    Args:
        data: a JPEG or PNG of three 8-bit channels.
        reduce: 1, 2, 4 or 8: each pixel is the mean of a block with this side; the last blocks
            may reach over the edge.

    Raises:
        ImageError: the bytes do not decode.
    """
    if not data.startswith((_JPEG, _PNG)):  # OpenCV would try a dozen more formats
        raise ImageError("image does not decode", "it is neither a JPEG nor a PNG")
    by_codec = reduce > 1 and data.startswith(_JPEG)
    flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduce}") if by_codec else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError("image does not decode", str(error).strip()) from error
    if pixels is None:
        raise ImageError("image does not decode", "the decoder refused its bytes")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if by_codec else mean_of_blocks(pixels, reduce)


def decode_upright(data: bytes, header: Header) -> Pixels:
    """Decode any readable image to upright (H, W, 3) RGB.

    Transparent images are put on white. Of 16 bits the upper 8 are kept, and of several frames the
    first. Every pixel is decoded, so that a cut or damaged file raises.

    Raises:
        ImageError: the bytes do not decode.
    """
    try:
        turn, pixels = _turn_and_pixels(data, header)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        raise ImageError("image does not decode", f"{error}") from error
    return np.ascontiguousarray(_TURN[turn](pixels))


def _turn_and_pixels(data: bytes, header: Header) -> tuple[int, Pixels]:
    """(orientation still to apply, (H, W, 3) RGB); Pillow's own image is freed on return."""
    formats = PILLOW_FORMATS if header.format == "other" else (header.format.upper(),)
    with open_with_pillow(io.BytesIO(data), formats) as image:
        image.load()
        turned = isinstance(image, TiffImageFile)  # Pillow turns a TIFF when it loads it
        return 1 if turned else header.orientation, _to_rgb8(image)


def _to_rgb8(image: Image.Image) -> Pixels:
    """(H, W, 3) RGB, converted in bands of rows: Pillow's copies of a whole picture cost memory."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // max(1, width))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = _band_to_rgb8(image.crop((0, top, width, bottom)))
    return pixels


def _band_to_rgb8(image: Image.Image) -> Pixels:
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


def source_to_upright(header: Header, exif: str) -> transform.Affine:
    """(2, 3) affine from the pixels that were annotated to upright pixels.

    Args:
        header: the image's.
        exif: ``applied`` if the annotator saw the image upright, ``ignored`` if raw.
    """
    if exif == "applied":
        return transform.IDENTITY
    return transform.orientation_affine(header.orientation, header.width, header.height)
