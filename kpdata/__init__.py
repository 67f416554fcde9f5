"""Keypoint datasets: any annotation into verified, leak-free TFRecord shards, and back."""

from __future__ import annotations

import pathlib
import typing

if typing.TYPE_CHECKING:
    from kpdata.shards.dataset import Dataset

__version__ = "0.1.0"


def open(path: str | pathlib.Path) -> Dataset:  # noqa: A001 - reads as kpdata.open("shards/")
    """Open a shard folder for reading, here or on a store, without TensorFlow or Beam.

    >>> dataset = kpdata.open("shards/")                                     # doctest: +SKIP
    >>> dataset.skeleton.keypoints, dataset.splits                           # doctest: +SKIP
    >>> for sample in dataset["train"]:                                      # doctest: +SKIP
    ...     rgb = codec.decode_stored(sample.image)
    ...     for instance in sample.instances:
    ...         keypoints = instance.keypoints

    Raises:
        DatasetError: no dataset is there, or its manifest is damaged.
        StoreError: the store refuses, or cannot be reached.
    """
    from kpdata.shards.dataset import Dataset
    from kpdata.storage.stores import Url, as_location

    where = as_location(path)
    if isinstance(where, Url):
        from kpdata.shards.remote import open_mirror

        return open_mirror(where)
    return Dataset.open(where)
