"""A trained model in Python: score it, predict with it, export it.

Importing this imports no Keras: each method does when it is called.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

import numpy as np

from kpdata.core.crop import CropFrom, CropRule
from kpdata.core.errors import FormatError, KpdataError, TrainingError, either
from kpdata.core.progress import Progress
from kpdata.core.sample import FloatArray, Pixels
from kpdata.core.skeleton import Skeleton
from kpdata.shards.dataset import Dataset
from kpdata.shards.remote import open_remote
from kpdata.storage.stores import Url, as_location
from kpdata.train.infer.frames import Tally
from kpdata.train.infer.results import (
    Prediction,
    PredictionList,
    PredictionStream,
    by_instance,
)
from kpdata.train.models.base import check_within
from kpdata.train.run.backend import prepare_backend
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, RunFolder, RunInfo, State
from kpdata.view.console import Shown, shown

if TYPE_CHECKING:
    from kpdata.train.evaluate.evaluate import Evaluation
    from kpdata.train.export.export import Card
    from kpdata.train.export.formats import Precision
    from kpdata.train.infer.boxes import Boxes
    from kpdata.train.infer.files import CocoResults
    from kpdata.train.infer.media import Item
    from kpdata.train.infer.predictions import Decode
    from kpdata.train.infer.predictor import Predictor

AnyPath = str | Path
_P = ParamSpec("_P")


class HoldsDataset(Protocol):
    """Anything with a dataset's location, such as what ``kpdata.open`` returns."""

    stored: Dataset


AnyDataset = Dataset | HoldsDataset | AnyPath


