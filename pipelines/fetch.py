"""The encoded bytes of a reference's image: from a file, or from inside another shard."""

import contextlib
import os

from kpdata import images, shards
from kpdata.schema import ImageRef

_TAIL_BYTES = 4096


def fetch(image: ImageRef, max_bytes: int = images.MAX_BYTES) -> bytes:
    """Read the whole image; ImageError or DatasetError where that fails."""
    if image.uri.startswith(shards.RECORD_SCHEME):
        return images.stored_bytes(shards.read_record(image.uri).image)
    return images.read_file(image.uri, max_bytes)


def fetch_tail(image: ImageRef, max_bytes: int = images.MAX_BYTES) -> bytes:
    """Read the image's last 4 KiB, where distinct images almost always differ."""
    if image.uri.startswith(shards.RECORD_SCHEME):
        return fetch(image, max_bytes)[-_TAIL_BYTES:]
    size = images.file_size(image.uri, max_bytes)
    with open(image.uri, "rb") as file:
        file.seek(max(0, size - _TAIL_BYTES), os.SEEK_SET)
        return file.read(_TAIL_BYTES)


def prefetch(image: ImageRef) -> None:
    """Ask the system to read a file soon; nothing is said of a file that is not there."""
    if not hasattr(os, "posix_fadvise") or image.uri.startswith(shards.RECORD_SCHEME):
        return
    with contextlib.suppress(OSError), open(image.uri, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
