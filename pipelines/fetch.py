"""The encoded bytes of a reference's image: from a file, or from inside another shard."""

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from kpdata import images, shards
from kpdata.errors import DatasetError, ImageError, SchemaError
from kpdata.pipelines.job import Job
from kpdata.schema import ImageRef, Sample

_TAIL_BYTES = 4096
_ANNOUNCE_AHEAD = 16
_HASH_AHEAD = 4

T = TypeVar("T")


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


def load_images(samples: Iterator[Sample], job: Job) -> Iterator[tuple[Sample, bytes | ImageError]]:
    """Pair each sample with its image's bytes, or with what is wrong with them.

    The system is told of the next files in advance, and a thread hashes bytes that will be stored
    as they are, so that reading and hashing go on beside the caller's own work.
    """
    with ThreadPoolExecutor(1) as hasher:

        def read(sample: Sample) -> tuple[Sample, bytes | ImageError, Future[str] | None]:
            data = _fetch_or_error(sample, job)
            hashed = (
                None if job.crop or isinstance(data, ImageError) else hasher.submit(_sha256, data)
            )
            return sample, data, hashed

        announced = _delayed(map(_announce, samples), _ANNOUNCE_AHEAD)
        for sample, data, hashed in _delayed(map(read, announced), _HASH_AHEAD):
            if hashed:
                sample = replace(sample, image=replace(sample.image, sha256=hashed.result()))
            yield sample, data


def _delayed(items: Iterator[T], count: int) -> Iterator[T]:
    """Yield each item once ``count`` more were drawn: what drawing it began goes on meanwhile."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _announce(sample: Sample) -> Sample:
    if hasattr(os, "posix_fadvise") and not sample.image.uri.startswith(shards.RECORD_SCHEME):
        with contextlib.suppress(OSError):
            file = os.open(sample.image.uri, os.O_RDONLY | os.O_NONBLOCK)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            os.close(file)
    return sample


def _fetch_or_error(sample: Sample, job: Job) -> bytes | ImageError:
    try:
        return fetch(sample.image, job.max_bytes)
    except ImageError as error:
        return error
    except (DatasetError, SchemaError) as error:
        return ImageError("damaged record", str(error))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
