"""Read a shard folder, without TensorFlow or Beam."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from blake3 import blake3

from kpdata.core.errors import DatasetError, UnknownSplit, located
from kpdata.core.sample import Sample
from kpdata.core.skeleton import Skeleton
from kpdata.shards import records, tfrecord
from kpdata.shards.manifest import Manifest, ShardInfo, compute_root_hash, read_manifest

RECORD_SCHEME = "tfrecord:"
"""The scheme of URIs of images inside shards: ``tfrecord:OFFSET:K:PATH``."""


@dataclass(frozen=True)
class Split:
    """One split of a dataset. Iterating it yields its samples, in the order of the shards."""

    dataset: "Dataset"
    name: str

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """Its shard files."""
        return self.dataset.manifest.splits[self.name].shards

    def __len__(self) -> int:
        return self.dataset.manifest.splits[self.name].records

    def __iter__(self) -> Iterator[Sample]:
        for shard in self.shards:
            for _, sample in self.dataset.read_shard(shard):
                yield sample


@dataclass(frozen=True)
class Dataset:
    """A shard folder.

    Attributes:
        folder: where it is.
        manifest: what it holds.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a folder by its ``kpdata.json``; shards are not opened yet.

        Raises:
            DatasetError: there is no manifest, or it does not match its own root hash.
        """
        dataset = cls(Path(folder), read_manifest(Path(folder)))
        if compute_root_hash(dataset.manifest) != dataset.manifest.root_hash:
            raise DatasetError(f"{folder}: the manifest was changed: see `kpdata verify {folder}`")
        return dataset

    @property
    def skeleton(self) -> Skeleton:
        """What the K keypoints of every instance are."""
        return self.manifest.skeleton

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits' names."""
        return tuple(self.manifest.splits)

    def __getitem__(self, split: str) -> Split:
        if split not in self.manifest.splits:
            raise UnknownSplit(
                f"{self.folder} has no split {split!r}; it has {', '.join(self.splits)}"
            )
        return Split(self, split)

    def read_shard(self, shard: ShardInfo) -> Iterator[tuple[int, Sample]]:
        """Yield (offset, sample) for every record of one shard.

        Raises:
            DatasetError, SchemaError: a record is damaged, and is not yielded; or, after the last
                record, the file is not the one that the manifest describes.
        """
        path = self.shard_path(shard)
        digest, found = blake3(), 0
        for offset, payload in tfrecord.read(path, digest=digest):
            with located(f"{path}: record {found} at byte {offset}"):
                sample = records.decode(payload, len(self.skeleton))
            yield offset, sample
            found += 1
        if found != shard.records:
            raise DatasetError(f"{path} holds {found} records, the manifest says {shard.records}")
        if digest.hexdigest() != shard.blake3:
            raise DatasetError(
                f"{path}: its {found} records are whole, but its BLAKE3 differs from the "
                "manifest's: it is another file"
            )

    def shard_path(self, shard: ShardInfo) -> Path:
        """The path of a shard; raises DatasetError if its file is missing."""
        path = self.folder / shard.name
        if not path.is_file():
            raise DatasetError(f"{path} is missing: the manifest lists it")
        return path

    def record_uri(self, shard: ShardInfo, offset: int) -> str:
        """A URI of the record at ``offset``, for :func:`read_record`; it holds an absolute path."""
        return f"{RECORD_SCHEME}{offset}:{len(self.skeleton)}:{self.shard_path(shard).absolute()}"


def name_of(uri: str) -> str:
    """The record of ``uri`` in words, for messages."""
    offset, _, path = uri.removeprefix(RECORD_SCHEME).split(":", 2)
    return f"{path}: record at byte {offset}"


def read_record(uri: str) -> Sample:
    """Read the record of ``uri``; raises DatasetError if it is damaged."""
    offset, num_keypoints, path = uri.removeprefix(RECORD_SCHEME).split(":", 2)
    for _, payload in tfrecord.read(path, int(offset)):
        with located(name_of(uri)):
            return records.decode(payload, int(num_keypoints))
    raise DatasetError(f"{path}: no record at byte {offset}: the file is cut short")
