"""The encoded bytes of a reference's image: from a file, or from inside another shard."""

from kpdata import images, shards
from kpdata.errors import DatasetError, ImageError, SchemaError
from kpdata.image_files import MAX_BYTES, Stamp, prefetch, read_file, read_tail
from kpdata.schema import ImageRef

_TAIL_BYTES = 4096


def fetch(image: ImageRef, max_bytes: int = MAX_BYTES, expected: Stamp | None = None) -> bytes:
    """Read the whole image; ImageError where that fails, or it no longer has a stamp expected."""
    if not image.uri.startswith(shards.RECORD_SCHEME):
        return read_file(image.uri, max_bytes, expected)
    try:
        found = shards.read_record(image.uri).image
    except (DatasetError, SchemaError) as error:
        raise ImageError("damaged record", str(error)) from error
    if expected and found.sha256 != image.sha256:
        raise ImageError("image changed", f"{image.uri} holds another image by now")
    return images.stored_bytes(found)


def announce(image: ImageRef) -> None:
    """Have the system begin to read an image's file, for :func:`fetch` to find it in memory."""
    if not image.uri.startswith(shards.RECORD_SCHEME):
        prefetch(image.uri)


def fetch_tail(image: ImageRef, max_bytes: int = MAX_BYTES) -> bytes:
    """Read the image's last 4 KiB, where distinct images almost always differ."""
    if image.uri.startswith(shards.RECORD_SCHEME):
        return fetch(image, max_bytes)[-_TAIL_BYTES:]
    return read_tail(image.uri, _TAIL_BYTES, max_bytes)
