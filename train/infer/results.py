"""The results of prediction in Python: a stream of predictions, or a list of all."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kpdata.core.sample import FloatArray, ImageRef, Instance, Pixels, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.train.infer.files import CocoResults, as_instance
from kpdata.train.infer.frames import FramePredictions, Tally
from kpdata.train.infer.media import read_frame
from kpdata.view.picture import SHOWN, Picture


@dataclass(frozen=True, eq=False)
class Prediction:
    """The keypoints of one instance. It can be pickled, and holds no pixels of files.

    Attributes:
        keypoints: (K, 3) x, y, score in continuous pixels of the upright image.
        skeleton: names them.
        image: the file's path, or ``image N`` for the N-th array.
        frame: of a video, from 0; None for an image.
        bbox_xyxy: (4,) where the model was to look; None for the whole image.
        visibility: (K,) probability of being visible; None where the model does not tell.
        score_is_visibility: whether the scores are that probability.
    """

    keypoints: FloatArray
    skeleton: Skeleton
    image: str
    frame: int | None
    bbox_xyxy: FloatArray | None
    visibility: FloatArray | None
    score_is_visibility: bool
    _read: Callable[[], Pixels] = field(repr=False)

    def __repr__(self) -> str:
        where = self.image if self.frame is None else f"{self.image}, frame {self.frame}"
        return (
            f"<Prediction of {len(self.skeleton)} keypoints in {where}, mean score "
            f"{self.keypoints[:, 2].mean():.2f}>"
        )

    def pixels(self) -> Pixels:
        """(H, W, 3) RGB: the upright image, read anew from its file."""
        return self._read()

    def picture(self, min_score: float = 0.2) -> Picture:
        """The image with these keypoints, to look at; those below ``min_score`` are left out."""
        name = Path(self.image).name
        sample = Sample(name, ImageRef(name), (self.instance(min_score),))
        return Picture(sample, self.skeleton, self._read)

    def show(
        self, path: str | Path | None = None, size: int | None = SHOWN, min_score: float = 0.2
    ) -> Path | None:
        """Show the image with the keypoints drawn, or write it as a PNG; see Picture.show."""
        return self.picture(min_score).show(path, size)

    def _repr_png_(self) -> bytes:
        return self.picture()._repr_png_()

    def instance(self, min_score: float = 0.2) -> Instance:
        """As what can be drawn: occluded where it is hidden, left out below ``min_score``."""
        return as_instance(
            self.keypoints,
            self.visibility,
            self.score_is_visibility,
            self.bbox_xyxy,
            min_score,
        )


class PredictionList(list[Prediction]):
    """Predictions in the order of their images, with counts of the sources.

    Attributes:
        tally: what was read, and what was skipped or left out, with the reasons.
        not_in_coco: frames that ``coco_images`` does not know, left out of ``coco_out``.
    """

    def __init__(self, tally: Tally, predictions: Iterable[Prediction] = (), not_in_coco: int = 0):
        super().__init__(predictions)
        self.tally = tally
        self.not_in_coco = not_in_coco


class PredictionStream(Iterator[Prediction]):
    """Predictions in the order of their images, computed on demand and not kept.

    Args:
        predictions: makes them.
        tally: counts what was read, skipped or left out, so far.
        results: counts the frames that are left out of a COCO file, so far.
    """

    def __init__(self, predictions: Iterator[Prediction], tally: Tally, results: CocoResults):
        self.tally = tally
        self._predictions, self._results = predictions, results

    def __next__(self) -> Prediction:
        return next(self._predictions)

    @property
    def not_in_coco(self) -> int:
        """Frames that ``coco_images`` does not know, left out of ``coco_out``, so far."""
        return self._results.left_out


def by_instance(predicted: FramePredictions, skeleton: Skeleton) -> list[Prediction]:
    """A frame's predictions, one for each instance; the frame's pixels are not kept."""
    frame, count = predicted.frame, len(predicted.keypoints)
    boxes = [None] * count if frame.boxes is None else frame.boxes
    visibility = [None] * count if predicted.visibility is None else predicted.visibility
    return [
        Prediction(
            keypoints=keypoints,
            skeleton=skeleton,
            image=str(frame.item.path),
            frame=frame.number,
            bbox_xyxy=None if box is None else box.bbox_xyxy,
            visibility=visible,
            score_is_visibility=predicted.score_is_visibility,
            _read=partial(read_frame, frame.item, frame.number),
        )
        for keypoints, box, visible in zip(predicted.keypoints, boxes, visibility, strict=True)
    ]
