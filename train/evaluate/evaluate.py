"""The scores of a trained run on one split of a dataset, and the files that prove them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import kpdata
from kpdata.core.crop import CropFrom, CropRule, crop_rule_of
from kpdata.core.errors import KpdataError, TrainingError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.metrics import Score, pose_in_source, reference_lengths
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import Manifest
from kpdata.storage.atomic import replaced_files
from kpdata.train.data.crops import LabelledCrops, load
from kpdata.train.evaluate import plots
from kpdata.train.evaluate.report import (
    BARS,
    CURVE,
    FILES,
    MEAN_POSE,
    METRICS,
    SHEETS,
    EvaluationSettings,
    Report,
    crop_source,
    notes_on,
    split_hash,
)
from kpdata.train.evaluate.scores import (
    BASELINE,
    chosen_reference,
    pck_curve,
    reference_note,
    score_all,
)
from kpdata.train.infer import predictions
from kpdata.train.infer.predictions import FLIP_NOT_TRAINED, Recorded, Truth
from kpdata.train.models.base import known_names
from kpdata.view import draw

if TYPE_CHECKING:
    from kpdata.train.infer.predictor import Predictor


class UnknownMetric(KpdataError, KeyError):
    """A score that an evaluation does not have; the message gives the reason, or what there is."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, Score]):
    """A report, and the instances behind it in the same order throughout.

    It maps the metrics of the model's primary head, and of its visibility, to scores: in lower
    case and without their reference.

    >>> evaluation["pck@0.2"].value, evaluation["pck@0.2"].baseline          # doctest: +SKIP
    (0.727, 0.179)
    >>> evaluation.heads["coordinates"]["epe"].interval                      # doctest: +SKIP
    (11.2, 12.9)

    Attributes:
        report: all scores, and what they depend on.
        crops: what the model was given.
        truth: of the instances.
        recorded: the predictions.
    """

    report: Report
    crops: LabelledCrops
    truth: Truth
    recorded: Recorded

    @property
    def heads(self) -> dict[str, dict[str, Score]]:
        """Head → metric → score."""
        return {head: _by_metric(scores) for head, scores in self.report.heads.items()}

    @property
    def _scores(self) -> dict[str, Score]:
        return {**self.heads[self.report.primary], **_by_metric(self.report.visibility)}

    def __getitem__(self, metric: str) -> Score:
        key = metric.lower()
        if (found := self._scores.get(key)) is not None:
            return found
        reasons = {_key(name): why for name, why in self.report.not_computed.items()}
        why = f"not computed: {reasons[key]}" if key in reasons else known_names(key, self._scores)
        raise UnknownMetric(f"no score {metric!r}; {why}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __repr__(self) -> str:
        report = self.report
        shown = ", ".join(
            f"{metric} {score.value:.3f}"
            for metric, score in self.items()
            if score.value is not None
        )
        return f"<Evaluation of {report.instances:,} instances of {report.settings.split}: {shown}>"


def _key(name: str) -> str:
    """``PCK@0.2 (torso)`` → ``pck@0.2``."""
    return name.partition(" (")[0].lower()


def _by_metric(scores: Iterable[Score]) -> dict[str, Score]:
    return {_key(score.name): score for score in scores}


def evaluate(
    predictor: "Predictor",
    dataset: Dataset,
    settings: EvaluationSettings,
    progress: Progress = SILENT,
) -> Evaluation:
    """Predict and score one split.

    Raises:
        TrainingError: the dataset's keypoints are not the run's, or it holds crops and
            ``settings`` ask for others.
        DatasetError: no such split, a damaged one, or nothing in it to look at.
    """
    check_skeleton(predictor.skeleton, dataset.skeleton)
    split_sha256 = split_hash(dataset, settings.split)
    crop_rule = _crop_rule(predictor.crop_rule, dataset, settings.crop_from)
    crops = load(dataset, settings.split, crop_rule, predictor.input_size, progress=progress)
    progress.begin("predicting", len(crops), "crops")
    predicted = predictor.predict(
        crops, flip=settings.flip_test, decode=settings.decode, progress=progress
    )
    truth, baseline = Truth.of(crops), placed_baseline(predictor.info.mean_pose, crops)
    progress.begin("scoring")
    scores = score_all(
        dataset.skeleton, truth, predicted, baseline,
        settings.reference, settings.seed, settings.resamples,
    )  # fmt: skip
    report = Report(
        kpdata=kpdata.__version__,
        settings=settings,
        epoch=predictor.best.epoch,
        crop=crop_source(crops.crop, dataset.manifest),
        input_size=crops.side,
        root_hash=dataset.manifest.root_hash,
        trained_on=predictor.info.root_hash,
        split_sha256=split_sha256,
        skeleton=dataset.skeleton,
        images=len(set(crops.keys)),
        instances=len(crops),
        left_out=crops.counts,
        notes=_notes(predictor, settings, crops, baseline, dataset.manifest, crop_rule),
        primary=predicted.primary,
        heads=scores.heads,
        visibility=scores.visibility,
        baseline_definition=BASELINE,
        baseline=scores.baseline,
        not_computed=scores.not_computed,
        phase=predictor.best.phase + 1,
        trains=predictor.config.phases[predictor.best.phase].trains,
        earlier=predictor.best.earlier,
    )
    return Evaluation(report, crops, truth, Recorded(truth.keys, predicted, baseline))


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
        "Convert the dataset with `to_skeleton`, the run's skeleton"
    )


