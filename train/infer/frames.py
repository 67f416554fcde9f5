"""Predict the keypoints of images and video frames, in bounded memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from kpdata.core import transform
from kpdata.core.crop import square_crop
from kpdata.core.errors import ImageError
from kpdata.core.sample import FloatArray, Pixels
from kpdata.core.skeleton import Skeleton
from kpdata.images.resample import square
from kpdata.train.data.crops import Crops
from kpdata.train.infer.boxes import Box, ByName, FileBoxes
from kpdata.train.infer.media import Item, read

AT_A_TIME = 32
_MOST_BYTES = 256 << 20
_NO_FRAME = "frame not in the video"


class Predicts(Protocol):
    """What this module needs of :class:`kpdata.train.infer.predictor.Predictor`."""

    @property
    def skeleton(self) -> Skeleton:
        """Names the K keypoints."""

    @property
    def input_size(self) -> int:
        """The crops' side in pixels."""

    def predict(self, crops: Crops, flip: bool = True) -> Any:
        """A :class:`kpdata.train.infer.predictions.Predictions`."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An upright image, or one frame of a video, with the boxes to look at.

    Attributes:
        item: the file.
        number: of the frame, from 0; None for an image.
        pixels: (H, W, 3) RGB.
        boxes: one for each instance; None for the whole image.
    """

    item: Item
    number: int | None
    pixels: Pixels
    boxes: tuple[Box, ...] | None

    @property
    def bboxes_xyxy(self) -> list[FloatArray]:
        """(4,) for each instance, the whole image where there are no boxes."""
        if self.boxes is None:
            height, width = self.pixels.shape[:2]
            return [np.array([0.0, 0.0, width, height])]
        return [box.bbox_xyxy for box in self.boxes]


@dataclass(frozen=True, eq=False)
class FramePredictions:
    """The predictions for one frame of M instances.

    Attributes:
        frame: where.
        keypoints: (M, K, 3) x, y, score in continuous pixels of the upright image.
        visibility: (M, K) probability of being visible; None where the model does not tell.
        score_is_visibility: whether the scores are that same probability: a low one then means that
            a keypoint is hidden, and not that it was not found.
    """

    frame: Frame
    keypoints: FloatArray
    visibility: FloatArray | None
    score_is_visibility: bool = False


class Skipped(NamedTuple):
    """A file that could not be used: ``reason`` is a short name, ``detail`` the whole message."""

    path: Path
    reason: str
    detail: str


@dataclass
class Tally:
    """Counts of what was read and what was not.

    Attributes:
        images, videos, frames: used; an image counts as a frame, too.
        instances: crops shown to the model.
        without_box: files without a box where others have one, left out.
        frames_without_box: frames of a video without a box where others have one; shown as they
            are.
        below_min_score: keypoints whose score is too low for them to be drawn.
        boxes_left_out: boxes that were not used, by reason.
        skipped: files that could not be used, or not to their end, and boxes.
    """

    images: int = 0
    videos: int = 0
    frames: int = 0
    instances: int = 0
    without_box: int = 0
    frames_without_box: int = 0
    below_min_score: int = 0
    boxes_left_out: dict[str, int] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def read_frames(
    items: Iterable[Item], boxes: ByName[FileBoxes] | None, tally: Tally
) -> Iterator[Frame]:
    """The frames of every file that can be used; ``tally`` counts them and the others.

    Args:
        items: the files.
        boxes: by file, those of a video for all its frames or by frame; None for whole images.
        tally: counted up.
    """
    for item in items:
        chosen = boxes.get(item.path) if boxes else None
        if boxes and (not chosen or (isinstance(chosen, Mapping) and not item.is_video)):
            tally.without_box += 1
            continue
        used = 0
        try:
            for image in read(item):
                here = chosen.get(image.frame or 0, ()) if isinstance(chosen, Mapping) else chosen
                tally.images += image.frame is None
                tally.videos += image.frame == 0
                tally.frames += 1
                tally.frames_without_box += here == ()
                tally.instances += 1 if here is None else len(here)
                used += len(here or ())
                yield Frame(item, image.frame, image.pixels, here)
        except ImageError as error:
            tally.skipped.append(Skipped(item.path, error.reason, str(error)))
        if isinstance(chosen, Mapping) and (late := sum(map(len, chosen.values())) - used):
            reasons = tally.boxes_left_out
            reasons[_NO_FRAME] = reasons.get(_NO_FRAME, 0) + late


def predict_frames(
    predictor: Predicts, frames: Iterable[Frame], margin: float, flip: bool = True
) -> Iterator[FramePredictions]:
    """Find the keypoints of every frame, in their order.

    Args:
        predictor: the model.
        frames: read as they are needed: some dozens of instances, or 256 MiB, are held at a time.
        margin: the side of the crops in units of the boxes' longer sides.
        flip: average with what the model finds in the mirror image.
    """
    for chunk in _chunks(frames):
        if not any(len(frame.bboxes_xyxy) for frame in chunk):
            nothing = np.zeros((0, len(predictor.skeleton), 3))
            yield from (FramePredictions(frame, nothing, None) for frame in chunk)
            continue
        predictions = predictor.predict(crops_of(chunk, predictor.input_size, margin), flip=flip)
        keypoints, start = predictions.keypoints[predictions.primary], 0
        for frame in chunk:
            end = start + len(frame.bboxes_xyxy)
            visibility = (
                None if predictions.visibility is None else predictions.visibility[start:end]
            )
            yield FramePredictions(
                frame, keypoints[start:end], visibility, predictions.score_is_visibility
            )
            start = end


def crops_of(frames: Sequence[Frame], side: int, margin: float) -> Crops:
    """The crops that the model is given, one for each instance.

    Args:
        frames: at least one instance in all.
        side: of the crops, in pixels.
        margin: their side in units of the boxes' longer sides.
    """
    boxed = [(frame.pixels, box) for frame in frames for box in frame.bboxes_xyxy]
    affines = [square_crop(box, margin, side) for _, box in boxed]
    images = [square(pixels, affine, side)
              for (pixels, _), affine in zip(boxed, affines, strict=True)]  # fmt: skip
    to_source = np.stack([transform.invert(affine) for affine in affines])
    return Crops(side=side, to_source=to_source, images=np.stack(images))


def _chunks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    instances = size = 0
    for frame in frames:
        chunk.append(frame)
        instances += 1 if frame.boxes is None else len(frame.boxes)
        size += frame.pixels.nbytes
        if instances >= AT_A_TIME or size >= _MOST_BYTES:
            yield chunk
            chunk, instances, size = [], 0, 0
    if chunk:
        yield chunk
