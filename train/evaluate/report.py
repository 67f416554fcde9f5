"""``metrics.json``: the scores and everything that they depend on."""

import hashlib
from pathlib import Path

import msgspec

from kpdata.core.crop import CropFrom, CropRule
from kpdata.core.errors import DatasetError, FormatError, SchemaError
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import TRAIN
from kpdata.metrics import Score
from kpdata.metrics.measure import RESAMPLES
from kpdata.metrics.poses import Reference
from kpdata.shards.dataset import Dataset
from kpdata.shards.manifest import Manifest
from kpdata.storage.bounded import read_bounded
from kpdata.train.infer.predictions import PREDICTIONS, TRUTH, Decode
from kpdata.train.run.folder import RunInfo

METRICS = "metrics.json"
_MOST_BYTES = 64 << 20
CURVE, BARS, SHEETS = "pck_curve.png", "keypoints.png", ("best", "median", "worst")
FILES = (PREDICTIONS, TRUTH, CURVE, BARS, *(f"sheet-{which}.png" for which in SHEETS), METRICS)
"""What an evaluation leaves, in the order of appearance: metrics.json vouches for the others."""

MEAN_POSE = "mean pose"
"""What the baseline is called beside the heads."""

SATURATED = 0.97
"""Above this PCK hardly tells two models apart: nearly all keypoints lie within its threshold."""

_CROPPED = "as the shards were cropped"


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a run is evaluated.

    Attributes:
        split: of the dataset; its originals, never augmented copies.
        flip_test: average what is found in the crop and in its mirror image.
        decode: how a heatmap becomes a coordinate.
        crop_from: what crops are cut around; None does as in training.
        reference: what PCK, AUC and NME divide by; None takes the torso, or the box where less
            than half of the instances have a torso.
        seed: of the bootstrap, with ``resamples`` resamples.
    """

    split: str = "test"
    flip_test: bool = True
    decode: Decode = "dark"
    crop_from: CropFrom | None = None
    reference: Reference | None = None
    seed: int = 0
    resamples: int = RESAMPLES


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scores and everything that they depend on.

    Attributes:
        kpdata: the version that computed them.
        settings: how.
        epoch: of the run that the weights are from, counted over all phases.
        phase: which of the run's that epoch belongs to, from 1, and ``trains``, what it trained.
        earlier: head that this phase did not train → the epoch that its weights are from.
        crop: the crops that the model was given, in words.
        input_size: their side in pixels.
        root_hash: of the dataset; ``trained_on`` is that of the run's.
        split_sha256: sha256 of the split's shards' BLAKE3, one a line.
        skeleton: of the keypoints.
        images, instances: how many were scored; ``left_out`` counts what was not, by reason.
        notes: what a reader of the scores must know.
        primary: the head that counts as the model's.
        heads: head → scores.
        visibility: scores of the visibility, if the model predicts it.
        baseline_definition: what ``baseline`` is the score of.
        baseline: the baseline's scores in full.
        not_computed: metric → the reason.
    """

    kpdata: str
    settings: EvaluationSettings
    epoch: int
    crop: str
    input_size: int
    root_hash: str
    trained_on: str
    split_sha256: str
    skeleton: Skeleton
    images: int
    instances: int
    left_out: dict[str, int]
    notes: tuple[str, ...]
    primary: str
    heads: dict[str, tuple[Score, ...]]
    visibility: tuple[Score, ...]
    baseline_definition: str
    baseline: tuple[Score, ...]
    not_computed: dict[str, str]
    phase: int | None = None
    trains: str | None = None
    earlier: dict[str, int] = {}

    @property
    def leading(self) -> Score:
        """The score of the model's answer to look at first.

        That is PCK@0.2 wherever there is a reference length, and EPE where PCK is saturated.
        """
        scores = {score.name: score for score in self.heads[self.primary]}
        first = next(iter(scores.values()), None)
        if first is None:
            raise DatasetError(f"{METRICS}: holds no score of {self.primary!r}")
        saturated = first.name.startswith("PCK@") and (first.value or 0) > SATURATED
        return scores.get("EPE", first) if saturated else first

    @property
    def by_keypoint(self) -> tuple[dict[str, Score], ...]:
        """Head, or ``mean pose`` → the score; for each metric that has a value for each keypoint.

        The leading one comes first. DatasetError where there is none.
        """
        metrics: dict[str, dict[str, Score]] = {}
        for name, scores in {**self.heads, MEAN_POSE: self.baseline}.items():
            for score in scores:
                if tuple(score.parts) == self.skeleton.keypoints:
                    metrics.setdefault(score.name, {})[name] = score
        whole = [each for each in metrics.values() if len(each) == len(self.heads) + 1]
        if not whole:
            raise DatasetError(f"{METRICS}: no score has a value for each keypoint")
        leading = self.leading.name
        return tuple(sorted(whole, key=lambda each: each[MEAN_POSE].name != leading))

    def json(self) -> bytes:
        """As ``metrics.json`` holds it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def read_report(path: Path) -> Report:
    """Read ``metrics.json``; DatasetError if it is missing or damaged."""
    try:
        report = msgspec.json.decode(read_bounded(path, _MOST_BYTES), type=Report)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: an evaluation writes it") from None
    except (
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError, FormatError, SchemaError
    ) as error:  # fmt: skip
        raise DatasetError(f"{path}: not scores of this version: {error}") from error
    if report.primary not in report.heads:
        raise DatasetError(f"{path}: holds no scores of its primary head {report.primary!r}")
    return report


def evaluation_folder(run: Path, split: str) -> Path:
    """Where the evaluation of a run on a split lies: in the run, or ``run`` itself if it is one.

    Raises:
        DatasetError: nothing was evaluated there.
    """
    inside = run / f"evaluation-{split}"
    for folder in (inside, run):
        if (folder / METRICS).is_file():
            return folder
    raise DatasetError(
        f"{inside} holds no {METRICS}: first evaluate {run} on a dataset's `split` {split}"
    )


def split_hash(dataset: Dataset, split: str) -> str:
    """sha256 of the BLAKE3 of the split's shards, in order, each with a newline.

    It is of the manifest; whoever reads the shards checks them against it.

    Raises:
        DatasetError: no such split.
    """
    lines = "".join(f"{shard.blake3}\n" for shard in dataset[split].shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def crop_source(crop: str, manifest: Manifest) -> str:
    """``crop``, with what the conversion's crops were around if it is about those."""
    options = manifest.options
    if not crop.startswith(_CROPPED) or not options.get("crop"):
        return crop
    return f"{crop}: around the {options['crop_from']}, × {options['margin']:g}"


