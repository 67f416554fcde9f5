"""The default configuration for a dataset and this machine, without a recipe."""

import math
from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

import msgspec

from kpdata.core.crop import CropRule, crop_rule_of, why_not_shown
from kpdata.core.errors import TrainingError
from kpdata.core.sample import WHOLE_IMAGE
from kpdata.core.splits import TRAIN
from kpdata.shards.dataset import Dataset
from kpdata.train.models.registry import default_model, get_model
from kpdata.train.ops.device import on_gpu
from kpdata.train.run.config import TrainConfig

_CROPS_IN_ALL = 200_000
_EPOCHS = (10, 300)
_INPUT_SIZES = (128, 256)
_STEP = 32
_INSTANCES_JUDGED = 10_000


def default_config(
    dataset: Dataset, model: str | None = None, options: Mapping[str, Any] = MappingProxyType({})
) -> TrainConfig:
    """A configuration of ``model`` for these shards on this machine.

    Small datasets get more epochs, of about 200,000 crops in all; a GPU computes in bfloat16.
    The input is as large as the shards' crops, from 128 to 256 px; whole images get 192 px on a
    CPU and are cropped around their boxes, where most instances have one.

    Args:
        dataset: shards with a split ``train``.
        model: its name; None takes the default.
        options: of the model; those that are not given have their defaults.

    Raises:
        TrainingError: there is no split to train on, or it is empty.
        KpdataError: no such model, or it has no such option.
    """
    spec = get_model(model or default_model())
    parsed = spec.parse(options)
    crop_side, crop_rule = _look_at(dataset)
    size = crop_side or (256 if on_gpu() else 192)
    step = math.lcm(_STEP, spec.input_multiple)
    size = min(max(step * round(size / step), _INPUT_SIZES[0]), _INPUT_SIZES[1])
    split = dataset.manifest.splits[TRAIN]
    crops = max(split.records, split.instances, 1)  # a whole image shows each of its instances
    epochs = min(max(_CROPS_IN_ALL // crops, _EPOCHS[0]), _EPOCHS[1])
    return TrainConfig(
        model=spec.name,
        options=msgspec.to_builtins(parsed),
        phases=spec.default_phases(parsed, epochs, size),
        crop_from=crop_rule.crop_from,
        margin=crop_rule.margin,
        precision="mixed_bfloat16" if on_gpu() else "float32",
    )


def _look_at(dataset: Dataset) -> tuple[int | None, CropRule]:
    """The side of the shards' crops (None for whole images), and the crop rule."""
    if TRAIN not in dataset.splits:
        raise TrainingError(
            f"{dataset.folder} has no split 'train'; it has {', '.join(dataset.splits)}"
        )
    first = next((sample for sample in dataset[TRAIN] if sample.instances), None)
    if first is None or first.view is None:
        raise TrainingError(f"{dataset.folder}: the split 'train' shows no instance")
    if first.view.instance != WHOLE_IMAGE:
        return first.image.width, crop_rule_of(dataset.manifest.options) or CropRule()
    return None, CropRule("bbox", 1.25) if _have_boxes(dataset) else CropRule("image", 1.0)


def _have_boxes(dataset: Dataset) -> bool:
    """Whether at least half of the instances that can be shown have a box."""
    first = islice((i for sample in dataset[TRAIN] for i in sample.instances), _INSTANCES_JUDGED)
    boxed = [i.bbox_xyxy is not None for i in first if not why_not_shown(i)]
    return 2 * sum(boxed) >= max(1, len(boxed))
