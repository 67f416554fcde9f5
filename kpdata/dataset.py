"""Shard folders as Python objects, which ``kpdata.open`` returns."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from kpdata.core.crop import keypoint_box
from kpdata.core.errors import DatasetError, KpdataError
from kpdata.core.sample import FloatArray, Instance, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.shards import dataset as shards
from kpdata.shards import tfrecord
from kpdata.shards.manifest import Manifest, ShardInfo, SplitInfo
from kpdata.shards.records import FEATURES
from kpdata.shards.remote import RemoteDataset, open_remote
from kpdata.storage.stores import Location, Url, as_location
from kpdata.view.picture import Picture, html_table, thumbnails

if TYPE_CHECKING:
    from os import PathLike

_SHOWN = 4


def open_dataset(path: "str | PathLike[str]") -> "Dataset":
    """Open a shard folder, local or on a store, without TensorFlow or Beam.

    Raises:
        DatasetError: there is no dataset, or its manifest is damaged.
        StoreError: the store refuses, or cannot be reached.
    """
    where = as_location(path)
    found = open_remote(where) if isinstance(where, Url) else shards.Dataset.open(where)
    return Dataset(found)


class Dataset(Mapping[str, "Split"]):
    """A dataset of shards: a mapping from split names to splits.

    >>> import kpdata as kp
    >>> ds = kp.open(shards)
    >>> ds
    coco17, 17 keypoints: train 50, val 5, test 5 records
    >>> list(ds), len(ds["val"])
    (['train', 'val', 'test'], 5)
    >>> for picture in ds["val"]:
    ...     keypoints = picture.instances[0].keypoints       # (17, 3): x, y in pixels, visibility

    Two datasets are equal if their root hashes are. Then their shards are, byte for byte.

    Attributes:
        stored: the lower-level object that reads the shards.
    """

    def __init__(self, stored: shards.Dataset):
        self.stored = stored

    @property
    def path(self) -> Path:
        """The local folder; for a dataset on a store, the temporary folder of its copies."""
        return self.stored.folder

    @property
    def location(self) -> Location:
        """The folder or URL of the dataset."""
        return self.stored.url if isinstance(self.stored, RemoteDataset) else self.stored.folder

    @property
    def manifest(self) -> Manifest:
        """The content of ``kpdata.json``."""
        return self.stored.manifest

    @property
    def skeleton(self) -> Skeleton:
        """What the K keypoints of every instance are."""
        return self.stored.skeleton

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits' names."""
        return self.stored.splits

    @property
    def root_hash(self) -> str:
        """Hash of everything but software versions: equal hashes mean equal shards."""
        return self.manifest.root_hash

    def __getitem__(self, split: str) -> "Split":
        return Split(self.stored, self.stored[split].name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and self.root_hash == other.root_hash

    def __hash__(self) -> int:
        return hash(self.root_hash)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {s.records:,}" for name, s in self.manifest.splits.items())
        return f"{self.skeleton.name}, {len(self.skeleton)} keypoints: {sizes} records"

    def _repr_html_(self) -> str:
        columns = (*SPLIT_COLUMNS, *VISIBILITY_SHARES)
        rows = [
            (*row, *visibility_shares(info))
            for row, info in zip(
                split_rows(self.manifest), self.manifest.splits.values(), strict=True
            )
        ]
        first = next(iter(self.values()), None)
        some = [picture for picture in first[: 5 * _SHOWN] if picture.instances] if first else []
        return f"<p>{escape(repr(self))}</p>{html_table(columns, rows)}{thumbnails(some[:_SHOWN])}"


class Split(Sequence[Picture]):
    """One split: a sequence of pictures, with indices, slices and iteration.

    >>> import kpdata as kp
    >>> train = kp.open(shards)["train"]
    >>> train[0].pixels().shape
    (64, 64, 3)
    >>> len(train[:10]), train.keypoints().shape
    (10, (50, 17, 3))

    Attributes:
        stored: the dataset.
        name: the split's.
        rows: indices of its records in the whole split, whose order is that of the shards.
    """

    def __init__(self, stored: shards.Dataset, name: str, rows: range | None = None):
        self.stored, self.name = stored, name
        whole = range(stored.manifest.splits[name].records)
        self.rows = whole if rows is None else rows
        self._offsets: list[array[int]] | None = None

    @property
    def skeleton(self) -> Skeleton:
        """What the K keypoints of every instance are."""
        return self.stored.skeleton

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> "Split": ...

    def __getitem__(self, index: "int | slice") -> "Picture | Split":
        if isinstance(index, slice):
            return Split(self.stored, self.name, self.rows[index])
        return Picture(self.sample(index), self.skeleton)

    def __iter__(self) -> Iterator[Picture]:
        return (Picture(sample, self.skeleton) for sample in self.samples())

    def samples(self) -> Iterator[Sample]:
        """Yield the samples without the Picture around them.

        A whole split, not a slice, is also checked against the manifest while it is read.
        """
        if self._is_whole:
            yield from self.stored[self.name]
        else:
            yield from (self.sample(index) for index in range(len(self)))

    def sample(self, index: int) -> Sample:
        """One sample by its index.

        Raises:
            IndexError: the split has fewer.
            DatasetError: its record is damaged.
        """
        uri = self.stored.record_uri(*self._place(self.rows[index]))
        return shards.read_record(uri)

    def keypoints(self) -> FloatArray:
        """(N, K, 3) x, y and visibility of all instances, in pixels of the records."""
        found = [i.keypoints for sample in self.samples() for i in sample.instances]
        return np.array(found, np.float32).reshape(-1, len(self.skeleton), 3)

    def to_dataframe(self) -> Any:
        """Make a pandas DataFrame with a row for each keypoint of each instance.

        Its columns are split, key, image, copy, instance, category, keypoint, x, y, visibility.

        Raises:
            KpdataError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise KpdataError("to_dataframe needs pandas: pip install pandas") from None
        rows = [
            (self.name, sample.key, sample.image.name, sample.view.copy if sample.view else 0,
             number, instance.category, name, x, y, int(v))
            for sample in self.samples()
            for number, instance in enumerate(sample.instances)
            for name, (x, y, v) in zip(
                self.skeleton.keypoints, instance.keypoints.tolist(), strict=True
            )
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=_COLUMNS)

    def to_torch(self) -> "TorchSplit":
        """A map-style dataset for ``torch.utils.data.DataLoader``; see :class:`TorchSplit`."""
        return TorchSplit(self)

    def to_tf(self) -> Any:
        """Make a ``tf.data.Dataset`` of dicts.

        Each holds ``image`` (H, W, 3) uint8, ``keypoints`` (N, K, 3) float32 in pixels with
        visibility, ``boxes`` (N, 4) float32 xyxy in pixels, zero where there is no box, ``labels``
        and ``is_crowd`` (N) int64, ``filename`` and ``key``.

        Raises:
            KpdataError: TensorFlow is not installed.
        """
        try:
            import tensorflow as tf
        except ImportError:
            raise KpdataError("to_tf needs TensorFlow: pip install 'kpdata[train]'") from None
        if self._is_whole:
            paths = [str(self.stored.shard_path(shard)) for shard in self._info.shards]
            records = tf.data.TFRecordDataset(paths)
        else:
            spec = tf.TensorSpec((), tf.string)
            records = tf.data.Dataset.from_generator(self._payloads, output_signature=spec)
        return records.map(_parse_with(tf, len(self.skeleton)), tf.data.AUTOTUNE)

    def _payloads(self) -> Iterator[bytes]:
        for row in self.rows:
            shard, offset = self._place(row)
            yield next(tfrecord.read(self.stored.shard_path(shard), offset))[1]

    @property
    def _info(self) -> SplitInfo:
        return self.stored.manifest.splits[self.name]

    @property
    def _is_whole(self) -> bool:
        return self.rows == range(self._info.records)

    def _place(self, row: int) -> tuple[ShardInfo, int]:
        """The shard that holds a record, and the byte at which it begins."""
        if self._offsets is None:
            self._offsets = [array("Q") for _ in self._info.shards]
        for number, (shard, offsets) in enumerate(
            zip(self._info.shards, self._offsets, strict=True)
        ):
            if row < shard.records:
                path = self.stored.shard_path(shard)
                found = offsets or array("Q", tfrecord.offsets(path))
                self._offsets[number] = found  # one assignment, so that threads can share the split
                if row >= len(found):
                    raise DatasetError(f"{path} holds fewer records than the manifest says")
                return shard, found[row]
            row -= shard.records
        raise IndexError(row)

    def __repr__(self) -> str:
        return f"{self.name}: {len(self):,} records of {self.skeleton.name}"

    def _repr_html_(self) -> str:
        some = [picture for picture in self[: 5 * _SHOWN] if picture.instances][:_SHOWN]
        return f"<p>{escape(repr(self))}</p>{thumbnails(some)}"


class TorchSplit:
    """A split for PyTorch, with the targets of torchvision's detection models.

    ``dataset[i]`` is an image, (3, H, W) uint8, and a dict of tensors: ``boxes`` (N, 4) float32
    xyxy in pixels, of at least a pixel (around its keypoints, where an instance has none),
    ``labels`` (N) int64, ``keypoints`` (N, K, 3) float32 with visibility 0, 1 or 2, ``area`` (N)
    float32, ``iscrowd`` and ``image_id``. Instances without box and keypoints are left out. It can
    be pickled, so that worker processes of a DataLoader can read the shards.
    """

    def __init__(self, split: Split):
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        try:
            import torch
        except ImportError:
            raise KpdataError("to_torch needs PyTorch: pip install torch") from None
        picture = self._split[index]
        boxed = [(i, box) for i in picture.instances if (box := _box_of(i)) is not None]
        instances = [instance for instance, _ in boxed]
        boxes = np.array([box for _, box in boxed], np.float32).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = [i.area or float(w * h) for i, (w, h) in zip(instances, sides, strict=True)]
        keypoints = np.array([i.keypoints for i in instances], np.float32)
        keypoints = keypoints.reshape(-1, len(self._split.skeleton), 3)
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.tensor([i.category_id for i in instances], dtype=torch.int64),
            "keypoints": torch.from_numpy(keypoints),
            "area": torch.tensor(areas, dtype=torch.float32),
            "iscrowd": torch.tensor([int(i.is_crowd) for i in instances], dtype=torch.int64),
            "image_id": torch.tensor(self._split.rows[index], dtype=torch.int64),
        }
        return torch.from_numpy(picture.pixels().transpose(2, 0, 1).copy()), target

    def __repr__(self) -> str:
        return f"{self._split!r}, for PyTorch"


_COLUMNS = (
    "split", "key", "image", "copy", "instance", "category", "keypoint", "x", "y", "visibility",
)  # fmt: skip

SPLIT_COLUMNS = ("split", "images", "originals", "copies", "instances", "shards", "MB")


def split_rows(manifest: Manifest) -> list[tuple[str | int, ...]]:
    """A table row for each split, with SPLIT_COLUMNS as columns."""
    return [
        (name, s.samples, s.records - s.copies, s.copies, s.instances, len(s.shards),
         f"{sum(shard.bytes for shard in s.shards) / 1e6:.1f}")
        for name, s in manifest.splits.items()
    ]  # fmt: skip


VISIBILITY_SHARES = ("visible %", "occluded %", "not labelled %")


def visibility_shares(info: SplitInfo) -> tuple[str, str, str]:
    """Percentages of visible, occluded and unlabelled keypoints of a split's originals, as text."""
    absent, occluded, visible = np.sum(info.visibility, axis=0, initial=0).tolist()
    whole = max(1, absent + occluded + visible)
    visible_, occluded_, absent_ = (f"{100 * n / whole:.1f}" for n in (visible, occluded, absent))
    return visible_, occluded_, absent_


def _box_of(instance: Instance) -> FloatArray | None:
    """(4,) xyxy with sides of at least a pixel, as torchvision requires.

    It is around the labelled keypoints, if the instance has no box; None if it has neither.
    """
    box = instance.bbox_xyxy if instance.bbox_xyxy is not None else keypoint_box(instance)
    if box is None:
        return None
    center, half = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1) / 2
    return np.concatenate([center - half, center + half])


