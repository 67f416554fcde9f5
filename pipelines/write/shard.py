"""Write one shard from its plan: a pure function of files, which knows nothing of Beam."""

import ctypes
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import NamedTuple

import cv2
import msgspec

from kpdata.core.errors import (
    DatasetError,
    ImageError,
    JobError,
    KpdataError,
    SchemaError,
    StoreError,
)
from kpdata.core.sample import Rejected, Sample
from kpdata.pipelines.output.local import Workspace
from kpdata.pipelines.plan.file import Reference, read_plan
from kpdata.pipelines.request import Request
from kpdata.pipelines.write.render import render
from kpdata.shards import records, tfrecord
from kpdata.shards.fetch import Fetcher
from kpdata.shards.manifest import Count, ShardInfo, software
from kpdata.shards.tally import Tally
from kpdata.storage.atomic import write_atomically
from kpdata.storage.files import file_blake3
from kpdata.storage.parallel import ahead, announced

_IMAGES_AHEAD = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""What glibc's ``mallopt`` calls them in malloc.h."""


class ShardReport(msgspec.Struct, frozen=True):
    """What one written shard holds; where it exists, the shard is whole.

    Attributes:
        plan_blake3: of the plan that made it.
        shard: the manifest's entry.
        samples: source images that gave at least one record.
        copies: augmented records.
        instances, visibility: of the originals; visibility is (K, 3) counts of v = 0, 1, 2.
        sizes: narrowest, widest, lowest, highest picture.
        counts: named counters.
        rejected: samples refused while writing.
    """

    plan_blake3: str
    shard: ShardInfo
    samples: Count
    copies: Count
    instances: Count
    visibility: list[tuple[Count, Count, Count]]
    sizes: dict[str, Count]
    counts: dict[str, Count]
    rejected: list[Rejected]


class _ShardTally(Tally):
    """Adds records up into a report."""

    def __init__(self, num_keypoints: int):
        super().__init__(num_keypoints)
        self.counts: Counter[str] = Counter()
        self.rejected: list[Rejected] = []
        self._widths: list[int] = []
        self._heights: list[int] = []

    def add(self, sample: Sample) -> None:
        """Count a record, and the size of its picture."""
        super().add(sample)
        self._widths = _extremes(self._widths, sample.image.width or 0)
        self._heights = _extremes(self._heights, sample.image.height or 0)

    def report(self, plan_blake3: str, shard: ShardInfo) -> ShardReport:
        sizes = {}
        if self._widths:
            names = ("min_width", "max_width", "min_height", "max_height")
            sizes = dict(zip(names, [*self._widths, *self._heights], strict=True))
        visibility = [(absent, hidden, seen) for absent, hidden, seen in self.visibility.tolist()]
        return ShardReport(
            plan_blake3, shard, self.samples, self.copies, self.instances, visibility, sizes,
            dict(+self.counts), self.rejected,
        )  # fmt: skip


def _extremes(known: list[int], value: int) -> list[int]:
    return [min([value, *known]), max([value, *known])]


def whole_report(data: bytes, plan_blake3: str, size: int | None) -> ShardReport | None:
    """The report in ``data``, if its shard is whole and was made from this very plan.

    Args:
        data: a report file's content, damaged perhaps, as when the machine goes down.
        plan_blake3: of the plan.
        size: the shard's bytes as they are now; None where there is none.
    """
    try:
        report = msgspec.json.decode(data, type=ShardReport)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return report if (report.plan_blake3, report.shard.bytes) == (plan_blake3, size) else None


