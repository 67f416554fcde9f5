"""Quick checks before training: of the settings, and of what the crops allow."""

from pathlib import Path

from kpdata.core.crop import CropRule, crop_rule_of
from kpdata.core.errors import SchemaError, TrainingError, located
from kpdata.core.progress import Progress
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import TRAIN, VAL
from kpdata.metrics.poses import reference_lengths
from kpdata.shards.dataset import Dataset
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.data.instances import CropFinder
from kpdata.train.evaluate.evaluate import check_skeleton
from kpdata.train.evaluate.scores import chosen_reference, reference_note
from kpdata.train.infer.predictions import Truth
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, RunFolder


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
            "could be compared: set it to 0, or convert with a `skeleton` that has"
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
            f"{named} without a validation score: {dataset.folder} has no split 'val', or an "
            "one without labels. Convert with one, such as `split` 80/10/10, or train with the "
            "settings patience=0 and schedule=cosine"
        )


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
        raise TrainingError(
            f"validation PCK cannot be measured: {problem}. Name two keypoints whose distance is "
            """to be the reference, as the setting reference=["NAME", "NAME"]"""
        )
    if not config.reference and (note := reference_note(poses)):
        progress.warn(f"validation: {note}")


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
