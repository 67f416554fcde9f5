"""The manifest ``kpdata.json``: what a shard folder holds, and the root hash over all of it.

It is written last. A folder without it is not a dataset.
"""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec

from kpdata import __version__
from kpdata.core.errors import DatasetError, FormatError, SchemaError
from kpdata.core.mapping import MappedKeypoint
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import SPLIT_NAME
from kpdata.shards.records import SCHEMA_VERSION
from kpdata.storage.atomic import write_atomically
from kpdata.storage.bounded import read_bounded
from kpdata.storage.stores import Location, MissingObject, Url, store_of, was_url

MANIFEST = "kpdata.json"
QUARANTINE = "quarantine.jsonl"
MAX_MANIFEST_BYTES = 64 << 20


Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ShardInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One shard file: its records, its bytes, and the BLAKE3 hash of the whole file, hex."""

    name: str
    records: Count
    bytes: Count
    blake3: str


class SplitInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One split.

    Attributes:
        samples: source images.
        records: originals and copies.
        copies: augmented records among them.
        instances: objects in the originals.
        visibility: (K, 3) keypoints of the originals with v = 0, 1 and 2.
        shards: its files, in order.
    """

    samples: Count
    records: Count
    copies: Count
    instances: Count
    visibility: tuple[tuple[Count, Count, Count], ...]
    shards: tuple[ShardInfo, ...]


class SourceInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the annotations came from.

    Attributes:
        format: name of the format.
        convention: how its coordinates and visibility were understood.
        files: annotation file name → sha256.
        options: the reader's options, such as a category.
    """

    format: str
    convention: str
    files: dict[str, str]
    options: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything about a dataset except its records.

    Attributes:
        schema_version: of the records and of this file.
        skeleton: what the K keypoints are.
        mapping: where each keypoint came from, if the source's skeleton was mapped to another.
        source: where the annotations came from.
        options: the conversion's.
        splits: name → its content.
        counts: what was skipped, zeroed or repaired, by name.
        quarantine: reason → number of refused samples.
        quarantine_sha256: hash of the keys and reasons of refused samples.
        references: hash of every key, label and image size that was converted.
        sizes: smallest and largest width and height of the pictures, in pixels.
        software: versions of the packages that made it; not in the root hash.
        root_hash: sha256 over everything else.
    """

    schema_version: int
    skeleton: Skeleton
    mapping: tuple[MappedKeypoint, ...]
    source: SourceInfo
    options: dict[str, Any]
    splits: dict[str, SplitInfo]
    counts: dict[str, Count]
    quarantine: dict[str, Count]
    quarantine_sha256: str
    references: str
    sizes: dict[str, Count]
    software: dict[str, str]
    root_hash: str = ""


class _Version(msgspec.Struct, frozen=True):
    """The part of a manifest that is read first: all else may differ between versions."""

    schema_version: int


_CPU_AVX2 = 11
"""OpenCV's number of it, ``CV_CPU_AVX2``, for which Python has no name."""


def software() -> dict[str, str]:
    """What pictures' bytes depend on: package → version, and the kind of processor.

    OpenCV resamples with fused multiply-add where a processor has AVX2, and rounds otherwise where
    it has not: some pixels of crops and copies differ by one. Newer extensions change nothing.
    """
    import cv2  # takes long: who only reads a manifest does not need it

    packages = ("numpy", "opencv-python-headless", "pillow")
    versions = {name.split("-")[0]: version(name) for name in packages}
    extension = " AVX2" if cv2.checkHardwareSupport(_CPU_AVX2) else ""
    return {"kpdata": __version__, **versions, "processor": platform.machine() + extension}


def compute_root_hash(manifest: Manifest) -> str:
    """sha256 of the manifest as JSON with sorted keys, without ``software`` and ``root_hash``."""
    fields = msgspec.to_builtins(manifest)
    del fields["software"], fields["root_hash"]
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with its root hash into ``folder``, atomically; return it."""
    sealed = msgspec.structs.replace(manifest, root_hash=compute_root_hash(manifest))
    text = msgspec.json.format(msgspec.json.encode(sealed), indent=1)
    write_atomically(folder / MANIFEST, text + b"\n")
    return sealed


def read_manifest(folder: Location) -> Manifest:
    """Read ``folder``'s manifest and check its values. The root hash is not checked.

    Raises:
        DatasetError: there is none, it is damaged, or it has another schema version.
        StoreError: the folder's store refuses, or cannot be reached.
    """
    path = folder / MANIFEST
    data = _stored_manifest(folder) if isinstance(folder, Url) else _manifest_file(folder)
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise DatasetError(
                f"{path}: schema version {version}, this kpdata reads {SCHEMA_VERSION}: "
                "convert the annotations again, or use the kpdata that wrote it"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, SchemaError) as error:
        raise DatasetError(f"{path}: not a manifest: {error}") from error
    for name, split in manifest.splits.items():
        _check_split(path, name, split, len(manifest.skeleton))
    return manifest


def _stored_manifest(folder: Url) -> bytes:
    try:
        return store_of(folder).read(folder / MANIFEST, MAX_MANIFEST_BYTES)[1]
    except MissingObject:
        raise _no_dataset(folder) from None


def _manifest_file(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        return read_bounded(path, MAX_MANIFEST_BYTES)
    except FormatError:
        raise DatasetError(f"{path}: larger than any manifest: not written by kpdata") from None
    except NotADirectoryError:
        raise DatasetError(f"{folder} is a file: give the folder that holds {MANIFEST}") from None
    except FileNotFoundError:
        raise _no_dataset(folder) from None
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error


def _no_dataset(folder: Location) -> DatasetError:
    if isinstance(folder, Path) and was_url(folder):
        return DatasetError(
            f"{folder} is on a store, where only convert, inspect and verify read shards: "
            "copy them to a local folder first"
        )
    return DatasetError(
        f"{folder} is not a dataset: it has no {MANIFEST}. "
        "If a conversion into it was stopped, run the same command again to finish it."
    )


def _check_split(path: Location, name: str, split: SplitInfo, num_keypoints: int) -> None:
    if not SPLIT_NAME.fullmatch(name):
        raise DatasetError(f"{path}: {name!r} is not a split's name")
    for k, shard in enumerate(split.shards):
        if shard.name != shard_name(name, k, len(split.shards)):
            raise DatasetError(f"{path}: {shard.name!r} is not the name of shard {k} of {name}")
    if len(split.visibility) != num_keypoints:
        raise DatasetError(
            f"{path}: split {name} counts visibility for {len(split.visibility)} keypoints, "
            f"the skeleton has {num_keypoints}"
        )


def shard_name(split: str, k: int, count: int) -> str:
    """The file name of shard ``k`` of ``count``."""
    return f"{split}-{k:05d}-of-{count:05d}.tfrecord"
