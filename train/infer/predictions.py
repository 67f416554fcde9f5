"""Truth and predictions as files that anyone can score again: one JSON line per instance.

``predictions.jsonl`` holds what a model found, ``truth.jsonl`` what is there; both in
continuous pixels of the source images, both in the same order. After those, ``truth.jsonl`` goes on
with the instances that nothing was predicted for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from kpdata.core.errors import DatasetError
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.metrics import Poses, Unpredicted
from kpdata.shards.manifest import Count
from kpdata.storage.bounded import open_regular

if TYPE_CHECKING:
    from kpdata.train.data.crops import LabelledCrops

PREDICTIONS, TRUTH = "predictions.jsonl", "truth.jsonl"

Key = tuple[str, int]
"""``source_id`` and the instance's position in its source image."""

Decode = Literal["dark", "udp", "quadratic", "argmax"]
"""How a heatmap is decoded."""

FLIP_NOT_TRAINED = (
    "the flip test was asked for, and the run was trained on no mirror image (augment.flip is 0): "
    "what it finds in one may be far off"
)
"""The note on a flip test of a run that was trained on no mirror image."""

Triple = tuple[float, float, float]
Box = tuple[float, float, float, float]
T = TypeVar("T")

_NO_BOX = (np.nan,) * 4


@dataclass(frozen=True, eq=False)
class Truth:
    """The labels of N instances, in continuous pixels of their source images.

    Attributes:
        source_id: N keys of source images; instances of one image share it.
        instance: (N,) position of the instance in its source image.
        keypoints: (N, K, 3) x, y, visibility 0, 1 or 2.
        image_size: (N, 2) width and height of the source image.
        area: (N,) square pixels; NaN where the source has none, as in the next two.
        bbox_xyxy: (N, 4).
        head_size: (N,).
        unpredicted: the other annotated instances of the images; None for none.
    """

    source_id: tuple[str, ...]
    instance: npt.NDArray[np.int64]
    keypoints: FloatArray
    image_size: FloatArray
    area: FloatArray
    bbox_xyxy: FloatArray
    head_size: FloatArray
    unpredicted: Unpredicted | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def keys(self) -> list[Key]:
        """The names of the instances."""
        return list(zip(self.source_id, self.instance.tolist(), strict=True))

    @classmethod
    def of(cls, crops: "LabelledCrops") -> "Truth":
        """The truth of the crops."""
        return cls(
            source_id=tuple(crops.keys),
            instance=np.asarray(crops.instance, np.int64),
            keypoints=np.asarray(crops.truth, np.float64),
            image_size=np.asarray(crops.source_size, np.float64),
            area=np.asarray(crops.area, np.float64),
            bbox_xyxy=np.asarray(crops.bbox_xyxy, np.float64),
            head_size=np.asarray(crops.head_size, np.float64),
            unpredicted=crops.unpredicted,
        )

    def poses(self, skeleton: Skeleton, predicted: FloatArray) -> Poses:
        """Beside predictions (N, K, 3); an array that is NaN throughout counts as not given.

        Raises:
            SchemaError: the predictions have another shape, or are not finite.
        """
        return Poses(
            skeleton,
            self.keypoints,
            predicted,
            area=_given(self.area),
            bbox_xyxy=_given(self.bbox_xyxy),
            head_size=_given(self.head_size),
            image_size=_given(self.image_size),
        )


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a model for N crops, in source pixels.

    Attributes:
        keypoints: head → (N, K, 3) x, y, score. A heatmap scores by the peak's height, coordinates
            by the probability that the keypoint is visible; where the model was not trained on
            that, by the heatmap's peak if there is one, else 1.
        visibility: (N, K) that probability; None where the model was not trained on it.
        primary: the head that counts as the model's.
        score_is_visibility: whether the primary head's scores are that same probability.
    """

    keypoints: dict[str, FloatArray]
    visibility: FloatArray | None
    primary: str
    score_is_visibility: bool = False


@dataclass(frozen=True, eq=False)
class Recorded:
    """The content of ``predictions.jsonl``.

    Attributes:
        keys: of the N instances.
        predictions: the model's.
        baseline: (N, K, 3) the mean pose in the same crops.
    """

    keys: list[Key]
    predictions: Predictions
    baseline: FloatArray


class _Prediction(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    source_id: str
    instance: Count
    keypoints: list[Triple]
    head: str
    baseline: list[Triple]
    other_heads: dict[str, list[Triple]] = {}
    visibility: list[float] | None = None

    @property
    def form(self) -> tuple[object, ...]:
        """The fields that every line of the file must have in the same shape."""
        heads = (self.keypoints, self.baseline, *self.other_heads.values())
        return self.head, *self.other_heads, *map(len, heads), len(self.visibility or ())


class _Truth(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A line without ``instance`` and ``image_size`` is of one that nothing was predicted for."""

    source_id: str
    instance: Count | None = None
    keypoints: list[Triple]
    image_size: tuple[float, float] | None = None
    area: float | None = None
    bbox_xyxy: Box | None = None
    head_size: float | None = None
    is_crowd: bool = False


