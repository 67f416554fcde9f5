"""``metrics.json``: scores with all that they depend on, and the folder that holds them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
"""What the floor is called beside the heads."""

_CROPPED = "as the shards were cropped"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a run is evaluated.

    Attributes:
        split: of the dataset; its originals, never augmented copies.
        flip_test: average the answers for the picture and for its mirror image.
        decode: how a heatmap becomes a coordinate.
        crop_from: what squares are cut around; None does as in training.
        reference: what PCK, AUC and NME divide by; None takes the torso, or the box where less
            than half of the instances have a torso.
        seed: of the bootstrap, whose draws are ``resamples``.
    """

    split: str = "test"
    flip_test: bool = True
    decode: Decode = "dark"
    crop_from: CropFrom | None = None
    reference: Reference | None = None
    seed: int = 0
    resamples: int = RESAMPLES


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scores and all that they depend on.

    Attributes:
        kpdata: the version that computed them.
        settings: how.
        epoch: of the run that the weights are from.
        crop: the squares that the model saw, in words.
        input_size: their side in pixels.
        root_hash: of the dataset; ``trained_on`` is that of the run's.
        split_sha256: sha256 of the split's shards' BLAKE3, one a line.
        skeleton: of the keypoints.
        images, instances: how many were scored; ``left_out`` counts what was not, by reason.
        notes: what a reader of the scores must know.
        primary: the head whose answer is the model's.
        heads: head → scores.
        visibility: scores of the visibility, if the model predicts it.
        floor_definition: what ``floor`` is the score of.
        floor: the floor's scores in full.
        not_computed: metric → the reason.
    """

    kpdata: str
    settings: Settings
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
    floor_definition: str
    floor: tuple[Score, ...]
    not_computed: dict[str, str]

    @property
    def by_keypoint(self) -> dict[str, Score]:
        """Head, or ``mean pose`` for the floor → its first score that is told by keypoint.

        That is PCK@0.2 wherever there is a reference length. DatasetError where there is none.
        """
        named = {**self.heads, MEAN_POSE: self.floor}
        return {name: self._told_by_keypoint(name, scores) for name, scores in named.items()}

    def _told_by_keypoint(self, name: str, scores: tuple[Score, ...]) -> Score:
        for score in scores:
            if tuple(score.parts) == self.skeleton.keypoints:
                return score
        raise DatasetError(f"{METRICS}: no score of {name!r} is told by keypoint")

    def json(self) -> bytes:
        """As ``metrics.json`` holds it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def read_report(path: Path) -> Report:
    """Read ``metrics.json``; DatasetError where it is missing or none."""
    try:
        report = msgspec.json.decode(read_bounded(path, _MOST_BYTES), type=Report)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: `kpdata evaluate` writes it") from None
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
        f"{inside} holds no {METRICS}: first run `kpdata evaluate {run} SHARDS --split {split}`"
    )


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` to write FILES into: all of them appear there, or none.

    Those that an earlier evaluation left go; whatever else lies in ``folder`` stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        folder.mkdir(exist_ok=True)
        for name in reversed(FILES):
            (folder / name).unlink(missing_ok=True)
        for name in FILES:
            if (temporary / name).exists():
                os.replace(temporary / name, folder / name)
    finally:
        shutil.rmtree(temporary)


def split_hash(dataset: Dataset, split: str) -> str:
    """sha256 of the BLAKE3 of the split's shards, in order, each with a newline.

    It is what the manifest says; whoever reads the shards finds out whether they are so.

    Raises:
        DatasetError: no such split.
    """
    lines = "".join(f"{shard.blake3}\n" for shard in dataset[split].shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def crop_source(crop: str, manifest: Manifest) -> str:
    """``crop``, with what the conversion's crops were drawn around if it speaks of those."""
    options = manifest.options
    if not crop.startswith(_CROPPED) or not options.get("crop"):
        return crop
    return f"{crop}: around the {options['crop_from']}, × {options['margin']:g}"


def notes_on(
    split: str, crop: str, manifest: Manifest, run: RunInfo, shown: CropRule, taught: CropRule
) -> tuple[str, ...]:
    """What a reader of the scores must know.

    Args:
        split: that was evaluated.
        crop: as the pictures say it.
        manifest: of the dataset.
        run: what the model was trained on.
        shown: the squares that it saw now, whoever cut them, and ``taught`` those in training.
    """
    notes = []
    if manifest.root_hash != run.root_hash:
        notes.append(
            f"the run was trained on another dataset (root hash {run.root_hash[:12]}…): that "
            "pictures of its training are among these cannot be excluded"
        )
    elif split == TRAIN:
        notes.append(
            "WARNING: the run was trained on these very pictures: the scores say how well it "
            "remembers them"
        )
    elif run.pictures.get(split):
        notes.append(
            "WARNING: the run's best epoch was chosen by this split: its scores are too good"
        )
    if shown != taught:
        notes.append(f"the run was trained on other crops: {taught.words}")
    source = crop_source(crop, manifest)
    if "around the keypoints" in source:
        notes.append(
            "oracle crop: the squares were drawn around the true keypoints, which leaks them"
        )
    elif "around the bbox" in source:
        notes.append("the squares were drawn around the annotated boxes, not a detector's")
    if crop.startswith(_CROPPED):
        notes.append("keypoints outside of the shards' crops are not in them, and do not count")
    return tuple(notes)
