"""Object stores, named by URL, and the few operations that kpdata needs.

A store has no folders, and cannot rename. kpdata relies on two things only: an object appears
complete or not at all, and a listing shows every object that was written before it.
"""

import importlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, Self, TypeVar

from kpdata.core.errors import FormatError, KpdataError, StoreError
from kpdata.storage.parallel import in_parallel

T = TypeVar("T")
R = TypeVar("R")

STORES = {
    "s3": "kpdata.storage.s3:S3Store",
    "gs": "kpdata.storage.fsspec_store:FsspecStore",
    "az": "kpdata.storage.fsspec_store:FsspecStore",
    "hdfs": "kpdata.storage.fsspec_store:FsspecStore",
}
"""Scheme → its class, as ``dotted.module:class``, imported when it is first used."""


_SCHEMES = tuple(f"{scheme}://" for scheme in STORES)


class Url(str):
    """A URL on a store, without a slash at its end; ``folder / name`` is below a folder."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Remove slashes at the end."""
        return super().__new__(cls, text.rstrip("/"))

    def __truediv__(self, name: str) -> "Url":
        return Url(f"{self}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.rpartition("/")[2]

    @property
    def scheme(self) -> str:
        """A key of STORES."""
        return self.partition(":")[0]

    @property
    def bucket(self) -> str:
        """The part after the scheme."""
        return self.split("/")[2]

    @property
    def key(self) -> str:
        """The part after the bucket: the name of an object in it."""
        return "/".join(self.split("/")[3:])


Location = Path | Url


def is_url(text: str) -> bool:
    """Whether a location is on a store."""
    return text.startswith(_SCHEMES)


def as_location(text: str | os.PathLike[str]) -> Location:
    """A local path, or a URL on a store, from the text or path that a user gave.

    Raises:
        FormatError: it is no path, or empty.
        StoreError: a URL of another scheme, or without a bucket.
    """
    if not isinstance(text, str | os.PathLike):
        raise FormatError(f"{text!r:.100} is no path: expected text or a Path")
    text = os.fspath(text)
    if not text:
        raise FormatError("a path is empty: name a file or folder")
    if not is_url(text):
        if "://" in text:
            raise StoreError(f"{text}: kpdata knows local paths and {', '.join(_SCHEMES)}")
        return Path(text).expanduser()
    if not text.partition("://")[2].strip("/"):
        raise StoreError(f"{text}: names no bucket: expected {text.rstrip('/')}//BUCKET/FOLDER")
    return Url(text)


def is_inside(where: Location, folder: Location) -> bool:
    """Whether a location is the folder or below it, with links resolved."""
    if isinstance(where, Url) or isinstance(folder, Url):
        return f"{where}/".startswith(f"{folder}/")
    return Path(os.path.realpath(where)).is_relative_to(os.path.realpath(folder))


def was_url(path: Path) -> bool:
    """Whether a URL was made into a Path by mistake, which turns its ``//`` into ``/``."""
    return is_url(str(path).replace(":/", "://", 1))


class Object(NamedTuple):
    """An object's entry in a listing.

    Attributes:
        name: relative to the folder that was listed, or the URL's last part.
        size: bytes.
        version: a number that changes when the content does.
        modified: seconds since the epoch, by the store's own clock.
    """

    name: str
    size: int
    version: int
    modified: float


class MissingObject(StoreError):
    """There is no such object."""


class ObjectTooLarge(StoreError):
    """An object holds more than the caller will read."""


class Store(Protocol):
    """The operations that kpdata needs.

    Methods retry temporary errors, such as those of a busy server. For all others they raise
    StoreError with a message that says what to do.
    """

    def list(self, folder: Url) -> Iterator[Object]:
        """Every object below ``folder``, however deep; none where there is no such folder."""

    def find(self, url: Url) -> Object | None:
        """One object, or None where it is not there."""

    def read(self, url: Url, max_bytes: int) -> tuple[Object, bytes]:
        """An object and its bytes; raises MissingObject, or ObjectTooLarge before reading them."""

    def read_tail(self, url: Url, count: int) -> bytes:
        """The last ``count`` bytes of an object, or all if it has fewer; raises MissingObject."""

    def download(self, url: Url, path: Path) -> None:
        """Copy an object to a file; raises MissingObject."""

    def put(self, url: Url, data: bytes) -> None:
        """Write or replace an object, which appears complete or not at all."""

    def upload(self, path: Path, url: Url) -> None:
        """Copy a file to an object, which appears complete or not at all."""

    def delete(self, urls: Iterable[Url]) -> None:
        """Remove objects; missing ones are ignored."""


def store_of(url: str) -> Store:
    """The store of a URL; each process has one for each scheme."""
    return _store(url.partition(":")[0])


@cache
def _store(scheme: str) -> Store:
    module, _, name = STORES[scheme].partition(":")
    store: Store = getattr(importlib.import_module(module), name)()
    return store


@contextmanager
def local_copy(source: Location, suffixes: frozenset[str]) -> Iterator[Path]:
    """A local path to a file or folder; one on a store is copied until the block ends.

    The copy has the same name, since names are recorded in manifests. Errors in the block name the
    URL instead of the copy.

    Args:
        source: what to read.
        suffixes: of the files in a folder that are copied, in lower case.

    Raises:
        FormatError: nothing is at the URL.
        StoreError: the store refuses, or an object's name cannot be that of a file.
    """
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="kpdata-") as scratch:
        copy = Path(scratch) / source.name
        with errors_naming(copy, source):
            _copy(source, copy, suffixes)
            yield copy


@contextmanager
def errors_naming(copy: Path, original: Url) -> Iterator[None]:
    """Replace the path of a local copy by ``original`` in errors of the block."""
    try:
        yield
    except KpdataError as error:
        error.args = (str(error).replace(str(copy), original), *error.args[1:])
        raise


def _copy(source: Url, copy: Path, suffixes: frozenset[str]) -> None:
    store = store_of(source)
    if source.key and store.find(source):
        store.download(source, copy)
        return
    found = any_of(store, source)
    if found is None:
        raise FormatError(f"{source}: no such file or folder on the store")
    copy.mkdir()
    names = (o.name for o in store.list(source) if o.name.lower().endswith(tuple(suffixes)))

    def fetch(name: str) -> None:
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise StoreError(f"{source / name}: its name is no file's: rename it on the store")
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        store.download(source / name, copy / name)

    for _ in in_parallel(fetch, names):
        pass


def any_of(store: Store, folder: Url) -> Object | None:
    """Some object below a folder, or None where it is empty."""
    return next(iter(store.list(folder)), None)
