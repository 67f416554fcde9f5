"""A dataset on a store, read through a temporary folder that is filled as it is asked for."""

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

    A shard is downloaded when it is first read, and kept until :meth:`release`, or until nobody
    refers to the remote any more.

    Attributes:
        folder: the temporary folder; a shard that is not here yet is an empty file.
        url: the dataset's place.
    """

    url: Url
    _scratch: "tempfile.TemporaryDirectory[str]"

    @classmethod
    def of(cls, url: Url) -> "RemoteDataset":
        """Download all but the shards.

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
        """Where a shard's copy is; DatasetError where the store has none."""
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
        """What :meth:`Dataset.read_shard` yields or raises, which speaks of the store's shard."""
        with errors_naming(self.folder, self.url):
            yield from super().read_shard(shard)

    def release(self, shard: ShardInfo) -> None:
        """Give the room of a shard's copy back."""
        (self.folder / shard.name).write_bytes(b"")


def open_remote(url: Url) -> RemoteDataset:
    """What :meth:`Dataset.open` is for a folder."""
    remote = RemoteDataset.of(url)
    if compute_root_hash(remote.manifest) != remote.manifest.root_hash:
        raise DatasetError(f"{url}: the manifest was changed: see `kpdata verify {url}`")
    return remote
