"""A plan file: what one shard is made of, as a worker reads it."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from kpdata.core.errors import JobError
from kpdata.core.sample import Sample, unpack_sample
from kpdata.pipelines.plan.references import STAMP
from kpdata.pipelines.request import Request
from kpdata.shards import tfrecord
from kpdata.storage.image_files import Stamp


class PlanHeader(msgspec.Struct, frozen=True):
    """What decides a shard's bytes besides its samples.

    Attributes:
        request: as :attr:`Request.for_workers` has it.
        software: package → version, where the plan was made.
    """

    request: Request
    software: dict[str, str]


class Reference(NamedTuple):
    """A sample to write, and the stamp that its image had when it was planned."""

    sample: Sample
    stamp: Stamp


def read_plan(path: Path) -> tuple[PlanHeader, Iterator[Reference]]:
    """The header and the references of one plan file.

    Raises:
        DatasetError, JobError: it is damaged, which may be found while the references stream.
    """
    payloads = (payload for _, payload in tfrecord.read(path))
    with _explained_damage(path):
        header = msgspec.json.decode(next(payloads, b""), type=PlanHeader)
    return header, (_unpack(path, payload) for payload in payloads)


def _unpack(path: Path, payload: bytes) -> Reference:
    with _explained_damage(path):
        found = Stamp(*STAMP.unpack_from(payload))
        return Reference(unpack_sample(payload[STAMP.size :]), found)


@contextmanager
def _explained_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (msgspec.MsgspecError, UnicodeDecodeError, struct.error, RecursionError) as error:
        raise JobError(
            f"{path}: the plan is damaged ({error}): run the same command again"
        ) from error