def write_predictions(path: Path, recorded: Recorded) -> None:
    """Write a line per instance: ``source_id``, ``instance``, ``keypoints`` K × [x, y, score].

    ``keypoints`` is of the primary head, which ``head`` names. Further:
    ``baseline``, the mean pose in the same form, ``other_heads`` by name, and ``visibility``, K
    probabilities.
    """
    predictions = recorded.predictions
    heads = dict(predictions.keypoints)
    primary, visibility = heads.pop(predictions.primary), predictions.visibility
    _write(
        path,
        (
            _Prediction(
                source_id,
                instance,
                keypoints=primary[row].tolist(),
                head=predictions.primary,
                baseline=recorded.baseline[row].tolist(),
                other_heads={name: values[row].tolist() for name, values in heads.items()},
                visibility=None if visibility is None else visibility[row].tolist(),
            )
            for row, (source_id, instance) in enumerate(recorded.keys)
        ),
    )


def write_truth(path: Path, truth: Truth) -> None:
    """Write a line of labels per instance; what the source does not have is left out.

    The lines of instances that nothing was predicted for come last, and have no ``instance``.
    """
    lines = [
        _Truth(
            source_id=source_id,
            instance=instance,
            keypoints=truth.keypoints[row].tolist(),
            image_size=tuple(truth.image_size[row].tolist()),
            area=_number(truth.area[row]),
            bbox_xyxy=_box(truth.bbox_xyxy[row]),
            head_size=_number(truth.head_size[row]),
        )
        for row, (source_id, instance) in enumerate(truth.keys)
    ]
    if others := truth.unpredicted:
        lines += [
            _Truth(
                source_id=str(source_id),
                keypoints=others.keypoints[row].tolist(),
                area=_number(others.area[row]),
                bbox_xyxy=_box(others.bbox_xyxy[row]),
                is_crowd=bool(others.is_crowd[row]),
            )
            for row, source_id in enumerate(others.image_ids)
        ]
    _write(path, lines)


def read_predictions(path: Path) -> Recorded:
    """The inverse of :func:`write_predictions`: the same numbers to the last bit.

    Raises:
        DatasetError: the file is missing or damaged; the message names it and the line.
    """
    lines = _read(path, _Prediction)
    first = lines[0]
    for number, line in enumerate(lines, 1):
        if line.form != first.form:
            raise DatasetError(f"{path}: line {number} holds other heads or counts than line 1")
    heads: dict[str, FloatArray] = {}
    heads[first.head] = np.array([line.keypoints for line in lines], np.float64)
    for name in first.other_heads:
        heads[name] = np.array([line.other_heads[name] for line in lines], np.float64)
    visibility = None
    if first.visibility is not None:
        visibility = np.array([line.visibility for line in lines], np.float64)
    return Recorded(
        [(line.source_id, line.instance) for line in lines],
        Predictions(heads, visibility, first.head),
        np.array([line.baseline for line in lines], np.float64),
    )


def read_truth(path: Path) -> Truth:
    """The inverse of :func:`write_truth`.

    Raises:
        DatasetError: the file is missing or damaged; the message names it and the line.
    """
    both = _read(path, _Truth)
    for number, line in enumerate(both, 1):
        if len(line.keypoints) != len(both[0].keypoints):
            raise DatasetError(
                f"{path}: line {number} holds another count of keypoints than line 1"
            )
        if (line.instance is None) != (line.image_size is None):
            raise DatasetError(f"{path}: line {number} lacks one of instance and image_size")
    lines = [line for line in both if line.instance is not None]
    others = [line for line in both if line.instance is None]
    if not lines:
        raise DatasetError(f"{path} names no instance that anything was predicted for")
    return Truth(
        source_id=tuple(line.source_id for line in lines),
        instance=np.array([line.instance for line in lines], np.int64),
        keypoints=np.array([line.keypoints for line in lines], np.float64),
        image_size=np.array([line.image_size for line in lines], np.float64),
        area=np.array([line.area for line in lines], np.float64),
        bbox_xyxy=np.array([line.bbox_xyxy or _NO_BOX for line in lines], np.float64),
        head_size=np.array([line.head_size for line in lines], np.float64),
        unpredicted=_unpredicted(others) if others else None,
    )


def _unpredicted(lines: list[_Truth]) -> Unpredicted:
    return Unpredicted(
        image_ids=tuple(line.source_id for line in lines),
        keypoints=np.array([line.keypoints for line in lines], np.float64),
        bbox_xyxy=np.array([line.bbox_xyxy or _NO_BOX for line in lines], np.float64),
        area=np.array([line.area for line in lines], np.float64),
        is_crowd=np.array([line.is_crowd for line in lines]),
    )


def _write(path: Path, lines: Iterable[msgspec.Struct]) -> None:
    encoder = msgspec.json.Encoder()
    with open(path, "wb") as file:
        file.writelines(encoder.encode(line) + b"\n" for line in lines)


def _read(path: Path, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    lines: list[T] = []
    try:
        with open_regular(path) as file:
            for line in file:
                lines.append(decoder.decode(line))
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: an evaluation writes it") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path}: line {len(lines) + 1}: {error}") from error
    if not lines:
        raise DatasetError(f"{path} is empty")
    return lines


def _given(values: FloatArray) -> FloatArray | None:
    return None if np.isnan(values).all() else values


def _box(xyxy: FloatArray) -> Box | None:
    x0, y0, x1, y1 = xyxy.tolist()
    return None if np.isnan(xyxy).any() else (x0, y0, x1, y1)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
