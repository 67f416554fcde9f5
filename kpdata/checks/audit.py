"""Audit shard folders: find pictures that lie in two splits, identical or nearly so.

A leak is a pair of pictures in splits of different names, of one dataset or of several: a model
that trains on one ``train`` must not be tested on the same picture in another ``test``. Augmented
copies are left out.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kpdata import __version__
from kpdata.checks.certificate import (
    GROUP,
    IDENTICAL,
    KINDS,
    NEAR,
    SOURCE,
    Certificate,
    Checked,
    Leak,
    Picture,
)
from kpdata.core.errors import DatasetError, located
from kpdata.core.groups import Groups
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import WHOLE_IMAGE, FloatArray, Sample
from kpdata.core.splits import display_order, stable_hash
from kpdata.core.transform import map_box
from kpdata.images import codec
from kpdata.images.perceptual import (
    DEFAULT_DISTANCE,
    HASH_BYTES,
    Hashes,
    Indices,
    bit_distances,
    fingerprint,
    method,
    near_pairs,
)
from kpdata.shards.dataset import Dataset, read_record
from kpdata.shards.manifest import ShardInfo

Column = npt.NDArray[np.uint64]  # (N,)

MAX_LEAKS = 100_000
"""The most leaks of a kind that are listed; the search for that kind then ends."""

_COLUMNS = ("shard", "offset", "split", "pixels", "key", "group")


def audit(
    folders: Sequence[str | Path],
    distance: int = DEFAULT_DISTANCE,
    shared_ids: bool = False,
    progress: Progress = SILENT,
) -> Certificate:
    """Look for leaks across the splits of one dataset, or of several taken together.

    Shards are read picture by picture, and checked against the manifest. Memory grows by about 80
    bytes for each picture.

    Args:
        folders: shard folders, each given once.
        distance: the most bits by which hashes of near duplicates differ.
        shared_ids: whether names of images and groups mean the same in all folders, and not only in
            those that were made of the same annotations.
        progress: is told of each picture.

    Raises:
        DatasetError: a folder is damaged or given twice, or does not match its root hash.
        ImageError: a picture does not decode; the message names its record.
    """
    datasets = [Dataset.open(folder) for folder in folders]
    found = _Pictures(datasets, _name_spaces(datasets, shared_ids))
    found.read(progress)
    pairs: dict[tuple[int, int], str] = {}
    complete = True
    for kind, leaks in (
        (IDENTICAL, _shared(found, found.pixels)),
        (SOURCE, _shared(found, found.key)),
        (GROUP, _shared(found, found.group)),
        (NEAR, _near(found, distance, progress)),
    ):
        for number, pair in enumerate(leaks):
            if number == MAX_LEAKS:
                complete = False
                break
            pairs.setdefault(pair, kind)
    counts = Counter(pairs.values())
    return Certificate(
        kpdata=__version__,
        method=method(),
        distance=distance,
        datasets=found.checked(),
        counts={kind: counts[kind] for kind in KINDS},
        complete=complete,
        leaks=found.leaks(pairs),
    )


def _name_spaces(datasets: Sequence[Dataset], shared_ids: bool) -> list[str]:
    """A name for each dataset; those that were made of the same annotations get the same name."""
    origins: Groups[str] = Groups({})
    seen: dict[str, Path] = {}
    for dataset in datasets:
        root = dataset.manifest.root_hash
        if root in seen:
            raise DatasetError(
                f"{dataset.folder} holds the same dataset as {seen[root]}: give each once"
            )
        seen[root] = dataset.folder
        for origin in dataset.manifest.source.files.values():
            origins.join(root, origin)
    roots = list(seen)
    return [origins.find(roots[0] if shared_ids else root) for root in roots]


class _Pictures:
    """The originals of all datasets as columns of numbers; the pictures stay on disk.

    Attributes:
        hashes: (N, 32) perceptual hashes.
        split: (N,) each split's rank: train, val, test, others.
        pixels, key, group: (N,) 64-bit hashes of the decoded picture, its key and its group.
    """

    def __init__(self, datasets: Sequence[Dataset], names: Sequence[str]):
        self._datasets, self._names = datasets, names
        self._shards: list[tuple[Dataset, str, ShardInfo]] = []
        splits = {split for dataset in datasets for split in dataset.splits}
        self._rank = {split: k for k, split in enumerate(sorted(splits, key=display_order))}
        self._bits = bytearray()
        self._columns = {name: array("Q") for name in _COLUMNS}

    def read(self, progress: Progress) -> None:
        """Hash every original."""
        splits = [info for data in self._datasets for info in data.manifest.splits.values()]
        originals = sum(info.records - info.copies for info in splits)
        progress.begin("hashing", max(0, originals), "pictures")
        for dataset, names in zip(self._datasets, self._names, strict=True):
            for split, info in dataset.manifest.splits.items():
                for shard in info.shards:
                    self._shards.append((dataset, split, shard))
                    self._read_shard(names, progress)
        self.hashes: Hashes = np.frombuffer(self._bits, np.uint8).reshape(-1, HASH_BYTES)
        self.split, self.pixels, self.key, self.group = (
            np.frombuffer(self._columns[name], np.uint64)
            for name in ("split", "pixels", "key", "group")
        )

    def _read_shard(self, names: str, progress: Progress) -> None:
        dataset, split, shard = self._shards[-1]
        path = dataset.shard_path(shard)
        for offset, sample in dataset.read_shard(shard):
            if sample.view and sample.view.copy:
                continue
            with located(f"{path}: record at byte {offset}"):
                data = codec.stored_bytes(sample.image)
                found = fingerprint(data, box_xyxy=_source_box(sample))
            self._bits += found.looks.tobytes()
            row = {
                "shard": len(self._shards) - 1,
                "offset": offset,
                "split": self._rank[split],
                "pixels": found.pixels,
                "key": stable_hash(f"{names}\0{sample.key}"),
                "group": stable_hash(f"{names}\0{sample.group}"),
            }
            for name, value in row.items():
                self._columns[name].append(value)
            progress.advance(1)

    def checked(self) -> tuple[Checked, ...]:
        """The datasets, with the number of pictures that were read from each split."""
        pictures = Counter(self._columns["shard"])
        counts = {str(d.folder): dict.fromkeys(d.splits, 0) for d in self._datasets}
        for k, (dataset, split, _) in enumerate(self._shards):
            counts[str(dataset.folder)][split] += pictures[k]
        return tuple(
            Checked(str(d.folder), d.manifest.root_hash, counts[str(d.folder)], names)
            for d, names in zip(self._datasets, self._names, strict=True)
        )

    def leaks(self, pairs: Mapping[tuple[int, int], str]) -> tuple[Leak, ...]:
        """Make leaks of pairs of rows, sorted by kind and then by distance."""
        rows = np.array(list(pairs), np.intp).reshape(-1, 2)
        distances = bit_distances(self.hashes[rows[:, 0]], self.hashes[rows[:, 1]]).tolist()
        order = sorted(
            (KINDS.index(kind), distance, pair)
            for (pair, kind), distance in zip(pairs.items(), distances, strict=True)
        )
        return tuple(
            Leak(KINDS[kind], distance, self._picture(first), self._picture(second))
            for kind, distance, (first, second) in order
        )

    def _picture(self, row: int) -> Picture:
        dataset, split, shard = self._shards[self._columns["shard"][row]]
        offset = self._columns["offset"][row]
        sample = read_record(dataset.record_uri(shard, offset))
        return Picture(
            dataset=str(dataset.folder),
            split=split,
            shard=shard.name,
            offset=offset,
            key=sample.key,
            file=sample.image.name,
            group=sample.split_group,
            instance=sample.view.instance if sample.view else WHOLE_IMAGE,
            sha256=sha256(codec.stored_bytes(sample.image)).hexdigest(),
        )


def _source_box(sample: Sample) -> FloatArray | None:
    """(4,) xyxy: the part of a crop that shows its source image, without the fill around it."""
    view = sample.view
    if view is None or view.instance == WHOLE_IMAGE:
        return None
    with np.errstate(over="ignore"):  # a forged view can have huge values
        return map_box(view.transform, np.array([0, 0, view.source_width, view.source_height]))


def _firsts(found: _Pictures, column: Column) -> Indices:
    """The first row of each value in each split, ordered by value and then by split."""
    order = np.lexsort((found.split, column))
    values, splits = column[order], found.split[order]
    new = (values[1:] != values[:-1]) | (splits[1:] != splits[:-1])
    return order[np.concatenate([[True], new])] if len(order) else order


def _shared(found: _Pictures, column: Column) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that have the same value in two splits.

    The value's first row in the first split is paired with its first row in each other split.
    """
    firsts = _firsts(found, column)
    values = column[firsts].tolist()
    anchor = 0
    for k in range(1, len(values)):
        if values[k] == values[anchor]:
            yield int(firsts[anchor]), int(firsts[k])
        else:
            anchor = k


def _near(found: _Pictures, distance: int, progress: Progress) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows in two splits that look alike and are not pairs of another kind."""
    distinct = np.sort(_firsts(found, found.pixels))
    by_split = [distinct[found.split[distinct] == rank] for rank in np.unique(found.split)]
    pairs = list(combinations(by_split, 2))
    progress.begin("comparing", sum(len(first) for first, _ in pairs), "pictures")
    for first, second in pairs:
        hashes = found.hashes[first], found.hashes[second]
        for i, j in near_pairs(*hashes, distance, progress.advance):
            a, b = first[i], second[j]
            new = np.ones(len(a), bool)
            for column in (found.pixels, found.key, found.group):
                new &= column[a] != column[b]
            yield from zip(a[new].tolist(), b[new].tolist(), strict=True)
