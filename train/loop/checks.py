"""Quick checks before training: of the settings, and of what the crops allow."""

import math
from itertools import combinations
from pathlib import Path
from statistics import mean

import msgspec
import numpy as np

from kpdata.core.crop import CropRule, crop_rule_of
from kpdata.core.errors import SchemaError, TrainingError, located
from kpdata.core.progress import Progress
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import TRAIN, VAL
from kpdata.metrics import pck_area
from kpdata.metrics.poses import reference_lengths
from kpdata.shards.dataset import Dataset
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.data.instances import CropFinder
from kpdata.train.evaluate.evaluate import check_skeleton
from kpdata.train.evaluate.scores import chosen_reference, longest_pair, reference_note
from kpdata.train.infer.predictions import Truth
from kpdata.train.models.base import LARGEST_INPUT
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, RunFolder, State

_JUDGED = 500
"""Instances by which the spacing of keypoints is judged."""

_ABOVE_BASELINE = 0.02
"""What a model must do better than the mean pose, in area under PCK's curve."""

_APART, _SMALL = 2.0, 0.5
"""Keypoints less than so many cells apart are hard to tell apart; an instance that spans less than
this part of its crop could have more of it. A person in a crop around its box spans 0.6 to 0.8."""


def crop_rule_for(dataset: Dataset, config: TrainConfig) -> CropRule:
    """The crops that the model is trained on: shards of crops have theirs from the conversion."""
    of_crops = crop_rule_of(dataset.manifest.options)
    return of_crops or CropRule(config.crop_from, config.margin)


def has_val(dataset: Dataset, config: TrainConfig) -> bool:
    """Whether the split ``val`` shows any instance; records are read until one does."""
    if VAL not in dataset.splits:
        return False
    finder = CropFinder(dataset, VAL, crop_rule_for(dataset, config), config.input_size)
    return any(True for _ in finder)


def check_config(config: TrainConfig, skeleton: Skeleton) -> None:
    """Raise KpdataError if a setting needs a keypoint, edge, file or run that does not exist.

    All of it is found without an image or a network.
    """
    if config.spec.view != "instance":
        raise TrainingError(
            f"model is {config.model}: it takes whole images, and crops of one instance are all "
            "that can be trained on"
        )
    config.spec.check(config.spec.parse(config.options))
    pair = config.reference if isinstance(config.reference, tuple) else ()
    for name in (*config.keypoint_weights, *pair):
        skeleton.index(name)
    limbs = config.losses.get("limbs", 0)
    if limbs and not skeleton.edges:
        raise TrainingError(
            f"losses.limbs is {limbs:g}, and skeleton {skeleton.name} has no edges whose lengths "
            "could be compared: set losses.limbs=0, or convert with a `skeleton` that has edges"
        )
    if config.init_from:
        _check_init(RunFolder(Path(config.init_from)), config, skeleton)


def _check_init(folder: RunFolder, config: TrainConfig, skeleton: Skeleton) -> None:
    """Raise TrainingError if the run to start from does not exist, or its weights do not fit."""
    has, wants = folder.config().architecture, config.architecture
    best_of(folder)
    with located(f"init_from is {folder.path}"):
        check_skeleton(folder.info().skeleton, skeleton)
        if has != wants:
            raise TrainingError(
                f"its weights are of {has}, and this run's model has {wants}: give this run the "
                "same, or start from another one"
            )


def best_of(folder: RunFolder) -> Best:
    """The best weights of a run to start from; TrainingError where it has none."""
    best = folder.state().best
    if best is None:
        raise TrainingError(f"{folder.path} has no weights to start from: no epoch is validated")
    return best


def check_needs_validation(config: TrainConfig, dataset: Dataset) -> None:
    """Raise TrainingError if a setting needs validation, and there is no data for it."""
    needing = {"patience": config.patience > 0, "schedule=plateau": config.schedule == "plateau"}
    named = " and ".join(name for name, is_set in needing.items() if is_set)
    if named:
        raise TrainingError(
            f"{named}: needs a validation score, but {dataset.folder} has no split 'val' with "
            "labels: convert with one, such as `split` 80/10/10, or train with the settings "
            "patience=0 and schedule=cosine"
        )


def with_reference(config: TrainConfig, train: LabelledCrops, progress: Progress) -> TrainConfig:
    """``config`` with a pair of keypoints as PCK's reference, where nothing else can be.

    It is chosen once, by the labels of the training split, and is the run's: on another split
    another pair might be the longest.
    """
    if config.reference is not None:
        return config
    poses = Truth.of(train).poses(train.skeleton, train.truth)
    try:
        chosen_reference(poses)
        return config
    except SchemaError:
        pair = longest_pair(poses)
    if pair is None:
        return config
    progress.tell(
        f"PCK is measured by the distance of {pair[0]} and {pair[1]}, the longest of most poses: "
        "there are neither a torso nor boxes. The setting reference names another pair"
    )
    return msgspec.structs.replace(config, reference=pair)