def open_shards(dataset: AnyDataset) -> Dataset:
    """Open shards given as a path, a URL or an opened dataset.

    Raises:
        DatasetError, StoreError: no readable dataset is there.
        KpdataError: ``dataset`` is none of these.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, str | PathLike):
        location = as_location(dataset)
        return open_remote(location) if isinstance(location, Url) else Dataset.open(location)
    if isinstance(stored := getattr(dataset, "stored", None), Dataset):
        return stored
    raise KpdataError(
        f"dataset is of type {type(dataset).__name__}: expected a folder or URL of shards, or what "
        "kpdata.open gives"
    )


def same_data(folder: RunFolder, dataset: AnyDataset | None) -> Dataset:
    """The dataset that a run was begun with. It may have moved since."""
    info = folder.info()
    opened = open_shards(info.shards if dataset is None else dataset)
    if opened.manifest.root_hash != info.root_hash:
        raise TrainingError(
            f"{opened.folder} is not what {folder.path} was begun with: its root hash is "
            f"{opened.manifest.root_hash[:12]}…, not {info.root_hash[:12]}…"
        )
    return opened


def _with_parameters_of(
    other: Callable[_P, PredictionStream],
) -> Callable[[Callable[..., PredictionList]], Callable[_P, PredictionList]]:
    """Give a method the parameters of another one, for type checkers, editors and ``help``."""

    def decorate(method: Callable[..., PredictionList]) -> Callable[_P, PredictionList]:
        documented: Any = method
        documented.__signature__ = signature(other).replace(return_annotation=PredictionList)
        return method

    return decorate


class Run:
    """A trained model in its folder, as :func:`train` returns it.

    >>> run = Run.open("runs/a")                                             # doctest: +SKIP
    >>> run                                                                  # doctest: +SKIP
    <Run runs/a: blazepose, 17 keypoints of coco17, best epoch 41>
    >>> poses = run.predict("photo.jpg")                                     # doctest: +SKIP
    >>> poses[0].keypoints.shape                                             # doctest: +SKIP
    (17, 3)

    Args:
        path: the folder; it is read when it is needed.
    """

    def __init__(self, path: AnyPath):
        self.path = Path(path)
        self._loaded: Predictor | None = None

    @classmethod
    def open(cls, path: "Run | AnyPath") -> "Run":
        """Read a run's folder; nothing in it is executed.

        Raises:
            TrainingError: no run lies there, or it is damaged.
        """
        if isinstance(path, Run):
            return path
        run = cls(path)
        run.config, run.info, run.state  # noqa: B018 - they raise
        return run

    def __repr__(self) -> str:
        best = f"best epoch {self.best.epoch}" if self.best else "no epoch validated"
        skeleton = f"{len(self.skeleton)} keypoints of {self.skeleton.name}"
        return f"<Run {self.path}: {self.config.model}, {skeleton}, {best}>"

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run."""
        return RunFolder(self.path).config()

    @property
    def info(self) -> RunInfo:
        """The dataset that it was trained on, and how its images were cropped."""
        return RunFolder(self.path).info()

    @property
    def state(self) -> State:
        """The progress of the run: a record of each epoch, and the weights that are kept."""
        return RunFolder(self.path).state()

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton of the keypoints that it predicts."""
        return self.info.skeleton

    @property
    def best(self) -> Best | None:
        """The weights that are kept; None before the first validation."""
        return self.state.best

    def evaluate(
        self,
        dataset: AnyDataset,
        *,
        split: str = "test",
        out: AnyPath | None = None,
        flip: bool | None = None,
        decode: "Decode" = "dark",
        crop_from: CropFrom | None = None,
        progress: Shown = None,
    ) -> "Evaluation":
        """Score the model on a split, and write scores, predictions and pictures.

        >>> score = run.evaluate("shards/", split="test")["pck@0.2"]         # doctest: +SKIP
        >>> score.value, score.interval, score.baseline, score.n             # doctest: +SKIP
        (0.727, (0.712, 0.742), 0.179, 13862)

        Args:
            dataset: as in :func:`train`.
            split: its split.
            out: the folder to write; ``evaluation-SPLIT`` in the run's unless given.
            flip: average with what is found in the mirror image; None does so for runs that were
                trained on mirror images.
            decode: how to find a keypoint in its heatmap: ``dark``, ``udp``, ``quadratic`` or
                ``argmax``.
            crop_from: what to cut crops around, where the shards hold whole images; None does as
                in training.
            progress: as in :func:`train`.

        Raises:
            KpdataError: a run without weights, a dataset of other keypoints, or nothing to score.
        """
        if crop_from is not None:
            CropRule(crop_from)
        predictor = self._predictor()
        _check_decode(predictor, decode, predictor.best.heads)
        from kpdata.train.evaluate.evaluate import evaluate, save
        from kpdata.train.evaluate.report import EvaluationSettings

        settings = EvaluationSettings(
            split=split,
            flip_test=predictor.trained_with_flips if flip is None else flip,
            decode=decode,
            crop_from=crop_from,
            reference=predictor.config.reference,
        )
        with shown(progress) as meter:
            evaluation = evaluate(predictor, open_shards(dataset), settings, meter)
        save(evaluation, self.evaluation_folder(split) if out is None else Path(out))
        return evaluation

    def evaluation_folder(self, split: str) -> Path:
        """The folder that :meth:`evaluate` writes to by default."""
        return self.path / f"evaluation-{split}"

    def iter_predictions(
        self,
        sources: "AnyPath | Pixels | Sequence[AnyPath | Pixels]",
        *,
        out: AnyPath | None = None,
        boxes: "AnyPath | Mapping[str, Any] | FloatArray | None" = None,
        category: int | None = None,
        min_box_score: float = 0.0,
        margin: float | None = None,
        coco_out: AnyPath | None = None,
        coco_images: AnyPath | None = None,
        min_score: float = 0.2,
        flip: bool | None = None,
        progress: Shown = None,
    ) -> PredictionStream:
        """What :meth:`predict` does, one instance after the other: for long videos.

        Sources and options are checked at once, and images read as predictions are asked for. The
        files that it writes are whole when the last one is.

        >>> for pose in run.iter_predictions("match.mp4"):                   # doctest: +SKIP
        ...     print(pose.frame, pose.keypoints[0])
        """
        from kpdata.train.infer.boxes import ANY, BoxFilter
        from kpdata.train.infer.files import PredictionFolder, check_outputs, too_low
        from kpdata.train.infer.frames import Skipped, predict_frames, read_frames
        from kpdata.train.infer.media import count_frames, h264

        check_within("min_score", min_score, 0, 1)
        check_within("min_box_score", min_box_score, 0, 1)
        if margin is not None:
            CropRule(margin=margin)
        items = _items(sources, None if out is None else Path(out))
        check_outputs(
            items,
            [Path(file) for file in (boxes, coco_images) if isinstance(file, str | Path)],
            None if out is None else Path(out),
            None if coco_out is None else Path(coco_out),
        )
        chosen = BoxFilter(category, min_box_score)
        if chosen != ANY and boxes is None:
            raise FormatError("`category` and `min_box_score` change nothing without `boxes`")
        found_boxes, results = _boxes_and_results(items, boxes, chosen, coco_out, coco_images)
        tally = Tally(boxes_left_out=found_boxes.left_out if found_boxes else {})
        for fault in found_boxes.unusable if found_boxes else ():
            where = boxes if isinstance(boxes, str | Path) else "boxes"
            tally.skipped.append(Skipped(Path(where), "not a box", f"{where}: {fault}"))
        predictor = self._predictor()
        side = predictor.crop_rule.margin if margin is None else margin
        flips = predictor.trained_with_flips if flip is None else flip

        def predictions() -> Iterator[Prediction]:
            frames = read_frames(items, found_boxes, tally)
            folder = PredictionFolder(Path(out), predictor.skeleton, min_score) if out else None
            with shown(progress) as meter, folder or nullcontext():
                _tell_how(predictor, found_boxes is not None, side, flips, meter)
                if folder and any(item.is_video for item in items) and not h264():
                    meter.tell(
                        "note: no H.264 encoder is here: overlays of videos are MPEG-4 Part 2, "
                        "which browsers do not play. With one: pip install 'kpdata[video]'"
                    )
                meter.begin("predicting", count_frames(items), "frames")
                for predicted in predict_frames(predictor, frames, side, flips):
                    if folder:
                        folder.add(predicted)
                    if coco_out is not None:
                        results.add(predicted)
                    low = too_low(predicted.keypoints, predicted.score_is_visibility, min_score)
                    tally.below_min_score += int(low.sum())
                    yield from by_instance(predicted, predictor.skeleton)
                    meter.advance()
            if coco_out is not None:
                results.write(Path(coco_out))

        return PredictionStream(predictions(), tally, results)

    @_with_parameters_of(iter_predictions)
    def predict(self, sources, **options):  # type: ignore[no-untyped-def]
        """Find the keypoints of images, folders of images and videos.

        Without ``boxes`` each image is taken for one instance that fills it.

        Args:
            sources: paths, or images (H, W, 3) RGB; one of them, or several.
            out: a folder for overlays, ``predictions.jsonl`` and ``skeleton.json``; None writes
                nothing.
            boxes: where the objects are: a COCO file, COCO detections (with ``coco_images``), a
                JSON file or mapping of file name → [[x0, y0, x1, y1], …] (of a video, frame number
                → such a list), or an array (N, 4) for every source.
            category: use boxes of this ``category_id`` alone; needed where a file holds several.
            min_box_score: leave out boxes to which the detector gave a lower score.
            margin: the crops' side in units of the box's longer side; None does as in training.
            coco_out: a file for the keypoints as COCO's results JSON.
            coco_images: a COCO file that numbers the images, for ``coco_out`` and for detections.
            min_score: keypoints with a lower score are not drawn, and counted in the ``tally``.
            flip: as in :meth:`evaluate`.
            progress: as in :func:`train`.

        Raises:
            KpdataError: a source that is not there, boxes that are none, or an option out of range.
                Files that cannot be used are skipped, and listed in the result's ``tally``.

        See Also:
            iter_predictions: the same without keeping all predictions in memory.
        """
        stream = self.iter_predictions(sources, **options)
        predictions = list(stream)
        return PredictionList(stream.tally, predictions, stream.not_in_coco)

    def export(
        self,
        out: AnyPath,
        *,
        to: str | Sequence[str] = ("tflite",),
        head: str | None = None,
        flip: bool = False,
        decode: "Decode" = "dark",
        precision: "Precision" = "float32",
        dataset: AnyDataset | None = None,
        progress: Shown = None,
    ) -> "Card":
        """Write the model as files for other programs, and run each to see that it agrees.

        >>> run.export("exported/", to=["onnx"]).files["onnx"].name          # doctest: +SKIP
        'model.onnx'

        Args:
            out: a new folder, which appears whole or not at all.
            to: ``tflite``, ``onnx``, ``saved_model``; one or several.
            head: which of the model's heads to export; the run's primary head unless given.
            flip: put the flip test inside.
            decode: as in :meth:`evaluate`.
            precision: of the weights of a TFLite file: ``float32``, ``float16`` or ``int8``. Such
                a file is scored beside the model, and refused if it loses much.
            dataset: the run's, where it has moved; what ``int8`` is calibrated on, and what files
                of less than ``float32`` are scored on.
            progress: as in :func:`train`.

        Raises:
            KpdataError: ``out`` is in use, a library is missing, or a file's outputs differ from
                the model's.
        """
        predictor = self._predictor()
        from kpdata.train.export.export import export

        _check_decode(predictor, decode, (head,) if head else predictor.best.heads[:1])
        formats = (to,) if isinstance(to, str) else tuple(to)
        if precision == "float32" and dataset is not None:
            raise TrainingError("`dataset` changes nothing without a `precision`")
        data = None if precision == "float32" else same_data(RunFolder(self.path), dataset)
        with shown(progress) as meter:
            card = export(predictor, Path(out), formats, head, flip, decode, meter, precision, data)
            for note in card.notes:
                meter.warn(note)
        return card

    def _predictor(self) -> "Predictor":
        """Build the model. This imports Keras."""
        if self._loaded is None:
            prepare_backend()
            from kpdata.train.infer.predictor import Predictor

            self._loaded = Predictor.open(self.path)
        return self._loaded


def _check_decode(predictor: "Predictor", decode: str, heads: Iterable[str]) -> None:
    """Raise KpdataError for an unknown decoding, or one that the model's heads do not support."""
    spec, heads = predictor.config.spec, tuple(heads)
    known = dict.fromkeys(way for name in heads for way in spec.head(name).decodings)
    if known and decode not in known:
        raise KpdataError(f"decode is {decode!r}: expected {either(known)}")
    if not known and decode != "dark":
        raise KpdataError(f"`decode` changes nothing: {', '.join(heads)} need no decoding")


