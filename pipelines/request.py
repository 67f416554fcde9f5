"""What a conversion is asked to do, and what its manifest says of that."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kpdata.core.errors import JobError
from kpdata.core.splits import TRAIN, Splits
from kpdata.formats import FORMATS, Source
from kpdata.formats._lib.listing import annotation_files
from kpdata.pipelines.job import Job
from kpdata.pipelines.sharding import Sharding
from kpdata.shards.manifest import MANIFEST, SourceInfo, read_manifest
from kpdata.storage.files import file_sha256


@dataclass(frozen=True)
class Request:
    """Everything a conversion needs besides its source.

    Attributes:
        format: the source's, a key of FORMATS.
        reading: what else its reader was told, such as a category.
        job, splits, sharding: see their classes; they decide the bytes.
        group: regular expression whose first group, in an image's name, names its group.
        group_near_duplicates: bits in which the hashes of images that are joined may differ.
        max_bad: percentage of samples that may be quarantined.
        runner, workers, beam_options: where it runs; they never change the bytes.
    """

    format: str
    job: Job
    splits: Splits
    sharding: Sharding = field(default_factory=Sharding)
    group: str | None = None
    group_near_duplicates: int | None = None
    reading: dict[str, str] = field(default_factory=dict)
    max_bad: float = 1.0
    runner: str | None = None
    workers: int = 1
    beam_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise JobError where there would be nothing to augment."""
        if self.job.augment and self.splits.shares and TRAIN not in self.splits.shares:
            raise JobError(
                f"--augment {self.job.augment} makes copies of split train alone, and --split "
                f"gives {', '.join(self.splits.shares)}: name one of them train, such as "
                "train=90,test=10, or leave --augment out"
            )


def source_info(source: Source, request: Request) -> SourceInfo:
    """Where the annotations came from, whatever folder they lie in."""
    paths = source.annotation_files
    hashes = map(_hash_of, paths)
    files = dict(zip(_names_apart([path.name for path in paths]), hashes, strict=True))
    convention = source.convention or FORMATS[request.format].convention
    return SourceInfo(request.format, convention, files, request.reading)


def _names_apart(names: Sequence[str]) -> Iterator[str]:
    """The names in order, each further one of a kind with its number."""
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


def asked_for(request: Request, origin: SourceInfo) -> bytes:
    """What the dataset is made of and how, in a form to compare; no path is in it.

    The annotation files count by name: a job goes on with those that were mended.
    """
    mapping = request.job.mapping.keypoints if request.job.mapping else ()
    source = (origin.format, sorted(origin.files), origin.options)
    return msgspec.json.encode((source, request.job.skeleton, mapping, options_of(request)))


def options_of(request: Request) -> dict[str, Any]:
    """What the manifest says was asked for: only what had a bearing on the result."""
    job = msgspec.to_builtins(request.job)
    unused = ["skeleton", "mapping", "images_root"]
    unused += [] if request.job.crop else ["crop_from", "margin"]
    unused += [] if request.job.augment else ["augment_config"]
    for key in unused:
        del job[key]
    sharding = msgspec.to_builtins(request.sharding)
    if request.sharding.count is not None:
        del sharding["bytes_per_shard"]
    options = {
        **job,
        "splits": request.splits,
        "sharding": sharding,
        "group": request.group,
    }
    if request.group_near_duplicates is not None:
        options["group_near_duplicates"] = request.group_near_duplicates
    read_back: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    return read_back
