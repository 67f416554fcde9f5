"""Stores that Beam's FileSystems reach: Google Cloud Storage and HDFS.

Reading an object takes one request for its size and one for its bytes. Credentials come from the
surroundings, as Google's application default credentials do; what HDFS needs comes as Beam options.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from kpdata.core.errors import StoreError
from kpdata.core.quiet import without_warnings
from kpdata.storage.atomic import temporary_beside
from kpdata.storage.parallel import in_parallel
from kpdata.storage.stores import MissingObject, Object, ObjectTooLarge, Url

with without_warnings():
    from apache_beam.io.filesystem import BeamIOError, CompressionTypes
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

_PLAIN = {"compression_type": CompressionTypes.UNCOMPRESSED}
_BLOCK = 1 << 20
_EXTRAS = {"gs": "pip install 'kpdata[gcs]'", "hdfs": "pip install 'kpdata[hdfs]'"}


def use_options(beam_options: Sequence[str]) -> None:
    """Have Beam options, such as ``--hdfs_host``, hold in this process; workers get them anyway."""
    FileSystems.set_options(PipelineOptions(list(beam_options)))


class BeamStore:
    """A :class:`kpdata.storage.stores.Store`."""

    def __init__(self) -> None:
        if FileSystems._pipeline_options is None:
            use_options(())

    def list(self, folder: Url) -> Iterator[Object]:
        """Every object below ``folder``."""
        with _explained(folder):
            (found,) = FileSystems.match([f"{folder}/**"])
        for one in found.metadata_list:
            name = one.path.removeprefix(f"{folder}/")
            if name and not name.endswith("/"):
                yield _object(name, one)

    def find(self, url: Url) -> Object | None:
        """One object, or None."""
        with _explained(url):
            system = FileSystems.get_filesystem(url)
            return _object(url.name, system.metadata(url)) if system.exists(url) else None

    def read(self, url: Url, max_bytes: int) -> tuple[Object, bytes]:
        """An object and its bytes."""
        found = self._there(url)
        if found.size > max_bytes:
            raise ObjectTooLarge(f"{url} has {found.size:,} bytes, over the limit {max_bytes:,}")
        with _explained(url), FileSystems.open(url, **_PLAIN) as stream:
            return found, stream.read()

    def _there(self, url: Url) -> Object:
        found = self.find(url)
        if found is None:
            raise MissingObject(f"{url}: no such object")
        return found

    def read_tail(self, url: Url, count: int) -> bytes:
        """The last ``count`` bytes."""
        start = max(0, self._there(url).size - count)
        with _explained(url), FileSystems.open(url, **_PLAIN) as stream:
            stream.seek(start)
            tail: bytes = stream.read()
        return tail

    def download(self, url: Url, path: Path) -> None:
        """Copy an object to a file."""
        self._there(url)
        half = temporary_beside(path)
        try:
            with (
                _explained(url),
                FileSystems.open(url, **_PLAIN) as stream,
                half.open("wb") as file,
            ):
                copyfileobj(stream, file, _BLOCK)
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)

    def put(self, url: Url, data: bytes) -> None:
        """Write an object."""
        with _explained(url), FileSystems.create(url, **_PLAIN) as stream:
            stream.write(data)

    def upload(self, path: Path, url: Url) -> None:
        """Copy a file to an object; a process that dies meanwhile may leave a half one on HDFS."""
        with _explained(url), path.open("rb") as file, FileSystems.create(url, **_PLAIN) as stream:
            copyfileobj(file, stream, _BLOCK)

    def delete(self, urls: Iterable[Url]) -> None:
        """Remove objects."""
        found = in_parallel(lambda url: str(url) if self.find(url) else None, urls)
        there = list(filter(None, found))
        if there:
            with _explained(there[0]):
                FileSystems.delete(there)


def _object(name: str, found: Any) -> Object:
    modified = float(found.last_updated_in_seconds)
    return Object(name, found.size_in_bytes, int(modified * 1000), modified)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what Beam's file systems raise into one line."""
    try:
        yield
    except StoreError:
        raise
    except BeamIOError as error:
        cause = next(iter((error.exception_details or {}).values()), error)
        raise StoreError(f"{url}: {_line(cause)}") from error
    except ValueError as error:
        if "Unable to get filesystem" not in str(error):
            raise StoreError(f"{url}: {_line(error)}") from error
        scheme = url.partition(":")[0]
        raise StoreError(f"{scheme}:// needs more of Beam: {_EXTRAS[scheme]}") from error
    except Exception as error:  # whatever a client library raises
        if isinstance(error, OSError) and error.filename:  # a file's of this machine
            raise
        raise StoreError(f"{url}: {_line(error)}") from error


def _line(error: object) -> str:
    return re.sub(r"\s+", " ", str(error) or repr(error))