def placed_baseline(
    mean_pose: Sequence[Sequence[float]] | FloatArray, crops: LabelledCrops
) -> FloatArray:
    """(N, K, 3) the mean pose (K, 2), 0 to 1 in the crop, in each crop's source image; score 1.

    Raises:
        TrainingError: it has another number of keypoints.
    """
    if len(mean_pose) != len(crops.skeleton):
        raise TrainingError(
            f"the run's mean_pose has {len(mean_pose)} keypoints, and {crops.skeleton.name} "
            f"{len(crops.skeleton)}: its dataset.json is damaged"
        )
    xy = pose_in_source(np.asarray(mean_pose, np.float64), crops.to_source, crops.side)
    return np.concatenate([xy, np.ones((*xy.shape[:2], 1))], axis=2)


def save(evaluation: Evaluation, folder: Path) -> None:
    """Write the numbers, the predictions and the pictures: all of them, or nothing.

    ``metrics.json``, ``predictions.jsonl``, ``truth.jsonl``; ``pck_curve.png`` where there is a
    reference length, ``keypoints.png``, and contact sheets of the best, median and worst.
    """
    report, recorded = evaluation.report, evaluation.recorded
    with replaced_files(folder, FILES) as temporary:
        predictions.write_predictions(temporary / predictions.PREDICTIONS, recorded)
        predictions.write_truth(temporary / predictions.TRUTH, evaluation.truth)
        _plot_curve(evaluation, temporary / CURVE)
        plots.keypoint_bars(report.by_keypoint[0], temporary / BARS)
        keypoints = recorded.predictions.keypoints[report.primary]
        errors = plots.mean_errors(evaluation.crops, keypoints)
        for which in SHEETS:
            sheet = plots.sheet(evaluation.crops, keypoints, plots.choose(errors, which))
            draw.write_png(temporary / f"sheet-{which}.png", sheet)
        (temporary / METRICS).write_bytes(report.json())


def _crop_rule(trained: CropRule, dataset: Dataset, crop_from: CropFrom | None) -> CropRule:
    """The crops to give to the model: those of shards of crops, or cut out of whole images."""
    of_crops = crop_rule_of(dataset.manifest.options)
    if of_crops and crop_from:
        raise TrainingError(
            f"crop_from is {crop_from}: {dataset.folder} holds crops ({of_crops.words}), which are "
            "taken as they are: leave out `crop_from`, or convert the images without `crop`"
        )
    return of_crops or (replace(trained, crop_from=crop_from) if crop_from else trained)


def _notes(
    predictor: "Predictor",
    settings: EvaluationSettings,
    crops: LabelledCrops,
    baseline: FloatArray,
    manifest: Manifest,
    crop_rule: CropRule,
) -> tuple[str, ...]:
    info, trained = predictor.info, predictor.crop_rule
    notes = notes_on(settings.split, crops.crop, manifest, info, crop_rule, trained)
    if settings.flip_test and not predictor.trained_with_flips:
        notes += (f"WARNING: {FLIP_NOT_TRAINED}",)
    if note := predictor.score_note:
        notes += (note,)
    poses = Truth.of(crops).poses(crops.skeleton, baseline)
    if not settings.reference and (note := reference_note(poses)):
        notes += (note,)
    if warning := crops.warning(settings.split):
        notes += (f"WARNING: {warning}",)
    return notes


def _plot_curve(evaluation: Evaluation, path: Path) -> None:
    report, heads = evaluation.report, evaluation.recorded.predictions.keypoints
    named = {**heads, MEAN_POSE: evaluation.recorded.baseline}
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
