"""Encoded images ⇄ upright RGB pixels, whatever their orientation and colour mode."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from kpdata import geometry
from kpdata.errors import ImageError
from kpdata.image_headers import PILLOW_FORMATS, Header, open_with_pillow
from kpdata.schema import ImageRef

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB

_JPEG = b"\xff\xd8\xff"
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


def stored_bytes(image: ImageRef) -> bytes:
    """The encoded bytes that a sample read from shards carries."""
    if image.data is None:
        raise ImageError("image missing", f"{image.name}: this sample carries no image bytes")
    return image.data


def decode(data: bytes, reduce: int = 1) -> Pixels:
    """Decode bytes as a record holds them: (H, W, 3) RGB, orientation tags ignored.

    Args:
        data: a JPEG or PNG of three 8-bit channels.
        reduce: 1, 2, 4 or 8: each pixel is the mean of a block of this side; the last blocks
            may reach over the edge.

    Raises:
        ImageError: the bytes do not decode.
    """
    by_codec = reduce > 1 and data.startswith(_JPEG)
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
    formats = PILLOW_FORMATS if header.format == "other" else (header.format.upper(),)
    with open_with_pillow(data, formats) as image:
        try:
            return np.ascontiguousarray(_to_rgb8(_upright(image, header)))
        except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
            raise ImageError("image does not decode", f"{error}") from error


def _upright(image: Image.Image, header: Header) -> Image.Image:
    """Turned as the header says: Pillow's own way also asks XMP, which other readers ignore."""
    image.load()
    turned = isinstance(image, TiffImageFile) or header.orientation == 1  # TIFF turns on loading
    return image if turned else image.transpose(_TURN[header.orientation])


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
