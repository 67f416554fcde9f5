"""Compare two evaluations of the same instances, from the files that they wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from kpdata import metrics
from kpdata.core.errors import DatasetError
from kpdata.core.skeleton import Skeleton
from kpdata.metrics import Difference
from kpdata.metrics.measure import RESAMPLES
from kpdata.metrics.poses import Reference
from kpdata.train.evaluate.report import (
    METRICS,
    EvaluationSettings,
    Report,
    evaluation_folder,
    read_report,
)
from kpdata.train.evaluate.scores import (
    Measures,
    Reasons,
    localisation_measures,
    visibility_measures,
)
from kpdata.train.infer.predictions import (
    PREDICTIONS,
    TRUTH,
    Key,
    Predictions,
    Recorded,
    Truth,
    read_predictions,
    read_truth,
)

SAME_PLACE = 0.05
"""Pixels by which one keypoint may differ between truths that were read from different crops."""


class ComparedRun(msgspec.Struct, frozen=True):
    """One of the two runs: its files, its head, and how it was evaluated."""

    folder: str
    head: str
    crop: str
    input_size: int
    settings: EvaluationSettings


class Comparison(msgspec.Struct, frozen=True):
    """The difference of every metric, second run minus first.

    Attributes:
        first, second: what is compared.
        skeleton: of the keypoints.
        images, instances: how many, the same for both.
        notes: what else differs between the two.
        differences: metric by metric, with paired bootstrap intervals.
        not_compared: metric → the reason.
    """

    first: ComparedRun
    second: ComparedRun
    skeleton: Skeleton
    images: int
    instances: int
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]
    not_compared: dict[str, str]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The files of an evaluation, read."""

    folder: Path
    report: Report
    truth: Truth
    recorded: Recorded

    @classmethod
    def read(cls, folder: Path) -> "Evaluated":
        """Read the folder of an evaluation.

        Raises:
            DatasetError: a file is missing, damaged, or of other instances than the rest.
        """
        report = read_report(folder / METRICS)
        truth, recorded = read_truth(folder / TRUTH), read_predictions(folder / PREDICTIONS)
        if truth.keys != recorded.keys:
            raise DatasetError(
                f"{folder}: {PREDICTIONS} and {TRUTH} name different instances: evaluate again"
            )
        if len(set(truth.keys)) != len(truth):
            raise DatasetError(f"{folder / TRUTH}: an instance stands there twice: evaluate again")
        if truth.keypoints.shape[1] != len(report.skeleton):
            raise DatasetError(
                f"{folder / TRUTH}: {truth.keypoints.shape[1]} keypoints, {METRICS} names "
                f"{len(report.skeleton)}: evaluate again"
            )
        return cls(folder, report, truth, recorded)

    @property
    def summary(self) -> ComparedRun:
        """A short description for the comparison."""
        report = self.report
        head = self.recorded.predictions.primary
        return ComparedRun(str(self.folder), head, report.crop, report.input_size, report.settings)


def compare_runs(first: Path, second: Path, split: str, seed: int = 0) -> Comparison:
    """Compare the evaluations of two runs on a split.

    Args:
        first, second: run folders, or folders of their evaluations.
        split: for run folders.
        seed: of the bootstrap; each metric begins anew with it.

    Raises:
        DatasetError: one was not evaluated, or the two were evaluated on different instances.
    """
    a, b = (Evaluated.read(evaluation_folder(run, split)) for run in (first, second))
    order = matched(a, b)
    predictions = a.recorded.predictions, _taken(b.recorded.predictions, order)
    reference = a.report.settings.reference
    differences, reasons = compare_predictions(
        a.report.skeleton, a.truth, *predictions, reference, seed
    )
    return Comparison(
        first=a.summary,
        second=b.summary,
        skeleton=a.report.skeleton,
        images=len(set(a.truth.source_id)),
        instances=len(a.truth),
        notes=_notes(a.report, b.report),
        differences=differences,
        not_compared=reasons,
    )


