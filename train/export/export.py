"""Export a run to a folder of model files with ``model.json``, their description."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import keras
import msgspec
import numpy as np

import kpdata
from kpdata import metrics, synth
from kpdata.core.crop import CropRule, square_crop
from kpdata.core.errors import SchemaError, TrainingError, either, first_line, located
from kpdata.core.progress import SILENT, Progress
from kpdata.core.quiet import without_warnings
from kpdata.core.sample import FloatArray, Pixels
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import TRAIN, VAL
from kpdata.images import codec
from kpdata.images.resample import square
from kpdata.metrics.poses import Reference
from kpdata.shards.dataset import Dataset
from kpdata.storage.atomic import as_write_error, whole_folder
from kpdata.train.data.crops import LabelledCrops, load
from kpdata.train.evaluate.scores import chosen_reference
from kpdata.train.export.formats import (
    FORMATS,
    INPUT,
    Format,
    Outputs,
    Precision,
    check_formats,
    write_tflite,
)
from kpdata.train.infer.predictions import FLIP_NOT_TRAINED, Decode, Truth
from kpdata.train.infer.predictor import Predictor
from kpdata.train.infer.reader import in_source
from kpdata.train.models.parts import Head

CARD = "model.json"
KEYPOINTS, VISIBILITY = "keypoints", "visibility"

_CROPS = 16
_NEAR_PX, _NEAR_SCORE, _LEAST_NEAR = 0.5, 0.02, 0.95

_INPUT_MEANING = (
    "RGB, 0 to 255: a square around the middle of what crop_rule.crop_from names, its side margin "
    "times the longer side of that; of the upright image, averaged where it shrinks to two "
    "fifths or less, then sampled bilinearly, black beyond the edges"
)
_WEIGHTS_ALONE = (
    "the weights are int8, and it computes in float: heatmaps cannot be decoded in int8. A head of "
    "coordinates also computes in int8"
)
_CALIBRATED_ON, _SCORED_ON = 128, 512
_LOST_PCK, _LOST_EPE = 0.02, 0.1

_XY_MEANING = "x, y in continuous pixels of the crop, (0, 0) its left upper corner; score: "
_VISIBILITY_MEANING = "the probability that the keypoint is visible"


class Array(msgspec.Struct, frozen=True):
    """An input or output array for one crop."""

    shape: tuple[int, ...]
    dtype: str
    meaning: str


class Agreement(msgspec.Struct, frozen=True):
    """How far a file's outputs are from those of the Keras model, on the same crops.

    Attributes:
        crops: how many were compared.
        median_px, max_px: between the keypoints, in pixels of the crop.
        max_score: the largest difference of scores and visibilities.
        near: the share of keypoints within half a pixel, and 0.02 of each score.
    """

    crops: int
    median_px: float
    max_px: float
    max_score: float
    near: float


class Accuracy(msgspec.Struct, frozen=True):
    """The scores of a file of less than float32, beside those of the Keras model.

    Attributes:
        split: of the shards, and ``crops``, how many of it both looked at.
        pck: of the file, ``keras_pck`` of the Keras model; None without a reference length.
        epe: likewise, in pixels of the source images.
    """

    split: str
    crops: int
    pck: float | None
    keras_pck: float | None
    epe: float
    keras_epe: float

    @property
    def is_near(self) -> bool:
        """Whether the file loses little: 2 points of PCK, and a tenth of EPE."""
        lost = (self.keras_pck or 0) - (self.pck or 0)
        return lost <= _LOST_PCK and self.epe <= (1 + _LOST_EPE) * self.keras_epe

    def __str__(self) -> str:
        pck = ""
        if self.pck is not None and self.keras_pck is not None:
            pck = f"PCK@0.2 {100 * self.pck:.2f} %, Keras {100 * self.keras_pck:.2f} %; "
        return (
            f"{pck}EPE {self.epe:.2f} px, Keras {self.keras_epe:.2f} px; on {self.crops:,} crops "
            f"of {self.split}"
        )


class File(msgspec.Struct, frozen=True):
    """One exported model.

    Attributes:
        name: in the folder.
        bytes: of all its files.
        batch: how many crops it takes at a time; None for any number.
        agreement: with the Keras model.
        precision: of the weights.
        accuracy: of a file of less than float32.
    """

    name: str
    bytes: int
    batch: int | None
    agreement: Agreement
    precision: Precision = "float32"
    accuracy: Accuracy | None = None


class Card(msgspec.Struct, frozen=True):
    """The content of ``model.json``: everything that a program needs to use the model.

    Attributes:
        kpdata: the version that wrote it.
        run: the name of the folder it was trained in, and ``epoch`` whose weights it has.
        root_hash: of the shards that it was trained on.
        skeleton: names the K keypoints, in their order.
        crop_rule: the crops that it was trained on.
        head: which of the model's heads it tells.
        decode: how its heatmaps are decoded; None for coordinates.
        flip_test: whether it averages with what it finds in the mirror image.
        inputs, outputs: by name.
        files: by format.
        notes: what else to know of the outputs.
    """

    kpdata: str
    run: str
    epoch: int
    root_hash: str
    skeleton: Skeleton
    crop_rule: CropRule
    head: str
    decode: Decode | None
    flip_test: bool
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    files: dict[str, File]
    notes: list[str]

    def json(self) -> bytes:
        """The content of ``model.json``."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def export(
    predictor: Predictor,
    out: Path,
    formats: Sequence[str],
    head: str | None = None,
    flip: bool = False,
    decode: Decode = "dark",
    progress: Progress = SILENT,
    precision: Precision = "float32",
    dataset: Dataset | None = None,
) -> Card:
    """Write a run's best weights in other formats, and run each file to see that it agrees.

    Args:
        predictor: the run.
        out: a new folder, which appears whole or not at all.
        formats: names in FORMATS.
        head: a name of one of the model's; the run's primary head unless given.
        flip: put the flip test inside.
        decode: how a heatmap is decoded.
        progress: hears of it as one step.
        precision: of the weights, where ``formats`` is TFLite alone.
        dataset: what a file of less than float32 is calibrated and scored on.

    Raises:
        DatasetError: ``out`` is in use, or cannot be written.
        KpdataError: a format's library is missing, the run lacks the head or the decoding, a
            converter or a runtime refuses the model, or a file's outputs differ from the model's.
    """
    spec = predictor.config.spec
    formats = tuple(dict.fromkeys(formats))
    if not formats:
        raise TrainingError(f"to is empty: expected some of {', '.join(spec.exports)}")
    for name in formats:
        if name not in FORMATS or name not in spec.exports:
            raise TrainingError(
                f"to is {name}: {spec.name} is exported as {', '.join(spec.exports)}"
            )
    _check_precision(precision, formats)
    check_formats(formats)
    chosen = spec.head(head or predictor.best.heads[0])
    progress.begin("exporting", len(formats), "files")
    files: dict[str, File] = {}
    with whole_folder(out) as folder:
        model = pose_model(predictor, chosen.name, flip, decode)
        crops = rendered_crops(predictor.input_size, _CROPS)
        expected = model.predict_on_batch(crops)
        if not _are_numbers(expected):
            raise TrainingError(
                f"{predictor.path}: the model's outputs are not all numbers: its weights are "
                "damaged, or its training diverged"
            )
        for name in formats:
            with located(f"to is {name}"), without_warnings():
                if dataset and precision != "float32":
                    files[name] = _quantised(
                        predictor, model, folder, crops, expected, precision, dataset, chosen
                    )
                else:
                    files[name] = _export(FORMATS[name], model, folder, crops, expected)
            progress.advance()
        card = Card(
            kpdata=kpdata.__version__,
            run=predictor.path.resolve().name,
            epoch=predictor.best.epoch,
            root_hash=predictor.info.root_hash,
            skeleton=predictor.skeleton,
            crop_rule=predictor.crop_rule,
            head=chosen.name,
            decode=decode if chosen.decodings else None,
            flip_test=flip,
            inputs={INPUT: _array(model.input, _INPUT_MEANING)},
            outputs=_outputs(model.output, chosen),
            files=files,
            notes=[FLIP_NOT_TRAINED] * (flip and not predictor.trained_with_flips)
            + [_WEIGHTS_ALONE] * (precision == "int8" and bool(chosen.decodings)),
        )
        with as_write_error(out):
            (folder / CARD).write_bytes(card.json())
    return card


