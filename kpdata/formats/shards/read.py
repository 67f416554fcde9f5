"""Read kpdata's own shards: every original record becomes a sample again."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kpdata.core.sample import WHOLE_IMAGE, Instance, Rejected, Sample
from kpdata.formats.base import LARGEST, LARGEST_AREA, Source
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import MANIFEST, ShardInfo


def read(annotations: Path) -> Source:
    """Read the shard folder ``annotations``.

    Augmented copies stay behind, and are counted: they are made anew from the originals. A crop
    becomes an image of its own, which still shares its source image's group. Each sample's official
    split is the split it lies in.

    Raises:
        DatasetError: the folder is not a dataset; while streaming, a damaged shard.
    """
    dataset = Dataset.open(annotations)
    counts: Counter[str] = Counter()

    def originals() -> Iterator[Sample | Rejected]:
        for split, info in dataset.manifest.splits.items():
            for shard in info.shards:
                for offset, sample in dataset.read_shard(shard):
                    if sample.view and sample.view.copy:
                        counts["augmented copies left behind"] += 1
                    else:
                        yield _original(dataset, split, shard, offset, sample)

    return Source(
        skeleton=dataset.skeleton,
        samples=originals(),
        images_root=None,
        annotation_files=(annotations / MANIFEST,),
        counts=counts,
        has_boxes=True,
    )


def _original(
    dataset: Dataset, split: str, shard: ShardInfo, offset: int, sample: Sample
) -> Sample | Rejected:
    if faults := list(filter(None, map(_fault, sample.instances))):
        where = f"{dataset.shard_path(shard)}: record at byte {offset}"
        return Rejected(_key(sample), faults[0][0], f"{where}: {faults[0][1]}")
    image = replace(sample.image, uri=dataset.record_uri(shard, offset))
    return replace(sample, key=_key(sample), image=image, split=split)


def _key(sample: Sample) -> str:
    assert sample.view is not None
    instance = sample.view.instance
    return sample.key if instance == WHOLE_IMAGE else f"{sample.key}#{instance}"


def _fault(instance: Instance) -> tuple[str, str] | None:
    """Values that no real picture has, as reason and detail; None if there are none."""
    for what, values in (("keypoints", instance.xy), ("box", instance.bbox_xyxy)):
        if values is not None and (far := values[np.abs(values) > LARGEST]).size:
            return (
                f"bad {what}",
                f"{what} at {far[0]:g}: expected numbers within {LARGEST:g} pixels",
            )
    if instance.area is not None and instance.area > LARGEST_AREA:
        return "bad area", f"area of {instance.area:g}: expected at most {LARGEST_AREA:g}"
    return None