def _parse_with(tf: Any, num_keypoints: int) -> Any:
    """A function from a serialised record to a dict of tensors, for use in a TensorFlow graph."""
    types = {"bytes": tf.string, "float": tf.float32, "int64": tf.int64}
    spec = {
        name: tf.io.FixedLenFeature([int(length)] if length != "1" else [], types[kind])
        if length.isdigit()
        else tf.io.RaggedFeature(types[kind])
        for name, kind, length in FEATURES
    }

    def parse(payload: Any) -> dict[str, Any]:
        found = tf.io.parse_single_example(payload, spec)
        image = tf.io.decode_image(found["image/encoded"], 3, expand_animations=False)
        image.set_shape((None, None, 3))
        width = tf.cast(found["image/width"], tf.float32)
        height = tf.cast(found["image/height"], tf.float32)
        x, y = found["image/object/keypoint/x"] * width, found["image/object/keypoint/y"] * height
        v = tf.cast(found["image/object/keypoint/visibility"], tf.float32)
        sides = {"xmin": width, "ymin": height, "xmax": width, "ymax": height}
        boxes = [found[f"image/object/bbox/{side}"] * size for side, size in sides.items()]
        return {
            "image": image,
            "keypoints": tf.reshape(tf.stack([x, y, v], -1), (-1, num_keypoints, 3)),
            "boxes": tf.stack(boxes, -1),
            "labels": found["image/object/class/label"],
            "is_crowd": found["image/object/is_crowd"],
            "filename": found["image/filename"],
            "key": found["image/source_id"],
        }

    return parse