def pose_model(predictor: Predictor, head: str, flip: bool, decode: Decode) -> keras.Model:
    """uint8 crops (B, S, S, 3) → ``keypoints`` (B, K, 3), and ``visibility`` (B, K) if trained."""
    reader = predictor.reader(flip, decode, (head,))
    side = predictor.input_size
    image = keras.Input((side, side, 3), dtype="uint8", name=INPUT)
    outputs = reader(image)
    outputs[KEYPOINTS] = outputs.pop(head)
    return keras.Model(image, outputs, name="pose")


def rendered_crops(side: int, count: int) -> Pixels:
    """(count, side, side, 3): simulated people, something to look at for any model."""
    images = [codec.decode_stored(sample.image) for sample in synth.samples(count)]
    height, width = images[0].shape[:2]
    affine = square_crop(np.array([0.0, 0.0, width, height]), 1.0, side)
    return np.stack([square(image, affine, side) for image in images])


def agreement(expected: Outputs, outputs: Outputs) -> Agreement:
    """How far ``outputs`` is from ``expected``.

    Raises:
        TrainingError: the outputs have other names, or are not all numbers.
    """
    if outputs.keys() != expected.keys():
        raise TrainingError(f"gives {', '.join(outputs)}, not {', '.join(expected)}")
    if not _are_numbers(outputs):
        raise TrainingError("its outputs are not all numbers")
    keypoints, others = expected[KEYPOINTS], outputs[KEYPOINTS]
    apart = np.linalg.norm(others[..., :2] - keypoints[..., :2], axis=-1)  # (B, K)
    scores = np.abs(others[..., 2] - keypoints[..., 2])
    if VISIBILITY in expected:
        scores = np.maximum(scores, np.abs(outputs[VISIBILITY] - expected[VISIBILITY]))
    return Agreement(
        crops=len(apart),
        median_px=float(np.median(apart)),
        max_px=float(apart.max()),
        max_score=float(scores.max()),
        near=float(np.mean((apart <= _NEAR_PX) & (scores <= _NEAR_SCORE))),
    )