def _items(sources: Any, out: Path | None) -> "list[Item]":
    from kpdata.train.infer.media import array_item, find

    if isinstance(sources, str | Path | np.ndarray):
        sources = [sources]
    items: list[Item] = []
    paths = [Path(source) for source in sources if not isinstance(source, np.ndarray)]
    arrays = [source for source in sources if isinstance(source, np.ndarray)]
    if paths:
        items += find(paths, besides=out)
    return items + [array_item(array, number) for number, array in enumerate(arrays)]


def _boxes_and_results(
    items: "Sequence[Item]", given: Any, chosen: Any, coco_out: Any, coco_images: Any
) -> "tuple[Boxes | None, CocoResults]":
    """The boxes, and a collection of results that numbers images as their COCO file does."""
    from kpdata.formats.coco.boxes import read_image_ids
    from kpdata.train.infer.boxes import ByName, boxes_of, read_boxes
    from kpdata.train.infer.files import CocoResults

    ids = None if coco_images is None else read_image_ids(Path(coco_images))
    boxes: Boxes | None = None
    if isinstance(given, str | Path):
        boxes = read_boxes(Path(given), ids, chosen)
        if coco_out is not None and ids is None:
            try:
                ids = read_image_ids(Path(given))
            except FormatError:
                ids = None  # a plain list of boxes numbers no images
    elif isinstance(given, Mapping):
        boxes = boxes_of(given, chosen)
    elif given is not None:
        boxes = boxes_of({str(item.path): given for item in items}, chosen)
    return boxes, CocoResults(None if ids is None else ByName(ids))


def _tell_how(
    predictor: "Predictor", has_boxes: bool, margin: float, flip: bool, progress: Progress
) -> None:
    """Report how images will be cropped and scored, before the first prediction."""
    from kpdata.train.infer.predictions import FLIP_NOT_TRAINED

    rule = predictor.crop_rule
    if has_boxes and rule.crop_from != "bbox":
        progress.warn(
            f"the model is given squares around the boxes, × {margin:g}, and was trained on "
            f"{rule.words}"
        )
    if not has_boxes:
        progress.tell(
            "no boxes: each image counts as one instance that fills it, and the model gets a "
            f"square around its centre, × {margin:g}. In training: {rule.words}"
        )
    if predictor.score_note:
        progress.tell(f"note: {predictor.score_note}")
    if flip and not predictor.trained_with_flips:
        progress.warn(FLIP_NOT_TRAINED)
    else:
        progress.tell(f"{'with' if flip else 'without'} flip test")
