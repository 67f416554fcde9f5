"""A dataset on a store, read through a temporary folder; shards are downloaded when needed."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kpdata.core.errors import DatasetError
from kpdata.core.sample import Sample
from kpdata.shards.dataset import Dataset, Split
from kpdata.shards.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    QUARANTINE,
    ShardInfo,
    compute_root_hash,
    read_manifest,
)
from kpdata.storage.stores import MissingObject, Url, errors_naming, store_of

_SHARD_LIKE = re.compile(r"\w[\w.-]*\.tfrecord[\w.-]*")
_OTHERS = (MANIFEST, QUARANTINE, "dataset_info.json", "features.json")


@dataclass(frozen=True)
class RemoteDataset(Dataset):
    """A dataset on a store.

    A shard is downloaded when it is first read. The copy is kept until :meth:`release`, or until
    this object is garbage.

    Attributes:
        folder: the temporary folder; a shard that is not downloaded yet is an empty file.
        url: of the dataset.
    """

    url: Url
    _scratch: "tempfile.TemporaryDirectory[str]"

    @classmethod
    def of(cls, url: Url) -> "RemoteDataset":
        """Download everything but the shards.

        Raises:
            DatasetError: there is no readable manifest.
            StoreError: the store refuses, or cannot be reached.
        """
        store = store_of(url)
        scratch = tempfile.TemporaryDirectory(prefix="kpdata-")
        folder = Path(scratch.name)
        for found in store.list(url):
            if found.name in _OTHERS:
                if found.name == MANIFEST and found.size > MAX_MANIFEST_BYTES:
                    raise DatasetError(f"{url / MANIFEST}: larger than any manifest")
                store.download(url / found.name, folder / found.name)
            elif _SHARD_LIKE.fullmatch(found.name):
                (folder / found.name).touch()
        with errors_naming(folder, url):
            return cls(folder, read_manifest(folder), url, scratch)

    def shard_path(self, shard: ShardInfo) -> Path:
        """The path of a shard's copy; raises DatasetError if the store does not have it."""
        path = self.folder / shard.name
        if not (path.is_file() and path.stat().st_size):
            try:
                store_of(self.url).download(self.url / shard.name, path)
            except MissingObject:
                raise DatasetError(
                    f"{self.url / shard.name} is missing: the manifest lists it"
                ) from None
        return path

    def __getitem__(self, split: str) -> Split:
        with errors_naming(self.folder, self.url):
            return super().__getitem__(split)

    def read_shard(self, shard: ShardInfo) -> Iterator[tuple[int, Sample]]:
        """Do what :meth:`Dataset.read_shard` does; errors name the URL, not the copy."""
        with errors_naming(self.folder, self.url):
            yield from super().read_shard(shard)

    def release(self, shard: ShardInfo) -> None:
        """Delete the content of a shard's copy, to free disk space."""
        (self.folder / shard.name).write_bytes(b"")


def open_remote(url: Url) -> RemoteDataset:
    """Open a dataset on a store; raises as :meth:`Dataset.open` does."""
    remote = RemoteDataset.of(url)
    if compute_root_hash(remote.manifest) != remote.manifest.root_hash:
        raise DatasetError(f"{url}: the manifest was changed: see `kpdata verify {url}`")
    return remote