def _are_numbers(outputs: Outputs) -> bool:
    return all(np.isfinite(value).all() for value in outputs.values())


def _export(
    form: Format,
    model: keras.Model,
    folder: Path,
    crops: Pixels,
    expected: Outputs,
    least_near: float = _LEAST_NEAR,
) -> File:
    path = folder / form.file
    try:
        form.write(model, path)
        outputs = form.load(path)(crops)
    except Exception as error:  # converters and runtimes raise many kinds
        raise TrainingError(
            f"{form.file} could not be written and run: {first_line(error)}; leave this format out"
        ) from error
    agrees = agreement(expected, outputs)
    if agrees.near < least_near:
        raise TrainingError(
            f"{form.file} finds only {agrees.near:.0%} of the keypoints where the Keras model does "
            f"(median {agrees.median_px:.2g} px apart, scores up to {agrees.max_score:.2g})"
        )
    parts = path.rglob("*") if path.is_dir() else [path]
    size = sum(part.stat().st_size for part in parts if part.is_file())
    return File(form.file, size, form.batch, agrees)


def _check_precision(precision: str, formats: Sequence[str]) -> None:
    if precision not in get_args(Precision):
        raise TrainingError(f"precision is {precision}: expected {either(get_args(Precision))}")
    if precision != "float32" and set(formats) != {"tflite"}:
        raise TrainingError(
            f"precision is {precision}: tflite alone is written so, and `to` is "
            f"{', '.join(formats)}: write the others apart"
        )


def _quantised(
    predictor: Predictor,
    model: keras.Model,
    folder: Path,
    crops: Pixels,
    expected: Outputs,
    precision: Precision,
    dataset: Dataset,
    head: Head,
) -> File:
    """Write a TFLite file of less precision, and score it beside the Keras model."""
    split = next((split for split in (VAL, "test") if split in dataset.splits), None)
    if split is None:
        raise TrainingError(
            f"{dataset.folder} has no split val and no split test to score a file of {precision} on"
        )
    side, rule = predictor.input_size, predictor.crop_rule
    calibration = None
    if precision == "int8" and not head.decodings:
        shown = load(dataset, TRAIN, rule, side, limit=_CALIBRATED_ON)
        calibration = shown.images[np.arange(len(shown))]
    form = replace(
        FORMATS["tflite"],
        write=partial(write_tflite, precision=precision, calibration=calibration),
    )
    file = _export(form, model, folder, crops, expected, least_near=0.0)
    scored = load(dataset, split, rule, side, limit=_SCORED_ON)
    images = scored.images[np.arange(len(scored))]
    found = form.load(folder / form.file)(images)[KEYPOINTS]
    keras_found = model.predict(images, batch_size=32, verbose=0)[KEYPOINTS]
    reference = predictor.config.reference
    pck, epe = _scores(scored, found, reference)
    keras_pck, keras_epe = _scores(scored, keras_found, reference)
    accuracy = Accuracy(split, len(scored), pck, keras_pck, epe, keras_epe)
    if not accuracy.is_near:
        raise TrainingError(
            f"{form.file} of {precision} loses too much: {accuracy}. Expected at most "
            f"{100 * _LOST_PCK:g} points of PCK and {_LOST_EPE:.0%} of EPE: choose another "
            "`precision`"
        )
    return msgspec.structs.replace(file, precision=precision, accuracy=accuracy)


def _scores(
    crops: LabelledCrops, keypoints: FloatArray, reference: Reference | None
) -> tuple[float | None, float]:
    """PCK, where there is a reference length, and EPE of keypoints (N, K, 3) in crop pixels."""
    poses = Truth.of(crops).poses(crops.skeleton, in_source(keypoints, crops))
    try:
        share = metrics.pck(poses, reference or chosen_reference(poses)).value
    except SchemaError:
        share = None
    return share, metrics.epe(poses).value


def _outputs(tensors: dict[str, keras.KerasTensor], head: Head) -> dict[str, Array]:
    if head.scores:
        score = f"the {head.name}'s peak, 0 to 1"
    elif VISIBILITY in tensors:
        score = _VISIBILITY_MEANING
    else:
        score = "always 1, as the run was not trained on visibility"
    meanings = {KEYPOINTS: _XY_MEANING + score, VISIBILITY: _VISIBILITY_MEANING}
    return {name: _array(tensor, meanings[name]) for name, tensor in tensors.items()}


def _array(tensor: keras.KerasTensor, meaning: str) -> Array:
    return Array(tuple(tensor.shape[1:]), tensor.dtype, meaning)