def compare_predictions(
    skeleton: Skeleton,
    truth: Truth,
    first: Predictions,
    second: Predictions,
    reference: Reference | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[tuple[Difference, ...], Reasons]:
    """second − first for every metric, by the predictions of each one's primary head.

    Args:
        skeleton: names the K keypoints.
        truth: of N instances.
        first, second: predictions of the same, in the same order.
        reference: what PCK, AUC and NME of both divide by; None chooses by the truth.
        seed: of the bootstrap; each metric begins anew with it.
        resamples: of the bootstrap.

    Raises:
        SchemaError: an array of the wrong shape, or a prediction that is not finite.
    """
    measured: list[Measures] = []
    reasons: Reasons = {}
    for prediction in (first, second):
        poses = truth.poses(skeleton, prediction.keypoints[prediction.primary])
        measures, why = localisation_measures(poses, truth, reference)
        visibility, why_not_visible = visibility_measures(poses, prediction.visibility)
        measured.append(measures | visibility)
        reasons |= why | why_not_visible
    ours, theirs = measured
    differences = tuple(
        metrics.compare(ours[name], theirs[name], np.random.default_rng(seed), resamples)
        for name in ours
        if name in theirs
    )
    return differences, reasons


def matched(first: Evaluated, second: Evaluated) -> list[int]:
    """For each instance of ``first``, its position in ``second``.

    Raises:
        DatasetError: the two have other keypoints, other instances or another truth.
    """
    both = f"{first.folder} and {second.folder}"
    if first.report.skeleton.keypoints != second.report.skeleton.keypoints:
        raise DatasetError(f"{both} have different keypoints: they cannot be compared")
    position = {key: i for i, key in enumerate(second.truth.keys)}
    if set(first.truth.keys) != position.keys():
        raise DatasetError(_different(both, first.truth.keys, second.truth.keys))
    order = [position[key] for key in first.truth.keys]
    ours, theirs = first.truth.keypoints, second.truth.keypoints[order]
    same = (np.abs(ours[..., :2] - theirs[..., :2]) <= SAME_PLACE).all(axis=2)
    same &= ours[..., 2] == theirs[..., 2]
    if not same.all():
        row, keypoint = np.argwhere(~same)[0].tolist()
        raise DatasetError(
            f"{both} have different truths: {first.report.skeleton.keypoints[keypoint]} of "
            f"{first.truth.keys[row]} is {ours[row, keypoint].tolist()} in one and "
            f"{theirs[row, keypoint].tolist()} in the other: evaluate both on the same shards"
        )
    return order


def _different(both: str, first: Sequence[Key], second: Sequence[Key]) -> str:
    ours, theirs = set(first), set(second)
    example = min(ours ^ theirs)
    return (
        f"{both} hold different instances: {len(ours & theirs)} are in both, "
        f"{len(ours - theirs)} only in the first, {len(theirs - ours)} only in the second, such as "
        f"{example}: evaluate both on the same split of the same shards"
    )


def _taken(predictions: Predictions, rows: list[int]) -> Predictions:
    heads = {name: keypoints[rows] for name, keypoints in predictions.keypoints.items()}
    visibility = predictions.visibility
    taken = None if visibility is None else visibility[rows]
    return Predictions(heads, taken, predictions.primary)


def _notes(first: Report, second: Report) -> tuple[str, ...]:
    """How the two evaluations differ, apart from the run."""
    references = [_words(report.settings.reference) for report in (first, second)]
    pairs = {
        "dataset": (first.root_hash, second.root_hash),
        "crop": (first.crop, second.crop),
        "head": (first.primary, second.primary),
        "input size": (first.input_size, second.input_size),
        "flip test": (first.settings.flip_test, second.settings.flip_test),
        "decode": (first.settings.decode, second.settings.decode),
        "reference (that of the first is taken for both)": references,
        "kpdata": (first.kpdata, second.kpdata),
    }
    return tuple(
        f"{what} differs: {ours} and {theirs}"
        for what, (ours, theirs) in pairs.items()
        if ours != theirs
    )


def _words(reference: Reference | None) -> str:
    return "–".join(reference) if isinstance(reference, tuple) else reference or "torso or bbox"
