"""Plan: stream the references once, split them by group, order them by hash, cut them into shards.

The result is one plan file per shard, a TFRecord of packed samples; a plan's bytes decide its
shard's bytes.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from kpdata.core.errors import FormatError, ImageError
from kpdata.core.mapping import map_sample
from kpdata.core.sample import Rejected, Sample
from kpdata.core.splits import TRAIN, Splits
from kpdata.formats.base import Source
from kpdata.pipelines.job import Job
from kpdata.pipelines.plan.file import PlanHeader
from kpdata.pipelines.plan.table import SplitTotals, Spool
from kpdata.pipelines.sharding import Sharding, SplitSize
from kpdata.pipelines.write.render import why_not_cropped
from kpdata.shards import tfrecord
from kpdata.shards.manifest import shard_name, software
from kpdata.shards.quarantine import as_line
from kpdata.storage import image_files, image_objects
from kpdata.storage.image_files import Stamp

BYTES_PER_PIXEL = 0.4
"""What a JPEG of quality 95 takes, roughly: only the number of shards rests on it."""

REJECTED = "rejected.jsonl"

JoinNear = Callable[[Spool], int]
Look = Callable[[str, int], Stamp]

_UNGROUPED = "images whose name --group does not match"


class ShardPlan(msgspec.Struct, frozen=True):
    """One shard to write: its file name, how many samples it reads, and the hash of its plan."""

    name: str
    split: str
    samples: int
    blake3: str


@dataclass(frozen=True)
class Plan:
    """All shards to write, and what was refused on the way.

    Attributes:
        folder: holds a plan file per shard and REJECTED, the list of refused samples.
        shards: by split, in order.
        rejected: refused samples by reason.
        counts: named counts for the user.
        references: a hash of every key, label and image size, whatever folder they lie in.
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


def make_plan(
    source: Source,
    job: Job,
    splits: Splits,
    sharding: Sharding,
    folder: Path,
    group_of: Callable[[str], str | None] | None = None,
    on_sample: Callable[[int], None] = lambda count: None,
    join_near: JoinNear = lambda _: 0,
) -> Plan:
    """Read every reference and write the plan files into ``folder``.

    Args:
        source: what a reader found; its samples are consumed.
        job: what to do with each sample.
        splits: which split a group belongs to.
        sharding: how many shards.
        folder: where plan files go; created.
        group_of: file name → group (``--group``), joined with the source's own, or in the place
            of one that was read off the name.
        on_sample: called with 1 for every reference read.
        join_near: joins the groups of images that look alike; says how many it joined.

    Raises:
        FormatError: the source holds no usable sample, or two under one key; ``group_of`` knows
            no name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Spool() as spool:
        _collect(source, job, group_of, on_sample, spool)
        joined = {
            "identical images joined into one group": spool.join_identical_images(job),
            "near-duplicate images grouped": join_near(spool),
        }
        officials = spool.official_splits()
        spool.place(splits)
        totals = spool.split_totals()
        rejected = _write_rejected(spool.rejected(), folder / REJECTED)
        if not totals:
            raise FormatError(_nothing_usable(source, rejected, spool))
        header = msgspec.json.encode(PlanHeader(job, software()), order="sorted")
        shards = tuple(_write_plans(spool, totals, header, job, sharding, folder))
        warnings = (*_warnings(splits, totals, officials, spool), *_flip_warning(job))
    counts = +(source.counts + Counter(joined))
    return Plan(folder, shards, rejected, counts, spool.references, warnings)


def _collect(
    source: Source,
    job: Job,
    group_of: Callable[[str], str | None] | None,
    on_sample: Callable[[int], None],
    spool: Spool,
) -> None:
    with _looking(job) as look:
        for sample in source.samples:
            on_sample(1)
            _receive(sample, source, job, look, group_of, spool)
    if spool.samples and source.counts[_UNGROUPED] == spool.samples:
        raise FormatError("--group matches no image's name: every image would be its own group")


def _receive(
    sample: Sample | Rejected,
    source: Source,
    job: Job,
    look: Look,
    group_of: Callable[[str], str | None] | None,
    spool: Spool,
) -> None:
    if isinstance(sample, Rejected):
        spool.reject(Rejected(*map(spelt, sample)))
        return
    if spelt(sample.key + sample.image.name) != sample.key + sample.image.name:
        where = spelt(sample.image.uri or sample.image.name)
        spool.reject(Rejected(spelt(sample.key), "name not UTF-8", f"{where}: rename that file"))
        return
    if job.mapping:
        sample = map_sample(sample, job.mapping)
    if job.crop and _nothing_to_crop(sample, job, source.counts):
        return
    try:
        sample, found = locate(sample, job, look)
    except ImageError as error:
        spool.reject(Rejected(sample.key, error.reason, str(error)))
        return
    if group_of:
        group = group_of(sample.image.name)
        source.counts[_UNGROUPED] += group is None
        if group and sample.group and not source.groups_from_names:
            spool.join(group, sample.group)
        sample = replace(sample, group=group or sample.group)
    spool.add(sample, found)


def spelt(text: str) -> str:
    """The text with what UTF-8 cannot hold, of a file's name say, as backslashes and digits."""
    return text.encode("utf-8", "backslashreplace").decode()


