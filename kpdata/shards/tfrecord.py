"""Read and write TFRecord files. A record is length, length's CRC, payload, payload's CRC.

The format and the CRC's mask are those of TensorFlow's ``core/lib/io/record_writer``.
"""

import os
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import google_crc32c
from blake3 import blake3

from kpdata.core.errors import DatasetError
from kpdata.storage.atomic import temporary_beside
from kpdata.storage.bounded import open_regular

MAX_RECORD_BYTES = 320 << 20
"""The longest record. An image of a hundred million pixels fits even if it does not compress."""

_MASK = 0xA282EAD8
_FRAME_BYTES = 16
_FLUSH_BYTES = 1 << 20


def _masked_crc(*parts: bytes) -> int:
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def framed(*parts: bytes) -> tuple[bytes, ...]:
    """The pieces of one record, to be written one after the other; the payload is all parts."""
    length = struct.pack("<Q", sum(map(len, parts)))
    header = length + struct.pack("<I", _masked_crc(length))
    return header, *parts, struct.pack("<I", _masked_crc(*parts))


class Writer:
    """Write a TFRecord file that appears complete or not at all.

    Records go to a temporary file beside ``path``. It is synced and renamed when the ``with`` block
    ends, and removed if it ends with an exception. A thread hashes and writes blocks of a MiB while
    the caller works. A durable file goes to disk block by block, so that the last sync is short.

    Args:
        path: the file's final name.
        durable: sync to disk before renaming, so that a machine crash leaves no partial file.

    Attributes:
        records, bytes: number written so far.
        blake3: hash of the whole file, hex; empty until the block has ended.
    """

    def __init__(self, path: str | Path, durable: bool = True):
        self.path = Path(path)
        self.records = 0
        self.bytes = 0
        self.blake3 = ""
        self._durable = durable
        self._hash = blake3()
        self._temporary = temporary_beside(self.path)
        self._file: BinaryIO = open(self._temporary, "wb")  # noqa: SIM115
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._thread = ThreadPoolExecutor(1)
        self._flushing: Future[None] | None = None

    def write(self, *parts: bytes) -> None:
        """Append one record, whose payload is the parts joined.

        Raises:
            DatasetError: it is longer than MAX_RECORD_BYTES, which readers refuse.
        """
        length = sum(map(len, parts))
        if length > MAX_RECORD_BYTES:
            raise DatasetError(
                f"{self.path}: record {self.records} of {length:,} bytes: at most "
                f"{MAX_RECORD_BYTES:,} can be read back: give smaller images"
            )
        self._waiting += framed(*parts)
        size = length + _FRAME_BYTES
        self._waiting_bytes += size
        self.records += 1
        self.bytes += size
        if self._waiting_bytes >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Have the thread hash and write what is waiting, once it has finished the block before."""
        if self._flushing:
            self._flushing.result()
        self._flushing = self._thread.submit(self._put, self._waiting)
        self._waiting, self._waiting_bytes = [], 0

    def _put(self, pieces: list[bytes]) -> None:
        block = b"".join(pieces)
        start = self._file.tell()
        self._file.write(block)
        self._file.flush()
        if self._durable:
            _begin_sync(self._file.fileno(), start)
        self._hash.update(block)

    def _finish(self) -> None:
        self._flush()
        self._thread.shutdown()
        assert self._flushing
        self._flushing.result()
        if self._durable:
            os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)
        self.blake3 = self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._thread.shutdown()
            self._temporary.unlink(missing_ok=True)
            self._file.close()  # can raise again on a full disk


def _begin_sync(file: int, start: int) -> None:
    """Start to write everything after ``start`` to disk, without waiting for it.

    The advice is to drop pages from the cache. Linux first starts to write changed pages to disk,
    and keeps them in the cache meanwhile; that start is what is wanted here.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, 0, os.POSIX_FADV_DONTNEED)


class Digest(Protocol):
    """A hash object of hashlib or blake3."""

    def update(self, data: bytes, /) -> object:
        """Add bytes to the hash."""


def read(
    path: str | Path, start: int = 0, digest: Digest | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, payload) of every record from byte ``start`` on, checking each CRC.

    Args:
        path: the file.
        start: offset at which a record begins.
        digest: is updated with each record's bytes before the record is yielded.

    Raises:
        DatasetError: a record is cut, damaged or claims an impossible length; the message names
            the file, the record and its offset. A length is checked before memory is allocated.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        offset, number = start, 0
        file.seek(start)
        while offset < size:
            where = f"{path}: record {number} at byte {offset}"
            header, payload, footer = _read_one(file, size - offset, where)
            if digest:
                for part in (header, payload, footer):
                    digest.update(part)
            yield offset, payload
            offset += len(payload) + _FRAME_BYTES
            number += 1


def _read_one(file: BinaryIO, available: int, where: str) -> tuple[bytes, bytes, bytes]:
    header = file.read(12)
    if len(header) < 12:
        raise DatasetError(f"{where}: the file is cut short")
    length, length_crc = struct.unpack("<QI", header)
    if _masked_crc(header[:8]) != length_crc:
        raise DatasetError(f"{where}: the length's CRC does not match: the file is damaged")
    if length > available - _FRAME_BYTES:
        raise DatasetError(f"{where}: claims {length:,} bytes, more than the file holds")
    if length > MAX_RECORD_BYTES:
        raise DatasetError(f"{where}: claims {length:,} bytes: at most {MAX_RECORD_BYTES:,}")
    payload = file.read(length)
    footer = file.read(4)
    if len(payload) < length or len(footer) < 4:
        raise DatasetError(f"{where}: the file is cut short")
    if struct.unpack("<I", footer)[0] != _masked_crc(payload):
        raise DatasetError(f"{where}: the payload's CRC does not match: the file is damaged")
    return header, payload, footer


def offsets(path: str | Path) -> Iterator[int]:
    """Yield the offset of each record. Payloads are skipped, so that their CRCs are not checked.

    Raises:
        DatasetError: a record is cut, or its length's CRC does not match.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            where = f"{path}: record at byte {offset}"
            header = file.read(12)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size
            if offset + length + _FRAME_BYTES > size:
                raise DatasetError(f"{where}: the file is cut short")
            if _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
                raise DatasetError(f"{where}: the length's CRC does not match: the file is damaged")
            yield offset
            offset += length + _FRAME_BYTES
            file.seek(offset)