def warn_of_close_keypoints(config: TrainConfig, train: LabelledCrops, progress: Progress) -> None:
    """Warn of instances so small in their crops that neighbouring keypoints become one.

    Close keypoints alone are no fault: those of a face lie close in any crop, and a model can tell
    them apart by what surrounds them. Where the whole instance is small, too, more pixels help.
    """
    some = np.linspace(0, len(train) - 1, min(len(train), _JUDGED)).round().astype(int)
    keypoints = train.keypoints[some].astype(np.float64)
    xy = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan)
    xy = xy[np.isfinite(xy[..., 0]).sum(axis=1) > 1]
    if not len(xy):
        return
    spans = np.nanmax(np.nanmax(xy, axis=1) - np.nanmin(xy, axis=1), axis=1)
    nearest = {}
    for first, second in combinations(range(len(train.skeleton)), 2):
        lengths = np.linalg.norm(xy[:, first] - xy[:, second], axis=1)
        lengths = lengths[np.isfinite(lengths)]
        if 2 * len(lengths) >= len(xy):
            nearest[first, second] = float(np.median(lengths))
    if not nearest or np.median(spans) > _SMALL * train.side:
        return
    first, second = min(nearest, key=lambda pair: nearest[pair])
    apart, cell = nearest[first, second], _heatmap_cell(config, len(train.skeleton))
    if apart >= _APART * cell:
        return
    step = math.lcm(32, config.spec.input_multiple)
    size = step * math.ceil(config.input_size * _APART * cell / max(apart, 0.1) / step)
    fixes = []
    if config.crop_from == "image" and np.isfinite(train.bbox_xyxy).all(axis=1).mean() > 0.5:
        fixes.append(
            "crop around the boxes (crop_from=bbox, in conversion if the shards are crops)"
        )
    if size <= LARGEST_INPUT:
        fixes.append(f"train with `input_size` {size}")
    fixes.append(
        "train a second model on crops around the keypoints (the setting crop_from=keypoints), and "
        "predict with it in boxes around what the first one finds, in videos in the frame before"
    )
    names = train.skeleton.keypoints
    progress.warn(
        f"the instances are small in their crops: {names[first]} and {names[second]} lie "
        f"{apart:.1f} of {train.side} pixels apart, {apart / cell:.1f} cells of a heatmap; "
        f"a whole instance spans {np.median(spans):.0f} (medians). A model may find both in one "
        f"place, and PCK still look good. Better {'; or '.join(fixes)}"
    )


def _heatmap_cell(config: TrainConfig, num_keypoints: int) -> float:
    """Side of a heatmap's cell in input pixels; 4 for a model without, as most with one have."""
    size = config.phases[0].input_size
    outputs = config.build(num_keypoints, size).output
    heatmap = outputs.get("heatmap", outputs.get("heatmap_logit"))
    return 4.0 if heatmap is None else size / heatmap.shape[2]


def check_reference(config: TrainConfig, val: LabelledCrops, progress: Progress) -> None:
    """Raise TrainingError if validation PCK has no reference length, before the first epoch."""
    poses = Truth.of(val).poses(val.skeleton, val.truth)
    try:
        reference = config.reference or chosen_reference(poses)
        usable = reference_lengths(poses, reference).usable.any()
        problem = "" if usable else f"no instance of {VAL} has the reference {reference!r}"
    except SchemaError as error:
        problem = str(error)
    if problem:
        fix = (
            "Convert annotations with boxes: their size is then the reference"
            if len(val.skeleton) == 1
            else "Name two keypoints whose distance is to be the reference, as the setting "
            """reference=["NAME", "NAME"]"""
        )
        raise TrainingError(f"validation PCK cannot be measured: {problem}. {fix}")
    if not config.reference and (note := reference_note(poses)):
        progress.warn(f"validation: {note}")


def warn_of_baseline(
    config: TrainConfig, state: State, baseline: FloatArray, val: LabelledCrops, progress: Progress
) -> None:
    """Warn of a run that ends no better than its baseline, the mean pose in every crop.

    Args:
        config: of the run.
        state: at its end.
        baseline: (N, K, 3) the mean pose in the source images of ``val``.
        val: what the run was validated on.
        progress: hears of it.
    """
    best = state.best
    if best is None or not best.areas:
        return
    poses = Truth.of(val).poses(val.skeleton, baseline)
    reference = config.reference or chosen_reference(poses)
    floor = pck_area(poses, reference, config.threshold).value
    reached = mean(best.areas.values())
    if reached <= floor + _ABOVE_BASELINE:
        progress.warn(
            f"the run ends at its baseline: the area under PCK's curve is {reached:.3f}, and that "
            f"of the mean pose, which looks at no picture, {floor:.3f}. More epochs, another "
            "learning rate, or a look at the labels (augment-preview) may help"
        )


def warn_if_worse_than_start(state: State, progress: Progress) -> None:
    """Warn of a run that ends below the pretrained weights that it began with."""
    if state.start is None or state.best is None:
        return
    heads = state.start.areas.keys() & state.best.areas.keys()
    if not heads:
        return
    began, ended = (
        mean(areas[head] for head in heads) for areas in (state.start.areas, state.best.areas)
    )
    if ended < began:
        progress.warn(
            f"the run ends below its start: the area under PCK's curve is {ended:.3f}, and "
            f"{state.start.weights} had {began:.3f} before the first step. A smaller trunk_rate or "
            "learning rate keeps more of what the weights know"
        )


def warn_of_unused_crop_rule(config: TrainConfig, dataset: Dataset, progress: Progress) -> None:
    """Warn where the configuration's crops are not those that the shards hold."""
    asked, used = CropRule(config.crop_from, config.margin), crop_rule_for(dataset, config)
    if asked != used:
        progress.warn(
            f"crop_from={asked.crop_from} and margin={asked.margin:g} change nothing: the shards "
            f"are crops already, of {used.words}"
        )


def warn_of_shared_crops(
    train: LabelledCrops, val: LabelledCrops | None, progress: Progress
) -> None:
    """Warn of crops that stand for several instances with contradicting keypoints."""
    for split, crops in ((TRAIN, train), (VAL, val)):
        if crops and (text := crops.warning(split)):
            progress.warn(text)
