"""Plan: stream the references once, split them by group, order them by hash, cut them into shards.

The result is one plan file per shard, a TFRecord of packed samples; a plan's bytes decide its
shard's bytes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from kpdata.core.errors import FormatError, ImageError, shortened
from kpdata.core.groups import NumberedNames, roboflow_picture
from kpdata.core.mapping import map_sample
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import Rejected, Sample
from kpdata.core.splits import TRAIN, group_finder, stable_hash
from kpdata.formats.base import Source
from kpdata.pipelines.plan.file import PlanHeader, read_plan
from kpdata.pipelines.plan.near_duplicates import join_near_duplicates
from kpdata.pipelines.plan.references import References, SplitTotals
from kpdata.pipelines.plan.sharding import SplitSize, shards_per_split
from kpdata.pipelines.request import Request
from kpdata.shards import tfrecord
from kpdata.shards.fetch import locate as locate_image
from kpdata.shards.manifest import shard_name, software
from kpdata.shards.quarantine import as_line, escaped
from kpdata.storage import image_files, image_objects
from kpdata.storage.image_files import Stamp

BYTES_PER_PIXEL = 0.4
"""What a JPEG of quality 95 takes, roughly: only the number of shards rests on it."""

REJECTED = "rejected.jsonl"

StampOf = Callable[[str, int], Stamp]
"""An image's path or URL, and the largest size in bytes → its stamp; ImageError without one."""

_MANY = 500
"""Counts that a manifest lists."""

_TWINS = "groups joined, since a picture of each is stored as the same bytes"
_VERSIONS = "images grouped as Roboflow's versions of one picture, NAME.rf.HASH"
_UNGROUPED = "images whose name --group does not match"  # in manifests, and so in root hashes


class ShardPlan(msgspec.Struct, frozen=True):
    """One shard to write: its file name, how many samples it reads, and the hash of its plan."""

    name: str
    split: str
    samples: int
    blake3: str


@dataclass(frozen=True)
class Plan:
    """All shards to write, and the samples that were refused.

    Attributes:
        folder: holds a plan file per shard and REJECTED, the list of refused samples.
        shards: by split, in order.
        rejected: refused samples by reason.
        counts: named counts for the user.
        references: a hash of every key, label and image size, without folders.
        warnings: what the user should know before trusting the split.
    """

    folder: Path
    shards: tuple[ShardPlan, ...]
    rejected: Counter[str]
    counts: Counter[str]
    references: str
    warnings: tuple[str, ...]

    @property
    def samples(self) -> int:
        """References that will be read."""
        return sum(shard.samples for shard in self.shards)

    def rejected_details(self) -> Iterator[str]:
        """What is wrong with each sample that was refused while planning."""
        with open(self.folder / REJECTED, "rb") as lines:
            for line in lines:
                yield msgspec.json.decode(line)["detail"]


def make_plan(source: Source, request: Request, folder: Path, progress: Progress = SILENT) -> Plan:
    """Read every reference and write the plan files into ``folder``.

    Args:
        source: what a reader found; its samples are consumed.
        request: what to do with them.
        folder: where plan files go; created.
        progress: hears of every reference read.

    Raises:
        FormatError: the source holds no usable sample, or two under one key; ``group`` matches no
            image's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress.begin("planning", unit="samples")
    with References() as references:
        frames = _collect(source, request, references, progress)
        joined = {
            "identical images joined into one group": references.join_identical_images(request),
            "near-duplicate images grouped": join_near_duplicates(references, request, progress),
        }
        officials = references.official_splits()
        if request.splits.official and references.samples and not officials:
            raise FormatError(
                f"split is official, but {request.format or 'the source'} has no split of its own "
                "here: choose percentages, such as `split` 80/10/10, or give a file for each "
                "split, as in train=a.json val=b.json"
            )
        references.assign_splits(request.splits)
        totals = references.split_totals()
        with open(folder / REJECTED, "wb") as file:
            rejected = _write_rejected(references.rejected(), file)
        if not totals:
            raise FormatError(_nothing_usable(source, rejected, references))
        shards = tuple(_write_plans(references, totals, request, folder))
        warnings = (
            *_split_warnings(request, totals, officials, references),
            *_flip_warning(request),
            *frames.hint(),
            *source.hints,
        )
        fingerprint = references.fingerprint
    counts = _bounded(+(source.counts + Counter(joined)))
    return Plan(folder, shards, rejected, counts, fingerprint, warnings)


def _bounded(counts: Counter[str]) -> Counter[str]:
    """The counts with the largest ones by name, since a file's own words are in some names."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept, others = Counter(dict(ordered[:_MANY])), ordered[_MANY:]
    if others:
        kept[f"others, under {len(others):,} names"] = sum(count for _, count in others)
    return kept


