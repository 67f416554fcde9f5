"""The output folder of a running conversion: plans, reports, progress notes, the lock.

All of these lie in ``.kpdata/`` inside the output folder. It is removed when the manifest is
written. For an output on a store see :mod:`kpdata.pipelines.output.remote`.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from kpdata.core.errors import DatasetError, JobError, shortage
from kpdata.pipelines.output.notes import ProgressNote, add_notes
from kpdata.shards.manifest import MANIFEST
from kpdata.storage.atomic import write_atomically
from kpdata.storage.files import file_blake3
from kpdata.storage.stores import Location

_FINGERPRINT = "fingerprint.json"


def holds_text(path: Path) -> bool:
    """Whether a file exists and is not empty."""
    return path.is_file() and path.stat().st_size > 0


@dataclass(frozen=True)
class Workspace:
    """An output folder, and the files of the conversion that runs in it.

    Attributes:
        out: the dataset's folder.
        durable: whether a shard is synced to disk before it counts as whole.
    """

    out: Path
    durable: ClassVar[bool] = True

    @property
    def location(self) -> Location:
        """The output as the user named it."""
        return self.out

    @property
    def folder(self) -> Path:
        """The folder ``.kpdata``, for everything that is not part of the dataset."""
        return self.out / ".kpdata"

    @property
    def plan_folder(self) -> Path:
        """The folder of the plan files."""
        return self.folder / "plan"

    def plan_path(self, shard: str) -> Path:
        """A shard's plan file."""
        return self.plan_folder / f"{shard}.plan"

    def report_path(self, shard: str) -> Path:
        """A shard's report file, which exists once the shard is whole."""
        return self.folder / "reports" / f"{shard}.json"

    @property
    def lock_path(self) -> Path:
        """The file that a running conversion locks."""
        return self.folder / "lock"

    def fingerprint(self) -> bytes | None:
        """The fingerprint of an unfinished conversion that left shards here; None without any."""
        if any(self.sizes()):
            with contextlib.suppress(FileNotFoundError):
                return (self.folder / _FINGERPRINT).read_bytes()
        return None

    def keep_fingerprint(self, what: bytes) -> None:
        """Store the conversion's fingerprint until the conversion is finished."""
        write_atomically(self.folder / _FINGERPRINT, what)

    @property
    def log_path(self) -> Path:
        """The file that gets what worker processes print."""
        return self.folder / "workers.log"

    def staged(self, shard: str) -> AbstractContextManager["Workspace"]:
        """The local workspace in which a worker writes a shard; here, this one."""
        return contextlib.nullcontext(self)

    def prepare(self, shards: Iterable[str]) -> None:
        """Prepare for writing these shards: remove their old reports, make their plans readable."""
        for shard in shards:
            self.report_path(shard).unlink(missing_ok=True)

    def publish(self, names: Iterable[str]) -> None:
        """Upload files of ``out``, in this order, to an output on a store; here, do nothing."""

    def sizes(self) -> dict[str, int]:
        """Shard → bytes, for every shard file in ``out``, planned or not."""
        return {path.name: path.stat().st_size for path in self.out.glob("*.tfrecord")}

    def blake3_of(self, shard: str) -> str:
        """Hex BLAKE3 of a shard file."""
        return file_blake3(self.out / shard)

    def size_of(self, shard: str) -> int | None:
        """Bytes of a shard file; None where there is no such file."""
        with contextlib.suppress(FileNotFoundError):
            return (self.out / shard).stat().st_size
        return None

    def reports(self, shards: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (shard, report file's content) for those of these shards that have a report."""
        for shard in shards:
            with contextlib.suppress(FileNotFoundError):
                yield shard, self.report_path(shard).read_bytes()

    def remove(self, shards: Iterable[str]) -> None:
        """Delete shard files."""
        for shard in shards:
            (self.out / shard).unlink()

    def note_failure(self, shard: str, why: str) -> None:
        """Write down why a worker gave up a shard. On a full disk the note is an empty file."""
        with contextlib.suppress(OSError):
            (self.folder / "failures" / shard).write_text(why)

    def failures(self) -> list[str]:
        """The notes that :meth:`note_failure` left in this run."""
        full = f"{os.strerror(errno.ENOSPC)}: {self.out}"
        notes = sorted((self.folder / "failures").iterdir())
        return [path.read_text() or full for path in notes]

    def progress(self, shard: str) -> ProgressNote:
        """Where the worker that writes a shard notes its progress."""
        return ProgressNote((self.folder / "progress" / shard).write_bytes)

    def progress_so_far(self) -> tuple[int, int]:
        """(samples, bytes) that all workers have written in this run."""
        notes = []
        for path in (self.folder / "progress").iterdir():
            with contextlib.suppress(FileNotFoundError):
                notes.append(path.read_bytes())
        return add_notes(notes)

    def start(self) -> None:
        """Make the folders, and remove plans, notes and temporary files of the last run."""
        for name in ("plan", "progress", "failures"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("plan", "progress", "failures", "reports"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.log_path.unlink(missing_ok=True)
        self.sweep_temporary_files()

    def sweep_temporary_files(self) -> None:
        """Remove the temporary files that killed processes left."""
        for path in (*self.out.glob(".*.tmp"), *(self.folder / "reports").glob(".*.tmp")):
            path.unlink(missing_ok=True)

    @property
    def begun(self) -> bool:
        """Whether there are shards, reports or a log that the next run or the user can use."""
        shards, reports = self.out.glob("*.tfrecord"), self.folder.glob("reports/*")
        return any(shards) or any(reports) or holds_text(self.log_path)

    @property
    def sealed(self) -> bool:
        """Whether ``out`` holds a finished dataset, which must not be changed."""
        return (self.out / MANIFEST).is_file()

    def finish(self) -> None:
        """Remove everything but the dataset."""
        self.sweep_temporary_files()
        self.remove_folder()

    def remove_folder(self) -> None:
        """Remove ``.kpdata``, its lock last: another conversion may take the lock at once."""
        for path in self.folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != self.lock_path:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.lock_path.unlink()
            self.folder.rmdir()


@dataclass(frozen=True)
class _Finished(Workspace):
    """A finished dataset in a read-only folder: the files of the conversion go elsewhere."""

    scratch: Path

    @property
    def folder(self) -> Path:
        """A temporary folder."""
        return self.scratch

    def sweep_temporary_files(self) -> None:
        """Do nothing: the folder is read-only."""


@contextlib.contextmanager
def open_workspace(out: Path) -> Iterator[Workspace]:
    """Lock ``out`` for one conversion until the block ends.

    ``out`` is made if it is missing, and removed again if nothing worth keeping was written.

    Raises:
        DatasetError: ``out`` is a file, holds something else, or another conversion uses it.
        JobError: the disk is full, or another OSError.
    """
    workspace = Workspace(out)
    created = not out.exists()
    _check_claimable(workspace)
    if workspace.sealed and not os.access(out, os.W_OK):
        with tempfile.TemporaryDirectory(prefix="kpdata-") as scratch:
            finished = _Finished(out, Path(scratch))
            finished.start()
            yield finished
        return
    with _locked(workspace):
        try:
            workspace.start()
            yield workspace
            if workspace.sealed:
                workspace.finish()
            else:
                _forget_empty_work(workspace, created)
        except BaseException as error:
            workspace.sweep_temporary_files()
            _forget_empty_work(workspace, created)
            if not isinstance(error, OSError):
                raise
            raise refused(error, out) from error


@contextlib.contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    lock = _open_lock(workspace)
    while not _is_at(lock, workspace.lock_path):  # the last conversion has removed it meanwhile
        lock.close()
        lock = _open_lock(workspace)
    with lock:
        yield


def _open_lock(workspace: Workspace) -> TextIO:
    workspace.folder.mkdir(parents=True, exist_ok=True)
    lock = open(workspace.lock_path, "w")  # noqa: SIM115 - the caller closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise DatasetError(
            f"{workspace.out}: another conversion is writing to this folder: wait for it, "
            "or choose another `out`"
        ) from None
    return lock


def _is_at(file: TextIO, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def refused(error: OSError, out: Location) -> JobError:
    """The JobError for an OSError such as a full disk."""
    what = shortage(error) or f"{error.strerror or error}: {error.filename or out}"
    return JobError(f"{what}. Put this right and run the same command again.")


def _check_claimable(workspace: Workspace) -> None:
    out = workspace.out
    if out.exists() and not out.is_dir():
        raise DatasetError(f"out is {out}, which is a file: name a folder to write shards into")
    others = sorted(os.listdir(out)) if out.exists() else []
    if others and workspace.folder.name not in others and not workspace.sealed:
        raise DatasetError(
            f"{out} is not empty (it holds {others[0]!r}): choose a new or an empty folder"
        )


def _forget_empty_work(workspace: Workspace, created: bool) -> None:
    if workspace.begun and not workspace.sealed:
        return
    workspace.remove_folder()
    if created:
        with contextlib.suppress(OSError):
            workspace.out.rmdir()
