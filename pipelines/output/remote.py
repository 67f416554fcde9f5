"""An output on a store: local temporary folders, and uploads from them.

The driver plans and seals in a temporary folder of its own. Plans, reports, progress notes and
failure notes are objects below ``OUT/.kpdata/``. A worker writes its shard into a temporary folder,
by the same code as for an output on a disk. It uploads the whole shard, then the report. The
manifest is uploaded last.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from kpdata.core.errors import DatasetError, KpdataError, StoreError
from kpdata.pipelines.output.local import Workspace, refused
from kpdata.pipelines.output.lock import FolderLock, require_claim
from kpdata.pipelines.output.notes import ProgressNote, add_notes
from kpdata.shards.manifest import MANIFEST
from kpdata.storage.files import file_blake3
from kpdata.storage.parallel import in_parallel
from kpdata.storage.stores import Location, MissingObject, Store, Url, any_of, store_of

_SECONDS_BETWEEN_NOTES = 2.0
_MAX_NOTE_BYTES = 1 << 16
_MAX_REPORT_BYTES = 256 << 20


@dataclass(frozen=True)
class _Staging(Workspace):
    """A worker's temporary folder, from which a finished shard is uploaded."""

    remote: "RemoteWorkspace"
    durable: ClassVar[bool] = False

    def size_of(self, shard: str) -> int | None:
        """Bytes of the shard on the store; None where it is not there."""
        found = store_of(self.remote.url).find(self.remote.url / shard)
        return found and found.size

    def progress(self, shard: str) -> ProgressNote:
        """Progress notes go to the store, where the driver reads them."""
        url = self.remote.work / "progress" / shard
        return ProgressNote(lambda note: store_of(url).put(url, note), _SECONDS_BETWEEN_NOTES)


