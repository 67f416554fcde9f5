"""What a manifest records of a conversion: the origin of its annotations, and its options."""

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
"""How manifests spell ``validate_images``, which they call ``check``."""


class Provenance(NamedTuple):
    """A conversion's part of the manifest.

    Attributes:
        source: the annotations' origin.
        skeleton, mapping: of the records.
        options: as the manifest's JSON has them, whose names are older than the Request's.
    """

    source: SourceInfo
    skeleton: Skeleton
    mapping: tuple[MappedKeypoint, ...]
    options: dict[str, Any]

    @classmethod
    def of(cls, source: Source, request: Request) -> "Provenance":
        """Of a conversion of ``source``, whose annotation files are hashed."""
        mapping = request.mapping.keypoints if request.mapping else ()
        return cls(_source_info(source, request), request.skeleton, mapping, _options(request))

    @classmethod
    def recorded(cls, manifest: Manifest) -> "Provenance":
        """The part of a manifest."""
        return cls(manifest.source, manifest.skeleton, manifest.mapping, manifest.options)

    def same(self, other: "Provenance") -> bool:
        """Whether both describe one conversion; unlike a dict's equality, it heeds the order of
        splits.
        """
        return msgspec.json.encode(self) == msgspec.json.encode(other)

    @property
    def fingerprint(self) -> bytes:
        """What is compared before an unfinished conversion is resumed; no path is in it.

        Annotation files count by name only, so that a conversion resumes after they were mended.
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
    """The names in order; the second of one name, and each further one, with its number."""
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
    """Only what has a bearing on the result, under the names that manifests have always used."""
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
