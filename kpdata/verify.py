"""Verify a shard folder: every byte against the manifest, and no leak across splits."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from kpdata import images, records, tfrecord
from kpdata.errors import DatasetError, KpdataError, located
from kpdata.manifest import QUARANTINE, Manifest, ShardInfo, compute_root_hash, file_sha256
from kpdata.schema import Sample
from kpdata.shards import Dataset
from kpdata.splits import TRAIN, stable_hash


def verify(
    folder: str | Path, on_bytes: Callable[[int], None] = lambda count: None
) -> tuple[Manifest, list[str]]:
    """Check a dataset whole.

    Every CRC and sha256, every record parsed and its image hashed, all counts against the
    manifest, the root hash, and that no group, source image or identical picture lies in two
    splits. A fault in one shard does not hide those in others.

    Args:
        folder: the dataset.
        on_bytes: called with the size of each shard once it is checked.

    Returns:
        The manifest, and a message for each fault; an empty list for a sound dataset.

    Raises:
        DatasetError: there is no readable manifest.
    """
    dataset = Dataset.open(folder)
    faults = list(_folder_faults(dataset))
    leaks = _Leaks()
    for split, info in dataset.manifest.splits.items():
        tally: Counter[str] = Counter()
        for shard in info.shards:
            try:
                _check_shard(dataset, split, shard, leaks, tally)
            except (KpdataError, OSError) as error:
                faults.append(str(error))
            on_bytes(shard.bytes)
        stated = {
            "records": info.records,
            "copies": info.copies,
            "instances": info.instances,
            "labelled keypoints": sum(row[1] + row[2] for row in info.visibility),
        }
        faults += [
            f"split {split} holds {tally[what]} {what}, the manifest says {number}"
            for what, number in stated.items()
            if tally[what] != number
        ]
    return dataset.manifest, faults + leaks.faults


def _folder_faults(dataset: Dataset) -> Iterator[str]:
    manifest, folder = dataset.manifest, dataset.folder
    if compute_root_hash(manifest) != manifest.root_hash:
        yield f"{folder}: the manifest does not match its root hash {manifest.root_hash}"
    quarantine = folder / QUARANTINE
    if not quarantine.is_file() or file_sha256(quarantine) != manifest.quarantine_sha256:
        yield f"{quarantine} is missing or was changed"
    listed = {shard.name for info in manifest.splits.values() for shard in info.shards}
    for path in sorted(folder.glob("*.tfrecord*")):
        if path.name not in listed:
            yield f"{path} is not in the manifest"


def _check_shard(
    dataset: Dataset, split: str, shard: ShardInfo, leaks: "_Leaks", tally: Counter[str]
) -> None:
    path = dataset.shard_path(shard)
    size = path.stat().st_size
    if size != shard.bytes:
        raise DatasetError(f"{path} has {size:,} bytes, the manifest says {shard.bytes:,}")
    if file_sha256(path) != shard.sha256:
        tail = "its sha256 differs from the manifest's"
        _find_damage(path, tail)
    found = 0
    for number, (offset, payload) in enumerate(tfrecord.read(path)):
        with located(f"{path}: record {number} at byte {offset}"):
            sample = records.decode(payload, len(dataset.skeleton))
            _check_image(sample)
            _count(sample, split, tally)
        leaks.see(sample, split)
        found += 1
    if found != shard.records:
        raise DatasetError(f"{path} holds {found} records, the manifest says {shard.records}")


def _find_damage(path: Path, otherwise: str) -> None:
    for _ in tfrecord.read(path):
        pass
    raise DatasetError(f"{path}: {otherwise}, though every CRC is right: it is another file")


def _check_image(sample: Sample) -> None:
    found = hashlib.sha256(images.stored_bytes(sample.image)).hexdigest()
    if found != sample.image.sha256:
        raise DatasetError(
            f"image/key/sha256 is {sample.image.sha256}, but the image's bytes give {found}"
        )


def _count(sample: Sample, split: str, tally: Counter[str]) -> None:
    tally["records"] += 1
    if sample.view and sample.view.copy:
        if split != TRAIN:
            raise DatasetError(f"{sample.key} is an augmented copy in split {split}")
        tally["copies"] += 1
        return
    tally["instances"] += len(sample.instances)
    tally["labelled keypoints"] += sum(i.num_labelled for i in sample.instances)


class _Leaks:
    """Remembers, in 64 bits each, which split a group, source image or picture was seen in."""

    def __init__(self) -> None:
        self._split_of: dict[int, str] = {}
        self.faults: list[str] = []

    def see(self, sample: Sample, split: str) -> None:
        seen = (("group", sample.group), ("image", sample.key), ("bytes", sample.image.sha256))
        for what, name in seen:
            first = self._split_of.setdefault(stable_hash(f"{what}\0{name}"), split)
            if first != split:
                self.faults.append(_LEAKS[what].format(name, first, split))


_LEAKS = {
    "group": "leak: group {!r} is in split {} and in split {}",
    "image": "leak: image {!r} is in split {} and in split {}",
    "bytes": "leak: one picture (sha256 {}) is in split {} and in split {}",
}
