"""The files that prediction writes: lines, overlays, and COCO results."""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec
import numpy as np
import numpy.typing as npt

from kpdata.core.errors import FormatError
from kpdata.core.sample import NOT_LABELLED, OCCLUDED, VISIBLE, FloatArray, Instance, Pixels
from kpdata.core.skeleton import Skeleton
from kpdata.images import codec
from kpdata.shards.quarantine import escaped
from kpdata.storage.atomic import whole_file, write_atomically
from kpdata.train.infer.boxes import Box, ByName
from kpdata.train.infer.frames import Frame, FramePredictions
from kpdata.train.infer.media import OVERLAYS, Item, VideoFile, frame_rate, overlay_names
from kpdata.view import draw
from kpdata.view.sheet import with_legend

PREDICTIONS, SKELETON = "predictions.jsonl", "skeleton.json"

_DECIMALS = 4
_LARGEST_JPEG = 65_500


class Line(msgspec.Struct, omit_defaults=True):
    """One instance in ``predictions.jsonl``.

    Attributes:
        file: as it was named; what UTF-8 cannot hold as backslashes and digits.
        instance: its number in the image or frame.
        keypoints: K × [x, y, score] in continuous pixels of the upright image.
        frame: of a video, from 0.
        bbox_xyxy: where the model was to look; left out for the whole image.
        visibility: K probabilities, where the model gives them.
        overlay: the picture or video that shows it, below the output folder.
    """

    file: str
    instance: int
    keypoints: list[list[float]]
    overlay: str
    frame: int | None = None
    bbox_xyxy: list[float] | None = None
    visibility: list[float] | None = None


class CocoResult(msgspec.Struct, omit_defaults=True):
    """One instance in COCO's results format: x and y are 0-based pixel indices.

    ``file_name`` and ``frame`` are given where image numbers are only counted.
    """

    image_id: int
    category_id: int
    keypoints: list[float]
    score: float
    file_name: str | None = None
    frame: int | None = None


@dataclass
class CocoResults:
    """The results of a COCO results file.

    Attributes:
        image_ids: the numbers that a COCO file gives its images; None counts frames from 1.
        left_out: frames of files that the COCO file does not know.
        results: so far.
    """

    image_ids: ByName[int] | None = None
    left_out: int = 0
    results: list[CocoResult] = field(default_factory=list)
    _frames: int = 0

    def add(self, predicted: FramePredictions) -> None:
        """Append the instances of one frame."""
        frame = predicted.frame
        self._frames += 1
        known = self.image_ids is not None
        number = self._number(frame)
        if number is None:
            self.left_out += 1
            return
        name, at = (None, None) if known else (escaped(str(frame.item.path)), frame.number)
        boxes = frame.boxes or [Box(np.zeros(4))] * len(predicted.keypoints)
        for box, keypoints in zip(boxes, predicted.keypoints, strict=True):
            score = box.score * float(keypoints[:, 2].mean())
            indices = np.round(keypoints - [0.5, 0.5, 0.0], _DECIMALS).ravel().tolist()
            self.results.append(
                CocoResult(number, box.category_id, indices, round(score, 6), name, at)
            )

    def _number(self, frame: Frame) -> int | None:
        if self.image_ids is None:
            return self._frames
        return self.image_ids.get(frame.item.path) if frame.number is None else None

    def write(self, path: Path) -> None:
        """Write the results."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(self.results) + b"\n", durable=False)


class PredictionFolder:
    """The output folder: ``predictions.jsonl``, ``skeleton.json`` and ``overlays/``.

    A context manager; the lines appear when all are there.

    Args:
        folder: made where it is missing.
        skeleton: names the keypoints of every line, and what overlays draw.
        min_score: as :func:`as_instance` takes it; lines hold all keypoints.
    """

    def __init__(self, folder: Path, skeleton: Skeleton, min_score: float):
        self._folder, self._skeleton, self._min_score = folder, skeleton, min_score
        self._encoder = msgspec.json.Encoder()
        self._video: VideoFile | None = None
        self._open = ExitStack()
        self._lines: BinaryIO

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        skeleton = msgspec.json.format(msgspec.json.encode(self._skeleton), indent=1)
        write_atomically(self._folder / SKELETON, skeleton + b"\n", durable=False)
        partial = self._open.enter_context(whole_file(self._folder / PREDICTIONS, durable=False))
        self._lines = self._open.enter_context(partial.open("wb"))
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._close_video(*error)
        finally:
            self._open.__exit__(*error)

    def add(self, predicted: FramePredictions) -> None:
        """Write one frame's lines and overlay."""
        drawn = with_legend(overlay(predicted, self._skeleton, self._min_score), self._skeleton)
        frame = predicted.frame
        name, name_as_png = (f"{OVERLAYS}/{name}" for name in overlay_names(frame.item.name))
        kind = "jpeg" if max(drawn.shape) <= _LARGEST_JPEG else "png"
        if kind == "png" and not frame.item.is_video:
            name = name_as_png
        for number, keypoints in enumerate(predicted.keypoints):
            line = _line(predicted, number, keypoints, name)
            self._lines.write(self._encoder.encode(line) + b"\n")
        path = self._folder / name
        if not frame.number:  # an image, or a video's first frame
            self._close_video()
            path.parent.mkdir(parents=True, exist_ok=True)
        if not frame.item.is_video:
            with whole_file(path, durable=False, follow=False) as partial:
                partial.write_bytes(codec.encode(drawn, kind))
            return
        if self._video is None:
            self._video = VideoFile(path, frame_rate(frame.item.path))
            self._video.__enter__()
        self._video.add(drawn)

    def _close_video(self, *error: Any) -> None:
        if self._video is not None:
            self._video.__exit__(*(error or (None, None, None)))
            self._video = None


