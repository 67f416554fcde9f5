"""Verify a shard folder: check every byte against the manifest, and look for leaks."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from kpdata.core.errors import DatasetError, KpdataError, located
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import MAX_SIDE, Sample
from kpdata.core.splits import TRAIN, stable_hash
from kpdata.images import codec
from kpdata.images.headers import probe
from kpdata.shards import tfds
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import (
    QUARANTINE,
    Manifest,
    ShardInfo,
    SplitInfo,
    compute_root_hash,
    read_manifest,
)
from kpdata.shards.quarantine import digest
from kpdata.shards.remote import RemoteDataset
from kpdata.shards.tally import Tally
from kpdata.storage.bounded import open_regular
from kpdata.storage.scratch import scratch_database
from kpdata.storage.stores import Location, as_location, errors_naming

_LEAKS_LISTED = 1000
_LONGEST_LINE = 1 << 20
"""Bytes of a line of ``quarantine.jsonl``; a longer one counts as damage."""


def verify(folder: str | Location, progress: Progress = SILENT) -> tuple[Manifest, list[str]]:
    """Check a whole dataset.

    Checked are every CRC and hash, every record and its image, all counts in the manifest, the root
    hash, and that no group, source image or identical picture lies in two splits. A fault in one
    shard does not hide faults in others.

    Args:
        folder: the dataset. From a store, one shard at a time is downloaded.
        progress: is told of each shard that was checked.

    Returns:
        The manifest, and a message for each fault; no messages for a sound dataset.

    Raises:
        DatasetError: there is no readable manifest.
        JobError: there is no room for a temporary database.
    """
    where = as_location(folder)
    if isinstance(where, Path):
        dataset = Dataset(where, read_manifest(where))
        return dataset.manifest, _faults(dataset, progress)
    remote = RemoteDataset.of(where)
    with errors_naming(remote.folder, where):
        faults = _faults(remote, progress)
    return remote.manifest, [fault.replace(str(remote.folder), where) for fault in faults]


def _faults(dataset: Dataset, progress: Progress) -> list[str]:
    with scratch_database(_Leaks.TABLES) as db:
        return [*_folder_faults(dataset), *_record_faults(dataset, progress, _Leaks(db))]


def _record_faults(dataset: Dataset, progress: Progress, leaks: "_Leaks") -> list[str]:
    faults: list[str] = []
    for split, info in dataset.manifest.splits.items():
        tally = Tally(len(dataset.skeleton))
        for shard in info.shards:
            try:
                _check_shard(dataset, split, shard, leaks, tally)
            except (KpdataError, OSError) as error:
                faults.append(str(error))
            if isinstance(dataset, RemoteDataset):
                dataset.release(shard)
            progress.advance()
        faults += _count_faults(split, tally, info)
    return faults + leaks.faults


def _folder_faults(dataset: Dataset) -> Iterator[str]:
    manifest, folder = dataset.manifest, dataset.folder
    if compute_root_hash(manifest) != manifest.root_hash:
        yield f"{folder}: the manifest does not match its root hash {manifest.root_hash}"
    quarantine = folder / QUARANTINE
    if _quarantine_digest(quarantine) != manifest.quarantine_sha256:
        yield f"{quarantine} is missing or was changed"
    for name, content in tfds.metadata(manifest).items():
        path = folder / name
        if not path.is_file() or not _holds(path, content):
            yield f"{path} is missing or does not follow from the manifest"
    listed = {shard.name for info in manifest.splits.values() for shard in info.shards}
    for path in sorted(folder.glob("*.tfrecord*")):
        if path.name not in listed:
            yield f"{path} is not in the manifest"


def _quarantine_digest(path: Path) -> str | None:
    try:
        with open_regular(path) as file:
            return digest(iter(lambda: file.readline(_LONGEST_LINE), b""))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _holds(path: Path, content: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def _check_shard(
    dataset: Dataset, split: str, shard: ShardInfo, leaks: "_Leaks", tally: Tally
) -> None:
    path = dataset.shard_path(shard)
    size = path.stat().st_size
    if size != shard.bytes:
        raise DatasetError(f"{path} has {size:,} bytes, the manifest says {shard.bytes:,}")
    for number, (offset, sample) in enumerate(dataset.read_shard(shard)):
        with located(f"{path}: record {number} at byte {offset}"):
            _check_image(sample)
            if sample.view and sample.view.copy and split != TRAIN:
                raise DatasetError(f"{sample.key} is an augmented copy in split {split}")
        tally.add(sample)
        tally.samples += leaks.see(sample, split)


def _check_image(sample: Sample) -> None:
    """Raise DatasetError unless the image has the hash, format and size that its record states."""
    image, data = sample.image, codec.stored_bytes(sample.image)
    found = hashlib.sha256(data).hexdigest()
    if found != image.sha256:
        raise DatasetError(
            f"image/key/sha256 is {image.sha256}, but the image's bytes give {found}"
        )
    header = probe(data, max_pixels=MAX_SIDE**2)
    seen = header.format, header.width, header.height
    if seen != (image.format, image.width, image.height):
        raise DatasetError(
            f"the image is a {seen[0]} of {seen[1]} × {seen[2]} pixels, its record says "
            f"{image.format} of {image.width} × {image.height}"
        )


def _count_faults(split: str, found: Tally, stated: SplitInfo) -> Iterator[str]:
    """Yield a message for each count that differs from the manifest's."""
    for what in ("samples", "records", "copies", "instances"):
        here, there = getattr(found, what), getattr(stated, what)
        if here != there:
            yield f"split {split} holds {here} {what}, the manifest says {there}"
    if not np.array_equal(found.visibility, stated.visibility):
        yield f"split {split}: the manifest counts its keypoints' visibility otherwise"


class _Leaks:
    """Finds groups, source images and pictures in two splits.

    It keeps a 64-bit hash of each with its split, in a temporary database.
    """

    TABLES = "CREATE TABLE seen (hash INTEGER PRIMARY KEY, split TEXT)"

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._found: list[str] = []
        self._more = 0

    def see(self, sample: Sample, split: str) -> bool:
        """Store a record's names; return whether its source image was not seen before."""
        self._note("group", sample.group, split)
        self._note("picture of sha256", sample.image.sha256, split)
        return self._note("image", sample.key, split)

    def _note(self, what: str, name: str | None, split: str) -> bool:
        hashed = stable_hash(f"{what}\0{name}") - 2**63  # SQLite's integers are signed
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (hashed, split))
        if added.rowcount:
            return True
        (first,) = self._db.execute("SELECT split FROM seen WHERE hash = ?", (hashed,)).fetchone()
        if first != split and len(self._found) < _LEAKS_LISTED:
            self._found.append(f"leak: {what} {name!r} is in split {first} and in split {split}")
        elif first != split:
            self._more += 1
        return False

    @property
    def faults(self) -> list[str]:
        """A message for each leak, up to _LEAKS_LISTED, and the number of the others."""
        return self._found + ([f"… and {self._more:,} more leaks"] if self._more else [])