@dataclass(frozen=True)
class RemoteWorkspace(Workspace):
    """An output on a store.

    Attributes:
        out: the driver's local temporary folder.
        url: the dataset's folder on the store.
        claim: the lock's object; nothing is uploaded once it is gone.
    """

    url: Url
    claim: Url
    _seen: "_Notes" = field(default_factory=lambda: _Notes(), compare=False, repr=False)

    @property
    def location(self) -> Location:
        """The output as the user named it."""
        return self.url

    @property
    def work(self) -> Url:
        """The folder of plans, reports and notes."""
        return self.url / ".kpdata"

    @property
    def _mark(self) -> Url:
        return self.work / "begun"

    @property
    def _fingerprint(self) -> Url:
        return self.work / "fingerprint.json"

    def fingerprint(self) -> bytes | None:
        """The fingerprint of an unfinished conversion that left shards there; None without any."""
        if self.sizes():
            with contextlib.suppress(MissingObject):
                return self._store.read(self._fingerprint, _MAX_REPORT_BYTES)[1]
        return None

    def keep_fingerprint(self, what: bytes) -> None:
        """Store the conversion's fingerprint until the conversion is finished."""
        require_claim(self.claim)
        self._store.put(self._fingerprint, what)

    @property
    def _store(self) -> Store:
        return store_of(self.url)

    @property
    def sealed(self) -> bool:
        """Whether a finished dataset is there."""
        return self._store.find(self.url / MANIFEST) is not None

    @contextlib.contextmanager
    def staged(self, shard: str) -> Iterator[Workspace]:
        """A temporary folder with the shard's plan and, if it was written already, its report.

        When the block ends, a shard that was written into it is uploaded.
        """
        report = self.work / "reports" / f"{shard}.json"
        with tempfile.TemporaryDirectory(prefix="kpdata-") as folder:
            here = _Staging(Path(folder), self)
            here.start()
            self._store.download(self.work / "plan" / f"{shard}.plan", here.plan_path(shard))
            with contextlib.suppress(MissingObject):
                found = self._store.read(report, _MAX_REPORT_BYTES)[1]
                here.report_path(shard).write_bytes(found)
            yield here
            if not (here.out / shard).exists():
                return
            require_claim(self.claim)
            self._store.upload(here.out / shard, self.url / shard)
            self._store.upload(here.report_path(shard), report)

    def prepare(self, shards: Iterable[str]) -> None:
        """Remove these shards' old reports, and upload their plans."""
        shards = list(shards)
        require_claim(self.claim)
        self._store.delete(self._reports_there(shards).values())

        def upload(shard: str) -> None:
            self._store.upload(self.plan_path(shard), self.work / "plan" / f"{shard}.plan")

        for _ in in_parallel(upload, shards):
            pass

    def publish(self, names: Iterable[str]) -> None:
        """Upload files of ``out`` in this order."""
        for name in names:
            require_claim(self.claim)
            self._store.upload(self.out / name, self.url / name)

    def sizes(self) -> dict[str, int]:
        """Shard → bytes, for every shard on the store, planned or not."""
        found = self._store.list(self.url)
        return {one.name: one.size for one in found if _is_shard(one.name)}

    def blake3_of(self, shard: str) -> str:
        """Hex BLAKE3 of a shard, which is downloaded for that."""
        with tempfile.TemporaryDirectory(prefix="kpdata-") as folder:
            here = Path(folder) / shard
            self._store.download(self.url / shard, here)
            return file_blake3(here)

    def reports(self, shards: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (shard, report's content) for those of these shards that have a report."""

        def read(item: tuple[str, Url]) -> tuple[str, bytes]:
            return item[0], self._store.read(item[1], _MAX_REPORT_BYTES)[1]

        return in_parallel(read, self._reports_there(shards).items())

    def _reports_there(self, shards: Iterable[str]) -> dict[str, Url]:
        """Shard → its report's URL, by one listing; only shards that have a report."""
        folder = self.work / "reports"
        there = {one.name for one in self._store.list(folder)}
        named = ((shard, f"{shard}.json") for shard in shards)
        return {shard: folder / name for shard, name in named if name in there}

    def remove(self, shards: Iterable[str]) -> None:
        """Delete shards."""
        require_claim(self.claim)
        self._store.delete(self.url / shard for shard in shards)

    def note_failure(self, shard: str, why: str) -> None:
        """Write down why a worker gave up a shard, if the store still takes it."""
        with contextlib.suppress(StoreError):
            self._store.put(self.work / "failures" / shard, why.encode())

    def failures(self) -> list[str]:
        """The notes that :meth:`note_failure` left in this run."""
        folder = self.work / "failures"
        names = sorted(one.name for one in self._store.list(folder))
        return [self._store.read(folder / name, _MAX_NOTE_BYTES)[1].decode() for name in names]

    def progress_so_far(self) -> tuple[int, int]:
        """(samples, bytes) that all workers had written a few seconds ago."""
        with contextlib.suppress(StoreError):  # progress is not worth ending the job
            self._seen.look(self._store, self.work / "progress")
        return add_notes(self._seen.notes.values())

    def start(self) -> None:
        """Make the local folders, and remove the last run's plans and notes from the store.

        A marker object shows that the folder belongs to a conversion, so that a later run does not
        refuse it for not being empty.
        """
        super().start()
        self._store.put(self._mark, b"kpdata")
        for name in ("plan", "progress", "failures"):
            self._sweep(self.work / name)

    def finish(self) -> None:
        """Remove everything but the dataset and the claim."""
        for name in ("plan", "progress", "failures", "reports"):
            self._sweep(self.work / name)
        self._store.delete([self._mark, self._fingerprint])

    def forget_empty_work(self) -> None:
        """Do what :meth:`finish` does, if there are no shards or reports for the next run to keep.

        Raises:
            JobError: the claim is gone, so the folder may be another conversion's by now.
        """
        require_claim(self.claim)
        begun = any_of(self._store, self.work / "reports") or self.sizes()
        if not begun or self.sealed:
            self.finish()

    def _sweep(self, folder: Url) -> None:
        self._store.delete(folder / one.name for one in self._store.list(folder))


class _Notes:
    """The driver's copy of all progress notes; only those that changed are read again."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}
        self._versions: dict[str, int] = {}
        self._looked = 0.0

    def look(self, store: Store, folder: Url) -> None:
        """Read the notes that changed, at most every few seconds."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_NOTES:
            return
        self._looked = time.monotonic()
        new = [one for one in store.list(folder) if self._versions.get(one.name) != one.version]
        notes = in_parallel(lambda one: store.read(folder / one.name, _MAX_NOTE_BYTES)[1], new)
        for one, note in zip(new, notes, strict=True):
            self._versions[one.name] = one.version
            self.notes[one.name] = note


def _is_shard(name: str) -> bool:
    return name.endswith(".tfrecord") and "/" not in name


@contextlib.contextmanager
def open_remote_workspace(url: Url) -> Iterator[RemoteWorkspace]:
    """Lock a folder on a store for one conversion until the block ends.

    Raises:
        DatasetError: the folder holds something else, or another conversion is writing to it.
        StoreError: the store refuses, or cannot be reached.
        JobError: the local disk is full, or the claim was lost.
    """
    _check_claimable(url)
    lock = FolderLock(url)
    try:
        lock.take()
        lock.keep()
        with tempfile.TemporaryDirectory(prefix="kpdata-") as folder:
            remote = RemoteWorkspace(Path(folder), url, lock.url)
            yield from _at_work(remote)
    finally:
        with contextlib.suppress(StoreError):  # an old claim counts as dead anyway
            lock.release()


def _at_work(remote: RemoteWorkspace) -> Iterator[RemoteWorkspace]:
    try:
        remote.start()
        yield remote
        if remote.sealed:
            remote.finish()
        else:
            remote.forget_empty_work()
    except BaseException as error:
        with contextlib.suppress(KpdataError):
            remote.forget_empty_work()
        if not isinstance(error, OSError):
            raise
        raise refused(error, remote.out) from error


def _check_claimable(url: Url) -> None:
    store = store_of(url)
    if store.find(url / MANIFEST) or any_of(store, url / ".kpdata"):
        return
    if other := any_of(store, url):
        raise DatasetError(
            f"{url} is not empty (it holds {other.name!r}): choose a new or an empty folder"
        )
