"""Read a sample's encoded image: from a file, an object on a store, or a record of a shard."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Self

from kpdata.core.errors import DatasetError, ImageError, SchemaError
from kpdata.core.sample import ImageRef
from kpdata.images import codec
from kpdata.shards import dataset
from kpdata.storage import image_files, image_objects
from kpdata.storage.image_files import MAX_BYTES, Stamp, prefetch, read_file, read_tail
from kpdata.storage.image_objects import read_object, read_object_tail
from kpdata.storage.parallel import THREADS
from kpdata.storage.stores import is_url

_TAIL_BYTES = 4096
_FILES_AHEAD = 8
_BYTES_AHEAD = 64 << 20


def locate(image: ImageRef, images_root: str | None) -> ImageRef:
    """Set ``image.uri`` to the path or URL that the image is read from.

    Args:
        image: as a format's reader returns it.
        images_root: folder or URL that its name may not lead out of; None for images in records.

    Raises:
        ImageError: its name leads out of ``images_root``, or that is None.
    """
    if image.data is not None:  # it is read again from its record
        return replace(image, data=None)
    if image.uri.startswith(dataset.RECORD_SCHEME):
        return image
    if images_root is None:
        raise ImageError("image missing", f"{image.name}: the source names no images folder")
    safe = image_objects.safe_url if is_url(images_root) else image_files.safe_path
    return replace(image, uri=safe(images_root, image.name))


def fetch(image: ImageRef, max_bytes: int = MAX_BYTES, expected: Stamp | None = None) -> bytes:
    """Read the image; raises ImageError if that fails, or if its stamp is not ``expected``."""
    if is_url(image.uri):
        return read_object(image.uri, max_bytes, expected)
    if not image.uri.startswith(dataset.RECORD_SCHEME):
        return read_file(image.uri, max_bytes, expected)
    try:
        found = dataset.read_record(image.uri).image
    except (DatasetError, SchemaError) as error:
        raise ImageError("damaged record", str(error)) from error
    if expected and found.sha256 != image.sha256:
        raise ImageError("image changed", f"{image.uri} holds another image by now")
    return codec.stored_bytes(found)


def fetch_tail(image: ImageRef, max_bytes: int = MAX_BYTES) -> bytes:
    """Read the image's last 4 KiB, in which different images almost always differ."""
    if is_url(image.uri):
        return read_object_tail(image.uri, _TAIL_BYTES)
    if image.uri.startswith(dataset.RECORD_SCHEME):
        return fetch(image, max_bytes)[-_TAIL_BYTES:]
    return read_tail(image.uri, _TAIL_BYTES, max_bytes)


class Fetcher:
    """Reads images that were announced some time before, so that the caller hardly waits.

    For files, the system loads them into its cache. For objects, threads download up to 64 MiB.

    Attributes:
        depth: how many images to announce ahead of the one that is fetched.
    """

    def __init__(self, images_root: str | None, max_bytes: int = MAX_BYTES):
        self.depth = 2 * THREADS if is_url(images_root or "") else _FILES_AHEAD
        self._max_bytes = max_bytes
        self._threads: ThreadPoolExecutor | None = None
        self._coming: dict[str, tuple[int, Future[bytes]]] = {}
        self._bytes_coming = 0
        self._lock = Lock()

    def announce(self, image: ImageRef, expected: Stamp) -> None:
        """Begin to read the image."""
        if not is_url(image.uri):
            if not image.uri.startswith(dataset.RECORD_SCHEME):
                prefetch(image.uri)
            return
        self._threads = self._threads or ThreadPoolExecutor(THREADS)
        with self._lock:
            if image.uri in self._coming or self._bytes_coming + expected.size > _BYTES_AHEAD:
                return
            future = self._threads.submit(read_object, image.uri, self._max_bytes, expected)
            self._coming[image.uri] = expected.size, future
            self._bytes_coming += expected.size

    def fetch(self, image: ImageRef, expected: Stamp) -> bytes:
        """Return or raise what the function :func:`fetch` does."""
        with self._lock:
            size, future = self._coming.pop(image.uri, (0, None))
            self._bytes_coming -= size
        return future.result() if future else fetch(image, self._max_bytes, expected)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