def _nothing_to_crop(sample: Sample, job: Job, counts: Counter[str]) -> bool:
    """Whether no instance gives a crop, so that the image need not be read; counted if so."""
    reasons = [why_not_cropped(instance, job) for instance in sample.instances]
    if None in reasons:
        return False
    counts["images without an instance to crop"] += 1
    counts.update(reason for reason in reasons if reason)
    return True


@contextmanager
def _looking(job: Job) -> Iterator[Look]:
    """How to get images' stamps: of files one by one, of objects from one listing of them all."""
    if not job.on_store:
        yield image_files.stamp
        return
    assert job.images_root is not None
    with image_objects.Listing(job.images_root) as listing:
        yield listing.stamp


def locate(sample: Sample, job: Job, look: Look | None = None) -> tuple[Sample, Stamp]:
    """The sample with its image's real path or URL in place of any bytes, and the image's stamp.

    Args:
        sample: what a reader gave.
        job: says where images are.
        look: URI and largest size → stamp; where it is not given, the file or object is asked.

    Raises:
        ImageError: there is no such image, or its name leads out of the images folder.
    """
    image, root = sample.image, job.images_root
    if image.data is not None:
        return replace(sample, image=replace(image, data=None)), Stamp(len(image.data), 0)
    if root is None:
        raise ImageError("image missing", f"{image.name}: the source names no images folder")
    if job.on_store:
        uri = image_objects.safe_url(root, image.name)
        look = look or image_objects.stamp
    else:
        uri = image_files.safe_path(root, image.name)
        look = look or image_files.stamp
    return replace(sample, image=replace(image, uri=uri)), look(uri, job.max_bytes)


def _write_plans(
    spool: Spool,
    totals: dict[str, SplitTotals],
    header: bytes,
    job: Job,
    sharding: Sharding,
    folder: Path,
) -> Iterator[ShardPlan]:
    counts = sharding.shards_per_split(
        {split: _expected_size(split, total, job) for split, total in totals.items()}
    )
    for split, count in counts.items():
        samples = totals[split].samples
        references = spool.packed_samples(split)
        for k in range(count):
            here = samples * (k + 1) // count - samples * k // count
            name = shard_name(split, k, count)
            with tfrecord.Writer(folder / f"{name}.plan", durable=False) as writer:
                writer.write(header)
                for _ in range(here):
                    writer.write(next(references))
            yield ShardPlan(name, split, here, writer.blake3)


def _expected_size(split: str, total: SplitTotals, job: Job) -> SplitSize:
    copies = 1 + (job.augment if split == TRAIN else 0)
    one_copy = total.instances * job.crop**2 * BYTES_PER_PIXEL if job.crop else total.bytes
    return SplitSize(total.samples, one_copy * copies)


def _write_rejected(rejected: Iterator[Rejected], path: Path) -> Counter[str]:
    reasons: Counter[str] = Counter()
    with open(path, "wb") as file:
        for item in rejected:
            reasons[item.reason] += 1
            file.write(as_line(item))
    return reasons


def _nothing_usable(source: Source, rejected: Counter[str], spool: Spool) -> str:
    files = ", ".join(str(path) for path in source.annotation_files)
    if not rejected:
        noted = "".join(f"; {count:,} {what}" for what, count in source.counts.items())
        return f"{files}: holds no sample to write{noted}"
    listed = ", ".join(f"{count} × {reason}" for reason, count in rejected.most_common())
    return f"{files}: no sample is usable ({listed}); the first: {next(spool.rejected()).detail}"


def _flip_warning(job: Job) -> Iterator[str]:
    flips = job.augment and job.augment_config.flip
    if flips and len(job.skeleton) > 1 and not job.skeleton.flip_pairs:
        yield (
            f"skeleton {job.skeleton.name} has no flip pairs, so that every keypoint keeps its "
            "name in a mirrored copy: if some are left and right, say so in a skeleton's JSON "
            "file (--to-skeleton); flip = 0 in --augment-config mirrors nothing"
        )


def _warnings(
    splits: Splits, totals: dict[str, SplitTotals], officials: list[str], spool: Spool
) -> Iterator[str]:
    if len(officials) > 1 and not splits.official:
        names = ", ".join(officials)
        yield f"the source has an official split ({names}): --split official keeps it"
    empty = [name for name in splits.shares if name not in totals]
    if empty:
        samples = sum(total.samples for total in totals.values())
        groups = spool.count_groups()
        enough = groups >= len(splits.shares)
        which = f"split {empty[0]} is" if len(empty) == 1 else f"splits {' and '.join(empty)} are"
        yield (
            f"{which} empty: {samples:,} images in {groups:,} group{'s' * (groups > 1)} are too "
            f"few for {'the share' if enough else f'{len(splits.shares)} splits'}. "
            f"Give {'a larger share, another --seed' if enough else 'fewer splits'}, or a finer "
            "--group."
        )
    if len(totals) == 1 and splits.official:
        yield f"the source's official split has only {next(iter(totals))}: nothing to test on"
