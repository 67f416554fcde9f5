"""Object stores, named by URL, and the few operations that kpdata needs of one.

A store has no folders and no renaming. It has objects, which appear whole or not at all, and
listings, which show every object that was written before. Nothing more is asked of it.
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
"""Scheme → what serves it, as ``dotted.module:class``, imported when it is needed."""


_SCHEMES = tuple(f"{scheme}://" for scheme in STORES)


class Url(str):
    """A URL on a store, without a slash at its end; ``folder / name`` is below a folder."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Take the slashes at the end away."""
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
        """The first part behind the scheme."""
        return self.split("/")[2]

    @property
    def key(self) -> str:
        """The part behind the bucket, which names an object in it."""
        return "/".join(self.split("/")[3:])


Location = Path | Url


def is_url(text: str) -> bool:
    """Whether a location is on a store."""
    return text.startswith(_SCHEMES)


def as_location(text: str | os.PathLike[str]) -> Location:
    """What the user means by ``text``: a local path, or a place on a store.

    Raises:
        StoreError: a URL of a kind that kpdata does not know, or one without a bucket.
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
    """Whether a URL was taken for a local path, which makes one slash of two."""
    return is_url(str(path).replace(":/", "://", 1))


class Object(NamedTuple):
    """What a store says of an object, without its bytes.

    Attributes:
        name: relative to the folder that was listed, or the URL's last part.
        size: bytes.
        version: differs when the content does.
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
    """What kpdata needs of a store.

    Errors that pass, such as a busy server's, are tried again inside. Every method raises
    StoreError for one that stays, with a message that says what to do.
    """

    def list(self, folder: Url) -> Iterator[Object]:
        """Every object below ``folder``, however deep; none where there is no such folder."""

    def find(self, url: Url) -> Object | None:
        """One object, or None where it is not there."""

    def read(self, url: Url, max_bytes: int) -> tuple[Object, bytes]:
        """An object and its bytes; MissingObject, or ObjectTooLarge before anything is read."""

    def read_tail(self, url: Url, count: int) -> bytes:
        """Its last ``count`` bytes, fewer where it has no more; MissingObject."""

    def download(self, url: Url, path: Path) -> None:
        """Copy an object to a file; MissingObject."""

    def put(self, url: Url, data: bytes) -> None:
        """Write an object, which appears whole or not at all and replaces what was there."""

    def upload(self, path: Path, url: Url) -> None:
        """Copy a file to an object, under the same conditions."""

    def delete(self, urls: Iterable[Url]) -> None:
        """Remove objects; one that is not there is no error."""


def store_of(url: str) -> Store:
    """What serves a URL; one per process and scheme."""
    return _store(url.partition(":")[0])


@cache
def _store(scheme: str) -> Store:
    module, _, name = STORES[scheme].partition(":")
    store: Store = getattr(importlib.import_module(module), name)()
    return store


@contextmanager
def local_copy(source: Location, suffixes: frozenset[str]) -> Iterator[Path]:
    """A file or a folder as a local path: itself, or a copy of what is on a store.

    The copy has the same name, so that its hash in a manifest is the same, and is removed at the
    end; messages speak of the store's place.

    Args:
        source: what to read.
        suffixes: of the files below a folder that are copied, in lower case.

    Raises:
        FormatError: nothing is there.
        StoreError: the store refuses, or an object's name is no file's.
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
    """Have messages name the ``original`` in the place of its local copy."""
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
