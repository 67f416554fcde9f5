"""What a manifest records of a conversion: where its annotations came from, and its options."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kpdata.core.mapping import MappedKeypoint
from kpdata.core.skeleton import Skeleton
from kpdata.formats import find
from kpdata.formats._lib.listing import annotation_files
from kpdata.formats.base import Source
from kpdata.pipelines.request import Request
from kpdata.shards.manifest import MANIFEST, Manifest, SourceInfo, read_manifest
from kpdata.storage.files import file_sha256

_IMAGE_CHECKS = {"header": "headers", "decode": "pixels"}
"""``validate_images`` → its value in manifests, where the option is called ``check``."""


class Provenance(NamedTuple):
    """The part of a manifest that is known before anything is written.

    Attributes:
        source: the annotation files, with their hashes.
        skeleton: the records' skeleton.
        mapping: where its keypoints come from; empty where no other skeleton was asked for.
        options: JSON values, as the manifest holds them. They are not typed further, because a
            manifest may be from anywhere: here they are only compared and copied.
    """

    source: SourceInfo
    skeleton: Skeleton
    mapping: tuple[MappedKeypoint, ...]
    options: dict[str, Any]

    @classmethod
    def of(cls, source: Source, request: Request) -> "Provenance":
        """Describe a conversion of ``source``; reads and hashes its annotation files."""
        mapping = request.mapping.keypoints if request.mapping else ()
        return cls(_source_info(source, request), request.skeleton, mapping, _options(request))

    @classmethod
    def recorded(cls, manifest: Manifest) -> "Provenance":
        """Take the same fields from a manifest that was written before."""
        return cls(manifest.source, manifest.skeleton, manifest.mapping, manifest.options)

    def same(self, other: "Provenance") -> bool:
        """Whether both describe the same conversion, with the splits in the same order.

        The order counts, since it decides which samples go to which split; ``==`` on dicts ignores
        it.
        """
        return msgspec.json.encode(self) == msgspec.json.encode(other)

    @property
    def fingerprint(self) -> bytes:
        """Identifies a conversion: one that was stopped is resumed only under the same value.

        It holds no path, and of annotation files the names only: a conversion can be resumed after
        its annotations were corrected or moved.
        """
        source = (self.source.format, sorted(self.source.files), self.source.options)
        return msgspec.json.encode((source, self.skeleton, self.mapping, self.options))


def _source_info(source: Source, request: Request) -> SourceInfo:
    paths = source.annotation_files
    hashes = map(_hash_of, paths)
    files = dict(zip(_numbered([path.name for path in paths]), hashes, strict=True))
    declared = find(request.format)
    convention = source.convention or declared.convention
    return SourceInfo(declared.name, convention, files, request.reader_options)


def _numbered(names: Sequence[str]) -> Iterator[str]:
    """Make names unique: the second ``a.json`` becomes ``a.json (2)``."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _hash_of(path: Path) -> str:
    if path.name == MANIFEST:
        return read_manifest(path.parent).root_hash
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in annotation_files(path):
        digest.update(os.fsencode(file.relative_to(path)) + b"\0" + file_sha256(file).encode())
    return digest.hexdigest()


def _options(request: Request) -> dict[str, Any]:
    """The options that change the records.

    Some names differ from the Request's: they are older, and existing manifests keep them.
    """
    options: dict[str, Any] = {"crop": request.crop}
    if request.crop:
        options |= {"crop_from": request.crop_from, "margin": request.margin}
    options["augment"] = request.augment
    if request.augment:
        options["augment_config"] = request.augment_config
    options |= {
        "seed": request.seed,
        "exif": request.exif,
        "check": _IMAGE_CHECKS[request.validate_images],
        "max_pixels": request.max_pixels,
        "max_bytes": request.max_bytes,
        "jpeg_quality": request.jpeg_quality,
        "splits": request.splits,
        "sharding": {"bytes_per_shard": request.shard_size, "count": None}
        if request.shards is None
        else {"count": request.shards},
        "group": request.group,
    }
    if request.group_near_duplicates is not None:
        options["group_near_duplicates"] = request.group_near_duplicates
    read_back: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    return read_back
