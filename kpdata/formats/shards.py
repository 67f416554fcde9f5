"""Our own shards as a source: every original record becomes a sample again."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kpdata.formats.source import LARGEST, LARGEST_AREA, Source
from kpdata.manifest import MANIFEST
from kpdata.schema import WHOLE_IMAGE, Instance, Rejected, Sample
from kpdata.shards import Dataset


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
    return Source(
        skeleton=dataset.skeleton,
        samples=_samples(dataset, counts),
        images_root=None,
        annotation_files=(annotations / MANIFEST,),
        counts=counts,
        has_boxes=True,
    )


def _samples(dataset: Dataset, counts: Counter[str]) -> Iterator[Sample | Rejected]:
    for split, info in dataset.manifest.splits.items():
        for shard in info.shards:
            for offset, sample in dataset.read_shard(shard):
                assert sample.view is not None
                if sample.view.copy:
                    counts["augmented copies left behind"] += 1
                    continue
                uri = dataset.record_uri(shard, offset)
                if faults := list(filter(None, map(_fault, sample.instances))):
                    reason, detail = faults[0]
                    yield Rejected(_key(sample), reason, f"{uri}: {detail}")
                    continue
                image = replace(sample.image, uri=uri)
                yield replace(sample, key=_key(sample), image=image, split=split)


def _key(sample: Sample) -> str:
    assert sample.view is not None
    instance = sample.view.instance
    return sample.key if instance == WHOLE_IMAGE else f"{sample.key}#{instance}"


def _fault(instance: Instance) -> tuple[str, str] | None:
    """What no picture can hold, as reason and detail."""
    for what, values in (("keypoints", instance.xy), ("box", instance.bbox_xyxy)):
        if values is not None and (far := values[np.abs(values) > LARGEST]).size:
            return f"bad {what}", f"{what} lie at {far[0]:g}: expected at most {LARGEST:g} pixels"
    if instance.area is not None and instance.area > LARGEST_AREA:
        return "bad area", f"area is {instance.area:g}: expected at most {LARGEST_AREA:g}"
    return None
