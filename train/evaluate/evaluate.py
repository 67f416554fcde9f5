"""The scores of a trained run on one split of a dataset, and the files that prove them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import kpdata
from kpdata.core.crop import CropFrom, CropRule, crop_rule_of
from kpdata.core.errors import KpdataError, TrainingError
from kpdata.core.progress import Progress
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.metrics import place, reference_lengths
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import Manifest
from kpdata.train.data.pictures import Pictures, load
from kpdata.train.evaluate import plots
from kpdata.train.evaluate.report import (
    BARS,
    CURVE,
    MEAN_POSE,
    METRICS,
    SHEETS,
    Report,
    Settings,
    appearing,
    crop_source,
    notes_on,
    split_hash,
)
from kpdata.train.evaluate.scores import (
    FLOOR,
    chosen_reference,
    pck_curve,
    reference_note,
    score_all,
)
from kpdata.train.infer import predictions
from kpdata.train.infer.predictions import UNSEEN_MIRROR, Recorded, Truth
from kpdata.view import draw

if TYPE_CHECKING:
    from kpdata.train.infer.predictor import Predictor


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A report, and the instances behind it in the same order throughout."""

    report: Report
    pictures: Pictures
    truth: Truth
    recorded: Recorded


def evaluate(
    predictor: "Predictor", dataset: Dataset, settings: Settings, progress: Progress
) -> Evaluation:
    """Predict and score one split.

    Raises:
        TrainingError: the dataset's keypoints are not the run's, or it holds crops and
            ``settings`` ask for others.
        DatasetError: no such split, a damaged one, or nothing in it to look at.
    """
    check_skeleton(predictor.skeleton, dataset.skeleton)
    split_sha256 = split_hash(dataset, settings.split)
    crop_rule = _framing(predictor.crop_rule, dataset, settings.crop_from)
    progress.begin("reading", dataset.manifest.splits[settings.split].instances, "pictures")
    pictures = load(
        dataset, settings.split, crop_rule, predictor.input_size, on_read=progress.reach
    )
    progress.begin("predicting", len(pictures), "pictures")
    answers = predictor.predict(
        pictures, flip=settings.flip_test, decode=settings.decode, on_done=progress.reach
    )
    truth, floor = Truth.of(pictures), placed_floor(predictor.info.mean_pose, pictures)
    progress.begin("scoring")
    scores = score_all(
        dataset.skeleton, truth, answers, floor,
        settings.reference, settings.seed, settings.resamples,
    )  # fmt: skip
    report = Report(
        kpdata=kpdata.__version__,
        settings=settings,
        epoch=predictor.best.epoch,
        root_hash=dataset.manifest.root_hash,
        trained_on=predictor.info.root_hash,
        split_sha256=split_sha256,
        skeleton=dataset.skeleton,
        notes=_notes(predictor, settings, pictures, floor, dataset.manifest, crop_rule),
        primary=answers.primary,
        floor_definition=FLOOR,
        **_of_pictures(pictures, dataset.manifest),
        **vars(scores),
    )
    return Evaluation(report, pictures, truth, Recorded(truth.keys, answers, floor))


def _of_pictures(pictures: Pictures, manifest: Manifest) -> dict[str, Any]:
    """What a report says of them."""
    return {
        "crop": crop_source(pictures.crop, manifest),
        "input_size": pictures.side,
        "images": len(set(pictures.keys)),
        "instances": len(pictures),
        "left_out": pictures.counts,
    }


def check_skeleton(trained: Skeleton, given: Skeleton) -> None:
    """Raise TrainingError unless both have the same keypoints in the same order."""
    if trained.keypoints == given.keypoints:
        return
    missing = [name for name in trained.keypoints if name not in given.keypoints]
    unknown = [name for name in given.keypoints if name not in trained.keypoints]
    differences = [
        f"{what} {', '.join(names)}"
        for what, names in (("the dataset lacks", missing), ("the run does not know", unknown))
        if names
    ]
    raise TrainingError(
        f"the run predicts {len(trained)} keypoints of {trained.name}, the dataset has "
        f"{len(given)} of {given.name}: {'; '.join(differences) or 'they stand in another order'}. "
        "Convert the dataset with --to-skeleton and the run's skeleton"
    )