def notes_on(
    split: str, crop: str, manifest: Manifest, run: RunInfo, used: CropRule, trained: CropRule
) -> tuple[str, ...]:
    """Notes for whoever reads the scores.

    Args:
        split: that was evaluated.
        crop: as :attr:`kpdata.train.data.crops.LabelledCrops.crop`.
        manifest: of the dataset.
        run: what the model was trained on.
        used: the crops of the evaluation, whoever cut them, and ``trained`` those of the training.
    """
    notes = []
    if manifest.root_hash != run.root_hash:
        notes.append(
            f"the run was trained on another dataset (root hash {run.root_hash[:12]}…): that "
            "images of its training are among these cannot be excluded"
        )
    elif split == TRAIN:
        notes.append(
            "WARNING: the run was trained on these very images: the scores tell how well it "
            "remembers them"
        )
    elif run.crops.get(split):
        notes.append(
            "WARNING: the run's best epoch was chosen by this split: its scores are too good"
        )
    if used != trained:
        notes.append(f"the run was trained on other crops: {trained.words}")
    source = crop_source(crop, manifest)
    if "around the keypoints" in source:
        notes.append("oracle crop: the crops are around the true keypoints, which leaks them")
    elif "around the bbox" in source:
        notes.append("the crops are around the annotated boxes, not a detector's")
    if crop.startswith(_CROPPED):
        notes.append("keypoints outside of the shards' crops are not in them, and do not count")
        notes.append(
            "crowds and instances without a labelled keypoint are not in shards of crops: OKS AP "
            "is COCO's number where they are whole images"
        )
    return tuple(notes)