def join_groups(plan: Plan, pairs: Iterable[tuple[int, int]], request: Request) -> Plan:
    """Plan again, with pairs of groups joined; plan files of shards that stay the same stay, too.

    Args:
        plan: whose files are read, and replaced.
        pairs: of groups that must share a split, each as its ``stable_hash``.
        request: that of the plan.
    """
    pairs = list(pairs)
    wanted = {hashed for pair in pairs for hashed in pair}
    names: dict[int, str] = {}
    with References() as references:
        for shard in plan.shards:
            path = plan.folder / f"{shard.name}.plan"
            for sample, stamp in read_plan(path)[1]:
                references.add(sample, stamp)
                if (hashed := stable_hash(sample.split_group)) in wanted:
                    names[hashed] = sample.split_group
            path.unlink()
        joined = sum(references.join(names[first], names[second]) for first, second in pairs)
        references.assign_splits(request.splits)
        with open(plan.folder / REJECTED, "ab") as file:
            torn = _write_rejected(references.rejected(), file)
        totals = references.split_totals()
        shards = tuple(_write_plans(references, totals, request, plan.folder))
        warned = tuple(_split_warnings(request, totals, [], references))
    return replace(
        plan,
        shards=shards,
        rejected=plan.rejected + torn,
        counts=plan.counts + Counter({_TWINS: joined}),
        warnings=tuple(dict.fromkeys(plan.warnings + warned)),
    )


def _collect(
    source: Source, request: Request, references: References, progress: Progress
) -> NumberedNames:
    frames = NumberedNames()
    group_of = group_finder(request.group) if request.group else None
    with _stamps(request) as stamp_of:
        intake = _Intake(source, request, references, stamp_of, group_of)
        for sample in source.samples:
            progress.advance(1)
            intake.take(sample)
            if group_of is None and isinstance(sample, Sample) and not sample.group:
                frames.add(sample.image.name)
    if references.samples and source.counts[_UNGROUPED] == references.samples:
        raise FormatError(
            f"group is {request.group!r}, which matches no image's name: every image would be its "
            "own group"
        )
    return frames


@dataclass(frozen=True)
class _Intake:
    """Adds samples to the table of references, with a reason those that cannot be used."""

    source: Source
    request: Request
    references: References
    stamp_of: StampOf
    group_of: Callable[[str], str | None] | None

    def take(self, sample: Sample | Rejected) -> None:
        """Add one sample."""
        if isinstance(sample, Rejected):
            self.references.reject(Rejected(*(shortened(escaped(text)) for text in sample)))
            return
        if escaped(sample.key + sample.image.name) != sample.key + sample.image.name:
            where = escaped(sample.image.uri or sample.image.name)
            why = f"{where}: rename that file"
            self.references.reject(Rejected(escaped(sample.key), "name not UTF-8", why))
            return
        if self.request.mapping:
            sample = map_sample(sample, self.request.mapping)
        if self.request.crop and self._counted_as_nothing_to_crop(sample):
            return
        try:
            sample, stamp = locate(sample, self.request, self.stamp_of)
        except ImageError as error:
            self.references.reject(Rejected(sample.key, error.reason, str(error)))
            return
        self.references.add(self._grouped(sample), stamp)

    def _counted_as_nothing_to_crop(self, sample: Sample) -> bool:
        """Whether no instance gives a crop, so that the image need not be read; counted if so."""
        reasons = [self.request.why_not_cropped(instance) for instance in sample.instances]
        if None in reasons:
            return False
        self.source.counts["images without an instance to crop"] += 1
        self.source.counts.update(reason for reason in reasons if reason)
        return True

    def _grouped(self, sample: Sample) -> Sample:
        if self.group_of is None:
            if sample.group is None and (picture := roboflow_picture(sample.image.name)):
                self.source.counts[_VERSIONS] += 1
                return replace(sample, group=picture)
            return sample
        group = self.group_of(sample.image.name)
        self.source.counts[_UNGROUPED] += group is None
        if group and sample.group and not self.source.groups_from_names:
            self.references.join(group, sample.group)
        return replace(sample, group=group or sample.group)


