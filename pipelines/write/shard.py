"""Write one shard. Its bytes depend on its plan file and images alone; Beam plays no part here."""

import ctypes
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import cv2
import msgspec
from blake3 import blake3

from kpdata.core.errors import (
    DatasetError,
    ImageError,
    JobError,
    KpdataError,
    SchemaError,
    StoreError,
)
from kpdata.core.sample import Rejected, Sample
from kpdata.core.splits import stable_hash
from kpdata.pipelines.output.local import Workspace
from kpdata.pipelines.plan.file import Reference, read_plan
from kpdata.pipelines.request import Request
from kpdata.pipelines.write.render import Rendered, render
from kpdata.shards import records, tfrecord
from kpdata.shards.fetch import Fetcher
from kpdata.shards.manifest import Count, ShardInfo, software
from kpdata.shards.tally import Tally
from kpdata.storage.atomic import write_atomically
from kpdata.storage.files import file_blake3
from kpdata.storage.parallel import ahead, announced

_IMAGES_AHEAD = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""


PICTURE_BYTES = 16
"""Bytes that a report has for the picture of each record."""


class ShardReport(msgspec.Struct, frozen=True):
    """What one shard holds. It is written last, so a report means that the shard is whole.

    Attributes:
        plan_blake3: hash of the plan that the shard was written from.
        shard: the shard's entry in the manifest.
        samples: source images that gave at least one record.
        copies: augmented records.
        instances, visibility: of the originals; visibility is (K, 3) counts of v = 0, 1, 2.
        sizes: ``min_width``, ``max_width``, ``min_height`` and ``max_height`` of its pictures.
        counts: what was changed or left out, by name.
        rejected: samples that were refused while the shard was written.
        pictures: for each record, eight bytes of the BLAKE3 of its picture and the eight of its
            group's :func:`~kpdata.core.splits.stable_hash`: who has them all can find a picture
            that lies in two splits.
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
    pictures: bytes


class _ShardTally(Tally):
    """Counts a shard's records for its report."""

    def __init__(self, num_keypoints: int):
        super().__init__(num_keypoints)
        self.counts: Counter[str] = Counter()
        self.rejected: list[Rejected] = []
        self._pictures = bytearray()
        self._widths: list[int] = []
        self._heights: list[int] = []

    def add(self, sample: Sample) -> None:
        """Count a record, and note its picture."""
        super().add(sample)
        self._pictures += blake3(sample.image.data or b"").digest(length=8)
        self._pictures += stable_hash(sample.split_group).to_bytes(8, "little")
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
            dict(+self.counts), self.rejected, bytes(self._pictures),
        )  # fmt: skip


def _extremes(known: list[int], value: int) -> list[int]:
    return [min([value, *known]), max([value, *known])]


def report_bytes(report: ShardReport) -> bytes:
    """What a report file holds: the report, and a line with its own BLAKE3."""
    text = msgspec.json.encode(report)
    return b"%b\n%b\n" % (text, blake3(text).hexdigest().encode())


def whole_report(data: bytes, plan_blake3: str, size: int | None) -> ShardReport | None:
    """The report in ``data``, if its shard is whole and was made from this very plan.

    The shard's bytes are not read: compare them with the report's hash before you trust a shard of
    an earlier run.

    Args:
        data: a report file's content. It may be damaged, as after a crash of the machine.
        plan_blake3: hash of the current plan.
        size: bytes of the shard file; None where there is no file.
    """
    text, _, digest = data.rstrip(b"\n").rpartition(b"\n")
    if blake3(text).hexdigest().encode() != digest:
        return None
    try:
        report = msgspec.json.decode(text, type=ShardReport)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    expected = plan_blake3, size, PICTURE_BYTES * report.shard.records
    found = report.plan_blake3, report.shard.bytes, len(report.pictures)
    return report if found == expected else None


def write_shard(workspace: Workspace, name: str, spare_cores: bool) -> ShardReport:
    """Write the shard ``name`` from its plan file, then its report.

    A runner may ask for a shard twice. A shard that is whole already is not written again.

    Args:
        workspace: holds the plan, and gets the shard.
        name: the shard's file name.
        spare_cores: whether a core is idle, so that a second thread may decode.

    Raises:
        OSError: the disk is full, or the folder is gone. No partial shard is left.
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
    write_atomically(workspace.report_path(name), report_bytes(report), durable=False)
    return report


def write_planned(workspace: Workspace, spare_cores: bool, shard: str) -> ShardReport:
    """Write a shard into a local folder or a store; on failure, leave a note for the driver."""
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
                f"worker on {socket.gethostname()}: {name} is {found}, but {expected} on the "
                "machine that started the conversion, so that pictures may differ: install the "
                "same on every machine, and restart the workers"
            )


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next picture: new memory from the system is slow."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 256 << 20)


def _open_ahead(
    references: Iterator[Reference], fetcher: Fetcher, split: str, request: Request, depth: int
) -> Generator[tuple[Reference, Callable[[], Rendered]], None, None]:
    """Yield each reference with a function that returns its records.

    The images of the next references are read meanwhile.

    Args:
        references: the shard's.
        fetcher: reads their images.
        split: the shard's.
        request: how to render.
        depth: how many images a second thread may open ahead; 0 opens each when it is needed.
    """

    def announce(reference: Reference) -> None:
        fetcher.announce(reference.sample.image, reference.stamp)

    def open_one(reference: Reference) -> Rendered:
        data = fetcher.fetch(reference.sample.image, reference.stamp)
        return render(reference.sample, data, split, request)

    return ahead(open_one, announced(announce, references, fetcher.depth), depth)


def _write_sample(
    sample: Sample, wait: Callable[[], Rendered], writer: tfrecord.Writer, tally: _ShardTally
) -> None:
    """Write all records of a sample or, where one of them is bad, none, and list the sample."""
    try:
        rendered = wait()
        made = list(rendered.records)
        encoded = [records.encode_parts(record) for record in made]
    except (ImageError, SchemaError, DatasetError) as error:
        reason = error.reason if isinstance(error, ImageError) else "bad values"
        tally.rejected.append(Rejected(sample.key, reason, _at(sample.image.uri, error)))
        return
    for record, parts in zip(made, encoded, strict=True):
        writer.write(*parts)
        tally.add(record)
    tally.samples += bool(made)
    tally.counts += rendered.counts


def _at(uri: str, error: KpdataError) -> str:
    return str(error) if uri in str(error) else f"{uri}: {error}"
