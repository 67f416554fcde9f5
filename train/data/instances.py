"""Find the crop of a record that shows each instance, without decoding images."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np

from kpdata.core import transform
from kpdata.core.crop import CropRule, why_not_shown
from kpdata.core.errors import DatasetError, located
from kpdata.core.sample import WHOLE_IMAGE, FloatArray, Instance, Sample
from kpdata.core.transform import Affine, apply_affine
from kpdata.formats.base import LARGEST
from kpdata.shards.dataset import Dataset, name_of


class RecordCrop(NamedTuple):
    """A record, and the affine from its pixels to those of the crop."""

    uri: str
    affine: Affine


class InstanceCrop(NamedTuple):
    """A crop that is still to be decoded, and the instance that it shows.

    Attributes:
        of: what of which record it shows.
        key: the source image's.
        number: of the instance in its source image.
        instance: in record pixels.
        to_source: crop pixels → source pixels.
        source_size: width and height.
        is_copy: whether the record is an augmented copy.
        is_cut: whether it was cut out of a whole image, rather than being its record.
    """

    of: RecordCrop
    key: str
    number: int
    instance: Instance
    to_source: Affine
    source_size: tuple[int, int]
    is_copy: bool
    is_cut: bool

    @property
    def record_to_source(self) -> Affine:
        """Record pixels → source pixels."""
        return transform.compose(self.to_source, self.of.affine)


class NotShown(NamedTuple):
    """An instance of a whole image that no crop shows, in source pixels.

    Attributes:
        key: the source image's.
        keypoints: (K, 3).
        bbox_xyxy: (4,); NaN where the source has none.
        area: square pixels; NaN where the source has none.
        is_crowd: as in :class:`kpdata.core.sample.Instance`.
    """

    key: str
    keypoints: FloatArray
    bbox_xyxy: FloatArray
    area: float
    is_crowd: bool


@dataclass
class CropFinder:
    """Iterates over the instances of a split that can be trained on: (crop, record).

    Attributes:
        dataset: a shard folder.
        split: its split.
        crop_rule: what is cut out of whole images; a record that is a crop is taken as it is.
        side: of the crops, in pixels.
        copies: take augmented copies too.
        counts: instances without a crop, by reason, of the last iteration so far.
        not_shown: those of them that lie in whole images; of crops' images nobody knows.

    Raises:
        DatasetError: when iterated: no such split, or a damaged record.
    """

    dataset: Dataset
    split: str
    crop_rule: CropRule
    side: int
    copies: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    not_shown: list[NotShown] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[InstanceCrop, Sample]]:
        self.counts.clear()
        self.not_shown.clear()
        for shard in self.dataset[self.split].shards:
            for offset, sample in self.dataset.read_shard(shard):
                if self.copies or not _is_copy(sample):
                    yield from self._crops_of(sample, self.dataset.record_uri(shard, offset))

    def _crops_of(self, sample: Sample, uri: str) -> Iterator[tuple[InstanceCrop, Sample]]:
        why_not = self.crop_rule.why_not if _is_whole(sample) else why_not_shown
        for number, instance in enumerate(sample.instances):
            if reason := why_not(instance):
                self.counts[f"instances not shown: {reason}"] += 1
                if _is_whole(sample) and not _is_copy(sample):
                    self.not_shown.append(_not_shown(sample, instance))
            else:
                with located(name_of(uri)):
                    yield _crop(sample, instance, number, uri, self.crop_rule, self.side), sample


def _crop(
    sample: Sample, instance: Instance, number: int, uri: str, crop_rule: CropRule, side: int
) -> InstanceCrop:
    view = sample.view
    assert view is not None, "every record has one"
    width, height = cast(int, sample.image.width), cast(int, sample.image.height)
    is_whole = _is_whole(sample)
    if is_whole:
        affine = crop_rule.square(instance, width, height, side)
    else:
        number = view.instance
        affine = transform.resize_affine(width, height, side)
    in_source = apply_affine(transform.invert(view.transform), instance.xy)
    if not (np.abs(np.concatenate([instance.xy, in_source])) <= LARGEST).all():
        raise DatasetError(f"instance {number}: a keypoint beyond {LARGEST:g} pixels")
    return InstanceCrop(
        of=RecordCrop(uri, affine),
        key=sample.key,
        number=number,
        instance=instance,
        to_source=transform.invert(transform.compose(affine, view.transform)),
        source_size=(view.source_width, view.source_height),
        is_copy=view.copy > 0,
        is_cut=is_whole,
    )


def _not_shown(sample: Sample, instance: Instance) -> NotShown:
    assert sample.view is not None, "every record has one"
    to_source = transform.invert(sample.view.transform)
    keypoints = instance.keypoints.astype(np.float64)
    keypoints[:, :2] = apply_affine(to_source, instance.xy)
    box = instance.bbox_xyxy
    return NotShown(
        key=sample.key,
        keypoints=np.where(keypoints[:, 2:] > 0, keypoints, 0),
        bbox_xyxy=np.full(4, np.nan) if box is None else transform.map_box(to_source, box),
        area=np.nan
        if instance.area is None
        else instance.area * transform.scale_of(to_source) ** 2,
        is_crowd=instance.is_crowd,
    )


def _is_copy(sample: Sample) -> bool:
    """Whether a record is an augmented copy."""
    return sample.view is not None and sample.view.copy > 0


def _is_whole(sample: Sample) -> bool:
    """Whether a record is a whole image, rather than one instance's crop."""
    return sample.view is not None and sample.view.instance == WHOLE_IMAGE
