"""Read images on a store, with the checks of :mod:`kpdata.storage.image_files`."""

import posixpath
from contextlib import ExitStack
from typing import Self

from kpdata.core.errors import ImageError
from kpdata.storage.image_files import MAX_BYTES, Stamp, check_bytes, refuse_unsafe
from kpdata.storage.scratch import scratch_database
from kpdata.storage.stores import MissingObject, Object, ObjectTooLarge, Url, store_of

_TABLES = """
    CREATE TABLE objects (name BLOB PRIMARY KEY, size INTEGER, version INTEGER) WITHOUT ROWID;
"""


def safe_url(root: str, name: str) -> str:
    """The URL of ``name`` below ``root``.

    Raises:
        ImageError: ``unsafe path``: absolute, or through ``..``.
    """
    refuse_unsafe(root, name)
    return f"{Url(root)}/{posixpath.normpath(name)}"


def stamp(url: str, max_bytes: int = MAX_BYTES) -> Stamp:
    """Ask the store for one image's stamp; for a whole folder, a StampListing is cheaper.

    Raises:
        ImageError: there is no such object, it is empty, or it exceeds ``max_bytes``.
        StoreError: the store failed, which is not the image's fault.
    """
    found = store_of(url).find(Url(url))
    if found is None:
        raise _missing(url)
    return _checked(url, found, max_bytes)


def read_object(url: str, max_bytes: int = MAX_BYTES, expected: Stamp | None = None) -> bytes:
    """An image's bytes; raises as :func:`stamp` does.

    If ``expected`` is given and the object's stamp differs, it is refused as ``image changed``.
    """
    try:
        found, data = store_of(url).read(Url(url), max_bytes)
    except MissingObject as error:
        raise _missing(url) from error
    except ObjectTooLarge as error:
        raise ImageError("image too large", str(error)) from error
    if expected and _checked(url, found, max_bytes) != expected:
        raise ImageError(
            "image changed",
            f"{url} has changed since it was looked at: leave images alone until the job ends",
        )
    _checked(url, found, max_bytes)
    return data


def read_object_tail(url: str, count: int) -> bytes:
    """The last ``count`` bytes of an image."""
    try:
        return store_of(url).read_tail(Url(url), count)
    except MissingObject as error:
        raise _missing(url) from error


def _checked(url: str, found: Object, max_bytes: int) -> Stamp:
    check_bytes(url, found.size, max_bytes)
    return Stamp(found.size, found.version)


def _missing(url: str) -> ImageError:
    return ImageError("image missing", f"{url}: there is no such object")


class StampListing:
    """The stamps of all images below a folder, from one listing of the store.

    They are kept in a temporary database, so that memory does not grow with their number. A
    thousand images cost one request.
    """

    def __init__(self, root: str):
        self._root = Url(root)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._db = stack.enter_context(scratch_database(_TABLES))
            found = store_of(self._root).list(self._root)
            rows = ((_bytes(one.name), one.size, one.version) for one in found)
            self._db.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", rows)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def stamp(self, url: str, max_bytes: int = MAX_BYTES) -> Stamp:
        """Return or raise what :func:`stamp` does, without a request."""
        name = url.removeprefix(f"{self._root}/")
        row = self._db.execute(
            "SELECT size, version FROM objects WHERE name = ?", (_bytes(name),)
        ).fetchone()
        if row is None:
            raise _missing(url)
        check_bytes(url, row[0], max_bytes)
        return Stamp(*row)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
