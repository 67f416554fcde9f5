"""Stores that fsspec reaches: Google Cloud Storage, Azure and HDFS, the latter through WebHDFS.

Credentials and settings come from the environment, as each library reads them, and from fsspec's
own configuration (``~/.config/fsspec``). Reading an object takes one request for its size and one
for its bytes.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from kpdata.core.errors import StoreError
from kpdata.storage.atomic import whole_file
from kpdata.storage.parallel import in_parallel
from kpdata.storage.stores import MissingObject, Object, ObjectTooLarge, Url

_EXTRAS = {"gs": "gcs", "az": "azure", "hdfs": "hdfs"}
"""Scheme → the extra of kpdata that installs its packages."""

_WEBHDFS_PORT = 9870

_VERSIONS = ("etag", "ETag", "generation", "md5Hash", "content_settings")
_TIMES = (
    "mtime",
    "last_modified",
    "LastModified",
    "updated",
    "modificationTime",
    "modified",
    "created",
)
"""Keys under which fsspec's file systems state when an object was written; the first one counts."""


class _Place(NamedTuple):
    """An fsspec file system, and a path in it."""

    files: Any
    path: str


class FsspecStore:
    """A :class:`kpdata.storage.stores.Store`."""

    def __init__(self) -> None:
        self._systems: dict[str, Any] = {}
        self._lock = Lock()

    def _at(self, url: Url) -> _Place:
        """The file system and path of a URL; HDFS has one file system for each name node."""
        key = url.bucket if url.scheme == "hdfs" else url.scheme
        with self._lock:
            if key not in self._systems:
                self._systems[key] = _file_system(url)
        if url.scheme == "hdfs":
            return _Place(self._systems[key], f"/{url.key}")
        return _Place(self._systems[key], f"{url.bucket}/{url.key}".rstrip("/"))

    def list(self, folder: Url) -> Iterator[Object]:
        """Every object below ``folder``."""
        with _explained(folder):
            files, path = self._at(folder)
            files.invalidate_cache()
            try:
                found = files.find(path, detail=True)
            except FileNotFoundError:
                found = {}
        prefix = f"{path.strip('/')}/"
        for where, info in sorted(found.items()):
            name = where.strip("/").removeprefix(prefix)
            if name != where.strip("/") and not where.endswith("/"):
                yield _object(name, info)

    def find(self, url: Url) -> Object | None:
        """One object, or None."""
        with _explained(url):
            files, path = self._at(url)
            files.invalidate_cache()
            try:
                info = files.info(path)
            except FileNotFoundError:
                return None
        return _object(url.name, info) if info["type"] == "file" else None

    def read(self, url: Url, max_bytes: int) -> tuple[Object, bytes]:
        """An object and its bytes."""
        found = self._existing(url)
        if found.size > max_bytes:
            raise ObjectTooLarge(f"{url} has {found.size:,} bytes, over the limit {max_bytes:,}")
        with _explained(url):
            files, path = self._at(url)
            data: bytes = files.cat_file(path)
        return found, data

    def read_tail(self, url: Url, count: int) -> bytes:
        """The last ``count`` bytes."""
        size = self._existing(url).size
        if not size:
            return b""
        with _explained(url):
            files, path = self._at(url)
            tail: bytes = files.cat_file(path, start=max(0, size - count), end=size)
        return tail

    def _existing(self, url: Url) -> Object:
        found = self.find(url)
        if found is None:
            raise MissingObject(f"{url}: no such object")
        return found

    def download(self, url: Url, path: Path) -> None:
        """Copy an object to a file."""
        self._existing(url)
        with whole_file(path, durable=False) as half, _explained(url):
            files, where = self._at(url)
            files.get_file(where, str(half))

    def put(self, url: Url, data: bytes) -> None:
        """Write an object."""
        with _explained(url):
            files, path = self._at(url)
            files.pipe_file(path, data)

    def upload(self, path: Path, url: Url) -> None:
        """Copy a file to an object; on HDFS, a process that dies may leave a partial one."""
        with _explained(url):
            files, where = self._at(url)
            files.put_file(str(path), where)

    def delete(self, urls: Iterable[Url]) -> None:
        """Remove objects."""

        def remove(url: Url) -> None:
            with _explained(url):
                files, path = self._at(url)
                try:
                    files.rm_file(path)
                except FileNotFoundError:
                    return

        for _ in in_parallel(remove, urls):
            pass


def _file_system(url: Url) -> Any:
    try:
        import fsspec

        if url.scheme == "hdfs":
            host, _, port = url.bucket.partition(":")
            user = os.environ.get("HADOOP_USER_NAME")
            port = port or str(_WEBHDFS_PORT)
            return fsspec.filesystem("webhdfs", host=host, port=int(port), user=user)
        return fsspec.filesystem(url.scheme, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(url.scheme, url.scheme)
        raise StoreError(
            f"{url.scheme}:// needs more packages: pip install 'kpdata[{extra}]'"
        ) from error


def _object(name: str, info: dict[str, Any]) -> Object:
    size, modified = int(info["size"]), _seconds(next(filter(None, map(info.get, _TIMES)), 0.0))
    tag = next((str(info[key]) for key in _VERSIONS if info.get(key)), f"{modified} {size}")
    version = int.from_bytes(blake2b(tag.encode(), digest_size=8).digest()) >> 1
    return Object(name, size, version, modified)


def _seconds(time: object) -> float:
    """Seconds since the epoch, from a datetime, ISO text, or a number of (milli)seconds."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    assert isinstance(time, int | float)
    return time / 1000 if time > 1e11 else float(time)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn errors of the client library into a StoreError of one line that names the URL."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.filename:  # about a local file, such as on a full disk
            raise
        if isinstance(error, FileNotFoundError):
            raise MissingObject(f"{url}: no such object") from error
        denied = "permission denied: " if isinstance(error, PermissionError) else ""
        raise StoreError(f"{url}: {denied}{_line(error)}") from error
    except Exception as error:  # whatever a client library raises
        raise StoreError(f"{url}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error) or repr(error))