@contextmanager
def _stamps(request: Request) -> Iterator[StampOf]:
    """How to get images' stamps: of files one by one, of objects from one listing of them all."""
    if not request.on_store:
        yield image_files.stamp
        return
    assert request.images_root is not None
    with image_objects.StampListing(request.images_root) as listing:
        yield listing.stamp


def locate(
    sample: Sample, request: Request, stamp_of: StampOf | None = None
) -> tuple[Sample, Stamp]:
    """The sample with its image's real path or URL in place of any bytes, and the image's stamp.

    Args:
        sample: what a reader gave.
        request: says where images are.
        stamp_of: where it is not given, the file or object is asked.

    Raises:
        ImageError: there is no such image, or its name leads out of the images folder.
    """
    located = locate_image(sample.image, request.images_root)
    if sample.image.data is not None:
        stamp = Stamp(len(sample.image.data), 0)
    else:
        ask = image_objects.stamp if request.on_store else image_files.stamp
        stamp = (stamp_of or ask)(located.uri, request.max_bytes)
    return replace(sample, image=located), stamp


def _write_plans(
    references: References, totals: dict[str, SplitTotals], request: Request, folder: Path
) -> Iterator[ShardPlan]:
    header = msgspec.json.encode(PlanHeader(request.for_workers, software()), order="sorted")
    counts = shards_per_split(
        request, {split: _expected_size(split, total, request) for split, total in totals.items()}
    )
    for split, count in counts.items():
        samples = totals[split].samples
        packed = references.packed_samples(split)
        for k in range(count):
            here = samples * (k + 1) // count - samples * k // count
            name = shard_name(split, k, count)
            with tfrecord.Writer(folder / f"{name}.plan", durable=False) as writer:
                writer.write(header)
                for _ in range(here):
                    writer.write(next(packed))
            yield ShardPlan(name, split, here, writer.blake3)


def _expected_size(split: str, total: SplitTotals, request: Request) -> SplitSize:
    copies = 1 + (request.augment if split == TRAIN else 0)
    crops = total.instances * request.crop**2 * BYTES_PER_PIXEL if request.crop else total.bytes
    return SplitSize(total.samples, crops * copies)


def _write_rejected(rejected: Iterator[Rejected], file: BinaryIO) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for item in rejected:
        reasons[item.reason] += 1
        file.write(as_line(item))
    return reasons


def _nothing_usable(source: Source, rejected: Counter[str], references: References) -> str:
    files = ", ".join(str(path) for path in source.annotation_files)
    if not rejected:
        noted = "".join(f"; {count:,} {what}" for what, count in source.counts.items())
        return f"{files}: holds no sample to write{noted}"
    listed = ", ".join(f"{count} × {reason}" for reason, count in rejected.most_common())
    return (
        f"{files}: no sample is usable ({listed}); the first: {next(references.rejected()).detail}"
    )


def _flip_warning(request: Request) -> Iterator[str]:
    skeleton = request.skeleton
    flips = request.augment and request.augment_config.flip
    if flips and len(skeleton) > 1 and not skeleton.flip_pairs:
        yield (
            f"skeleton {skeleton.name} has no flip pairs, so that every keypoint keeps its name in "
            "a mirrored copy. If some are left and right, give a skeleton's JSON file with flip "
            "pairs (`to_skeleton`), or set flip = 0 in the file of `augment_config`"
        )


def _split_warnings(
    request: Request,
    totals: dict[str, SplitTotals],
    officials: list[str],
    references: References,
) -> Iterator[str]:
    splits = request.splits
    if len(officials) > 1 and not splits.official:
        names = ", ".join(officials)
        yield f"the source has an official split ({names}): `split` official keeps it"
    empty = [name for name in splits.shares if name not in totals]
    if empty:
        samples = sum(total.samples for total in totals.values())
        groups = references.count_groups()
        which = f"split {empty[0]} is" if len(empty) == 1 else f"splits {' and '.join(empty)} are"
        yield (
            f"{which} empty: {samples:,} images in {groups:,} group{'s' * (groups > 1)} are too "
            f"few for {len(splits.shares)} splits. Give fewer splits, or a finer `group`."
        )
    if len(totals) == 1 and splits.official:
        yield f"the source's official split has only {next(iter(totals))}: nothing to test on"