def check_outputs(
    items: Sequence[Item], read: Iterable[Path], out: Path | None, coco_out: Path | None
) -> None:
    """Raise FormatError if a file would be written over one that is read, or over another.

    Args:
        items: the images and videos.
        read: the other files that are read.
        out: the output folder.
        coco_out: the file of COCO results.
    """
    written: set[str] = set()
    if out is not None:
        overlays = [f"{OVERLAYS}/{name}" for item in items for name in overlay_names(item.name)]
        written = {os.path.realpath(out / name) for name in (PREDICTIONS, SKELETON, *overlays)}
    if coco_out is not None:
        if os.path.realpath(coco_out) in written:
            raise FormatError(f"{coco_out}: `out` writes this file: give `coco_out` another name")
        written.add(os.path.realpath(coco_out))
    for path in (*(item.path for item in items if item.pixels is None), *read):
        if os.path.realpath(path) in written:
            raise FormatError(
                f"{path}: would be overwritten with results: choose another `out` or `coco_out`"
            )


def _line(
    predicted: FramePredictions, number: int, keypoints: FloatArray, overlay_path: str
) -> Line:
    frame, visibility = predicted.frame, predicted.visibility
    return Line(
        file=escaped(str(frame.item.path)),
        instance=number,
        keypoints=_rounded(keypoints),
        overlay=overlay_path,
        frame=frame.number,
        bbox_xyxy=None if frame.boxes is None else _rounded(frame.boxes[number].bbox_xyxy),
        visibility=None if visibility is None else _rounded(visibility[number]),
    )


def overlay(predicted: FramePredictions, skeleton: Skeleton, min_score: float) -> Pixels:
    """The frame with its keypoints; arguments as :func:`as_instance`'s."""
    canvas = predicted.frame.pixels
    for number, keypoints in enumerate(predicted.keypoints):
        visibility = None if predicted.visibility is None else predicted.visibility[number]
        boxes = predicted.frame.boxes
        box = None if boxes is None else boxes[number].bbox_xyxy
        instance = as_instance(keypoints, visibility, predicted.score_is_visibility, box, min_score)
        canvas = draw.draw_instance(canvas, instance, skeleton)
    return canvas


def as_instance(
    keypoints: FloatArray,
    visibility: FloatArray | None,
    score_is_visibility: bool,
    bbox_xyxy: FloatArray | None,
    min_score: float,
) -> Instance:
    """A prediction as an instance to draw: occluded keypoints become rings.

    Args:
        keypoints: (K, 3) x, y, score.
        visibility: (K,) probability of being visible; None where the model does not tell.
        score_is_visibility: whether the scores are that probability.
        bbox_xyxy: (4,) where the model looked.
        min_score: keypoints below it are left out, unless the score is their visibility.
    """
    flags = np.full(len(keypoints), VISIBLE)
    if visibility is not None:
        flags[visibility < 0.5] = OCCLUDED
    flags[too_low(keypoints, score_is_visibility, min_score)] = NOT_LABELLED
    xy = np.where(flags[:, None] == NOT_LABELLED, 0, keypoints[:, :2])
    return Instance(np.column_stack([xy, flags]), bbox_xyxy)


def too_low(
    keypoints: FloatArray, score_is_visibility: bool, min_score: float
) -> npt.NDArray[np.bool_]:
    """(…,) which keypoints (…, 3) are not drawn; arguments as :func:`as_instance`'s."""
    return (keypoints[..., 2] < min_score) & (not score_is_visibility)


def _rounded(values: FloatArray) -> Any:
    return np.round(values, _DECIMALS).tolist()
