"""The output folder while a conversion works in it: plans, reports, progress, the lock.

Everything lives in ``.kpdata/`` and is swept when the manifest is written.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from kpdata.errors import DatasetError, JobError
from kpdata.manifest import MANIFEST

_COUNTS = struct.Struct("<QQ")
_SECONDS_BETWEEN_NOTES = 0.2


class Progress:
    """A worker's side of the progress bar: appends (samples, bytes) to a small file."""

    def __init__(self, path: Path):
        self._path = path
        self._samples = self._bytes = 0
        self._noted = 0.0

    def advance(self, samples: int, bytes_so_far: int) -> None:
        """Count ``samples`` more; the file is written a few times a second at most."""
        self._samples += samples
        self._bytes = bytes_so_far
        if time.monotonic() - self._noted > _SECONDS_BETWEEN_NOTES:
            self._note()

    def _note(self) -> None:
        self._noted = time.monotonic()
        self._path.write_bytes(_COUNTS.pack(self._samples, self._bytes))

    def __enter__(self) -> Self:
        self._note()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._note()


@dataclass(frozen=True)
class Workspace:
    """Paths below an output folder.

    Attributes:
        out: the dataset's folder.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """Where the work is kept."""
        return self.out / ".kpdata"

    @property
    def plan_folder(self) -> Path:
        """Where plan files are."""
        return self.folder / "plan"

    def plan_path(self, shard: str) -> Path:
        """A shard's plan file."""
        return self.plan_folder / f"{shard}.plan"

    def report_path(self, shard: str) -> Path:
        """A shard's report, there once the shard is whole."""
        return self.folder / "reports" / f"{shard}.json"

    @property
    def log_path(self) -> Path:
        """What the embedded runner's worker processes print."""
        return self.folder / "workers.log"

    def tell_failure(self, shard: str, why: str) -> None:
        """Leave a note on why a worker gave a shard up, an empty one where the disk is full."""
        with contextlib.suppress(OSError):
            (self.folder / "failures" / shard).write_text(why)

    def failures(self) -> list[str]:
        """The workers' notes."""
        full = f"{os.strerror(errno.ENOSPC)}: {self.out}"
        notes = sorted((self.folder / "failures").iterdir())
        return [path.read_text() or full for path in notes]

    def progress(self, shard: str) -> Progress:
        """The worker's progress note for a shard."""
        return Progress(self.folder / "progress" / shard)

    def progress_so_far(self) -> tuple[int, int]:
        """Samples and bytes that all workers have written in this run."""
        samples = size = 0
        for path in (self.folder / "progress").iterdir():
            with contextlib.suppress(struct.error, FileNotFoundError):
                note = _COUNTS.unpack(path.read_bytes())
                samples, size = samples + note[0], size + note[1]
        return samples, size

    def start(self) -> None:
        """Make the folders, empty of the last run's plans, notes and half files."""
        for name in ("plan", "progress", "failures"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("plan", "progress", "failures", "reports"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.sweep_temporary_files()

    def sweep_temporary_files(self) -> None:
        """Remove what killed writers left."""
        for path in (*self.out.glob(".*.tmp"), *(self.folder / "reports").glob(".*.tmp")):
            path.unlink(missing_ok=True)

    @property
    def sealed(self) -> bool:
        """Whether a finished dataset lies here: the work may look at it, but not touch it."""
        return (self.out / MANIFEST).is_file()

    def finish(self) -> None:
        """Remove all traces of the work."""
        self.sweep_temporary_files()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def open_workspace(out: Path) -> Iterator[Workspace]:
    """Claim ``out`` for one conversion, and keep others away while it runs.

    A folder that this call made is removed again if nothing worth keeping was put into it. One that
    holds a finished dataset already is ``sealed``.

    Raises:
        DatasetError: it is a file, holds something else, or another conversion is writing to it.
        JobError: the disk is full, or refuses otherwise.
    """
    workspace = Workspace(out)
    created = not out.exists()
    _check_claimable(workspace)
    workspace.folder.mkdir(parents=True, exist_ok=True)
    with open(workspace.folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DatasetError(
                f"{out}: another conversion is writing to this folder: wait for it, "
                "or choose another --out"
            ) from None
        try:
            workspace.start()
            yield workspace
            workspace.finish()
        except BaseException as error:
            workspace.sweep_temporary_files()
            _forget_empty_work(workspace, created)
            if not isinstance(error, OSError):
                raise
            raise JobError(
                f"{error.strerror or error}: {error.filename or out}. "
                "Put this right and run the same command again."
            ) from error


def _check_claimable(workspace: Workspace) -> None:
    out = workspace.out
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out} is a file: --out names the folder to write shards into")
    others = sorted(os.listdir(out)) if out.exists() else []
    if others and workspace.folder.name not in others and not workspace.sealed:
        raise DatasetError(
            f"{out} is not empty (it holds {others[0]!r}): choose a new or an empty folder"
        )


def _forget_empty_work(workspace: Workspace, created: bool) -> None:
    begun = any(workspace.folder.glob("reports/*")) or any(workspace.out.glob("*.tfrecord"))
    if begun and not workspace.sealed:
        return
    shutil.rmtree(workspace.folder, ignore_errors=True)
    if created:
        with contextlib.suppress(OSError):
            workspace.out.rmdir()