def placed_floor(mean_pose: npt.ArrayLike, pictures: Pictures) -> FloatArray:
    """(N, K, 3) the mean pose (K, 2), 0 to 1 in the crop, in each picture's source; score 1."""
    xy = place(np.asarray(mean_pose, np.float64), pictures.to_source, pictures.side)
    return np.concatenate([xy, np.ones((*xy.shape[:2], 1))], axis=2)


def save(evaluation: Evaluation, folder: Path) -> None:
    """Write the numbers, the predictions and the pictures: all of them, or nothing.

    ``metrics.json``, ``predictions.jsonl``, ``truth.jsonl``; ``pck_curve.png`` where there is a
    reference length, ``keypoints.png``, and contact sheets of the best, median and worst.
    """
    report, recorded = evaluation.report, evaluation.recorded
    with appearing(folder) as temporary:
        predictions.write_predictions(temporary / predictions.PREDICTIONS, recorded)
        predictions.write_truth(temporary / predictions.TRUTH, evaluation.truth)
        _plot_curve(evaluation, temporary / CURVE)
        plots.keypoint_bars(report.by_keypoint, temporary / BARS)
        answer = recorded.predictions.keypoints[report.primary]
        errors = plots.mean_errors(evaluation.pictures, answer)
        for which in SHEETS:
            sheet = plots.sheet(evaluation.pictures, answer, plots.choose(errors, which))
            draw.write_png(temporary / f"sheet-{which}.png", sheet)
        (temporary / METRICS).write_bytes(report.json())


def _framing(taught: CropRule, dataset: Dataset, crop_from: CropFrom | None) -> CropRule:
    """Which squares the model is to see: those of shards of crops, or cut out of whole images."""
    of_crops = crop_rule_of(dataset.manifest.options)
    if of_crops and crop_from:
        raise TrainingError(
            f"--crop-from {crop_from}: {dataset.folder} holds crops ({of_crops.words}), which are "
            "taken as they are: leave the option out, or convert the images without --crop"
        )
    return of_crops or (replace(taught, crop_from=crop_from) if crop_from else taught)


def _notes(
    predictor: "Predictor",
    settings: Settings,
    pictures: Pictures,
    floor: FloatArray,
    manifest: Manifest,
    crop_rule: CropRule,
) -> tuple[str, ...]:
    info, taught = predictor.info, predictor.crop_rule
    notes = notes_on(settings.split, pictures.crop, manifest, info, crop_rule, taught)
    if settings.flip_test and not predictor.saw_mirrored:
        notes += (f"WARNING: {UNSEEN_MIRROR}",)
    if note := predictor.score_note:
        notes += (note,)
    poses = Truth.of(pictures).poses(pictures.skeleton, floor)
    if not settings.reference and (note := reference_note(poses)):
        notes += (note,)
    if warning := pictures.warning(settings.split):
        notes += (f"WARNING: {warning}",)
    return notes


def _plot_curve(evaluation: Evaluation, path: Path) -> None:
    report, answers = evaluation.report, evaluation.recorded.predictions.keypoints
    named = {**answers, MEAN_POSE: evaluation.recorded.floor}
    poses = {
        name: evaluation.truth.poses(report.skeleton, keypoints)
        for name, keypoints in named.items()
    }
    try:
        reference = report.settings.reference or chosen_reference(poses[MEAN_POSE])
        curves = {name: pck_curve(each, reference) for name, each in poses.items()}
    except KpdataError:
        return
    plots.pck_curves(curves, reference_lengths(poses[MEAN_POSE], reference).name, path)