def write_shard(workspace: Workspace, name: str, spare_cores: bool) -> ShardReport:
    """Write the shard ``name`` from its plan file, and its report when it is whole.

    One that is whole already, since a runner may ask for a shard twice, is left as it is.

    Args:
        workspace: where the plan is, and the shard goes.
        name: the shard's.
        spare_cores: whether a core is idle, so that a second thread may decode.

    Raises:
        OSError: the disk is full, or the folder went away. No half shard is left.
        JobError: the plan is damaged, or was made by another kpdata, NumPy, OpenCV or Pillow.
    """
    cv2.setNumThreads(1)
    _keep_freed_memory()
    plan_path = workspace.plan_path(name)
    plan_blake3 = file_blake3(plan_path)
    for _, data in workspace.reports([name]):
        if report := whole_report(data, plan_blake3, workspace.size_of(name)):
            return report
    header, references = read_plan(plan_path)
    _refuse_other_software(header.software)
    request = header.request
    split = name.split("-", 1)[0]
    tally = _ShardTally(len(request.skeleton))
    decodes = request.renders or request.validate_images == "decode"
    depth = _IMAGES_AHEAD if spare_cores and decodes else 0
    with (
        tfrecord.Writer(workspace.out / name, workspace.durable) as writer,
        workspace.progress(name) as progress,
        Fetcher(request.images_root, request.max_bytes) as fetcher,
        closing(_open_ahead(references, fetcher, split, request, depth)) as opened,
    ):
        for reference, wait in opened:
            _write_sample(reference.sample, wait, writer, tally)
            progress.advance(1, writer.bytes)
    shard = ShardInfo(name, writer.records, writer.bytes, writer.blake3)
    report = tally.report(plan_blake3, shard)
    write_atomically(workspace.report_path(name), msgspec.json.encode(report), durable=False)
    return report


def write_planned(workspace: Workspace, spare_cores: bool, shard: str) -> ShardReport:
    """Write a shard of an output here or on a store; leave a note for the driver on failure."""
    try:
        with workspace.staged(shard) as here:
            return write_shard(here, shard, spare_cores)
    except OSError as error:
        where = error.filename or workspace.location
        workspace.note_failure(shard, f"{error.strerror or error}: {where}")
        raise
    except (StoreError, JobError) as error:
        workspace.note_failure(shard, str(error))
        raise


def _refuse_other_software(planned: dict[str, str]) -> None:
    here = software()
    for name in sorted(planned.keys() | here.keys()):
        if (found := here.get(name)) != (expected := planned.get(name)):
            raise JobError(
                f"worker on {socket.gethostname()}: {name} is {found}, but where the command was "
                f"typed it is {expected}, and pictures may differ: install the same version on "
                "every machine, and restart the workers"
            )


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next picture: to get it from the system takes time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 256 << 20)


class _Opened(NamedTuple):
    """A sample's records, rendered when they are iterated, and the counters that this fills."""

    records: Iterator[Sample]
    counts: Counter[str]


def _open_ahead(
    references: Iterator[Reference], fetcher: Fetcher, split: str, request: Request, depth: int
) -> Generator[tuple[Reference, Callable[[], _Opened]], None, None]:
    """Every reference, with a function that returns its records; the next images are read ahead."""

    def announce(reference: Reference) -> None:
        fetcher.announce(reference.sample.image, reference.stamp)

    def open_one(reference: Reference) -> _Opened:
        counts: Counter[str] = Counter()
        data = fetcher.fetch(reference.sample.image, reference.stamp)
        return _Opened(render(reference.sample, data, split, request, counts), counts)

    return ahead(open_one, announced(announce, references, fetcher.depth), depth)


def _write_sample(
    sample: Sample, wait: Callable[[], _Opened], writer: tfrecord.Writer, tally: _ShardTally
) -> None:
    try:
        opened = wait()
        made = list(opened.records)
        encoded = [records.encode_parts(record) for record in made]
    except (ImageError, SchemaError, DatasetError) as error:
        reason = error.reason if isinstance(error, ImageError) else "bad values"
        tally.rejected.append(Rejected(sample.key, reason, _at(sample.image.uri, error)))
        return
    for record, parts in zip(made, encoded, strict=True):
        writer.write(*parts)
        tally.add(record)
    tally.samples += bool(made)
    tally.counts += opened.counts


def _at(uri: str, error: KpdataError) -> str:
    return str(error) if uri in str(error) else f"{uri}: {error}"
