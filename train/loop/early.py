"""What is looked at before anything slow: settings, and what the pictures allow."""

from collections import Counter
from pathlib import Path

from kpdata.core.crop import CropRule, crop_rule_of
from kpdata.core.errors import SchemaError, TrainingError, located
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import TRAIN, VAL
from kpdata.metrics.poses import reference_lengths
from kpdata.shards.dataset import Dataset
from kpdata.train.data.pictures import Pictures
from kpdata.train.data.squares import squares
from kpdata.train.evaluate.evaluate import check_skeleton
from kpdata.train.evaluate.scores import chosen_reference, reference_note
from kpdata.train.infer.predictions import Truth
from kpdata.train.loop.phase import TrainVal, Watcher, best_of
from kpdata.train.models import architecture
from kpdata.train.models.regression import check_names
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import RunFolder


def crop_rule_for(dataset: Dataset, config: TrainConfig) -> CropRule:
    """The squares that the model learns to see: crops have theirs from the conversion."""
    of_crops = crop_rule_of(dataset.manifest.options)
    return of_crops or CropRule(config.crop_from, config.margin)


def has_val(dataset: Dataset, config: TrainConfig) -> bool:
    """Whether the split ``val`` shows any instance; records are read until one does."""
    if VAL not in dataset.splits:
        return False
    crop_rule = crop_rule_for(dataset, config)
    shown = squares(dataset, VAL, crop_rule, config.input_size, copies=False, counts=Counter())
    return next(shown, None) is not None


def refuse_what_is_not_there(config: TrainConfig, skeleton: Skeleton) -> None:
    """Raise KpdataError where a setting needs a keypoint, edge, file or run that is not there.

    All of it is found without a picture or a model.
    """
    if config.model == "regression":
        check_names(config.backbone, config.weights, config.head)
    pair = config.reference if isinstance(config.reference, tuple) else ()
    for name in (*config.keypoint_weights, *pair):
        skeleton.index(name)
    if config.losses.limbs and not skeleton.edges:
        raise TrainingError(
            f"losses.limbs is {config.losses.limbs:g}, and skeleton {skeleton.name} has no edges "
            "whose lengths could be compared: set it to 0, or convert with a --skeleton that has"
        )
    if config.start:
        _refuse_other_start(RunFolder(Path(config.start)), config, skeleton)


def _refuse_other_start(start: RunFolder, config: TrainConfig, skeleton: Skeleton) -> None:
    """Raise TrainingError where there is no run to start from, or one of other weights."""
    has, wants = architecture(start.config()), architecture(config)
    best_of(start.path)
    with located(f"--start {start.path}"):
        check_skeleton(start.info().skeleton, skeleton)
        if has != wants:
            raise TrainingError(
                f"its weights are of {has}, and this run's model has {wants}: give this run the "
                "same, or start from another one"
            )


def refuse_followers(config: TrainConfig, dataset: Dataset) -> None:
    """Raise TrainingError where a run without validation data would follow its validation."""
    followers = {"patience": config.patience > 0, "schedule=plateau": config.schedule == "plateau"}
    named = " and ".join(name for name, is_set in followers.items() if is_set)
    if named:
        raise TrainingError(
            f"{named} without a validation score: {dataset.folder} has no split 'val', or an "
            "one without labels. Convert with one, as in --split 80/10/10, or train with "
            "--set patience=0 --set schedule=cosine"
        )


def check_reference(config: TrainConfig, val: Pictures, watcher: Watcher) -> None:
    """Raise TrainingError where validation PCK has no length to divide by: not an epoch later."""
    poses = Truth.of(val).poses(val.skeleton, val.truth)
    try:
        reference = config.reference or chosen_reference(poses)
        usable = reference_lengths(poses, reference).usable.any()
        problem = "" if usable else f"no instance of {VAL} has the reference {reference!r}"
    except SchemaError as error:
        problem = str(error)
    if problem:
        raise TrainingError(
            f"validation PCK cannot be measured: {problem}. Name two keypoints whose distance is "
            """to be the reference: --set 'reference=["NAME", "NAME"]'"""
        )
    if not config.reference and (note := reference_note(poses)):
        watcher.warn(f"validation: {note}")


def warn_of_idle_framing(config: TrainConfig, dataset: Dataset, watcher: Watcher) -> None:
    """Warn where the configuration's squares are not those that the shards are cropped to."""
    asked, seen = CropRule(config.crop_from, config.margin), crop_rule_for(dataset, config)
    if asked != seen:
        watcher.warn(
            f"crop_from={asked.crop_from} and margin={asked.margin:g} change nothing: the shards "
            f"are crops already, of {seen.words}"
        )


def warn_of_shared_squares(splits: TrainVal, watcher: Watcher) -> None:
    """Warn of pictures that stand for several instances with contradicting keypoints."""
    for split, pictures in ((TRAIN, splits.train), (VAL, splits.val)):
        if pictures and (text := pictures.warning(split)):
            watcher.warn(text)
