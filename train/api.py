"""Training, scoring, prediction and export from Python; the commands are thin over it.

Importing this imports no Keras: each function does when it is called.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from kpdata.core.crop import CropFrom, CropRule, either
from kpdata.core.errors import FormatError, KpdataError, TrainingError
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
from kpdata.train.models.registry import default_model, get_model, models
from kpdata.train.run.backend import prepare_backend
from kpdata.train.run.config import TrainConfig, load_recipe
from kpdata.train.run.folder import Best, RunFolder, RunInfo, State
from kpdata.train.run.overrides import (
    Overrides,
    of_stage,
    override,
    with_epochs,
    with_input_size,
)
from kpdata.view.console import Shown, shown

if TYPE_CHECKING:
    from kpdata.train.evaluate.compare import Comparison
    from kpdata.train.evaluate.evaluate import Evaluation
    from kpdata.train.export.export import Card
    from kpdata.train.infer.boxes import Boxes
    from kpdata.train.infer.files import CocoResults
    from kpdata.train.infer.media import Item
    from kpdata.train.infer.predictions import Decode
    from kpdata.train.infer.predictor import Predictor

__all__ = [
    "Prediction",
    "PredictionList",
    "PredictionStream",
    "Run",
    "compare",
    "configuration",
    "resumed_configuration",
    "train",
]

AnyPath = str | Path


class HoldsDataset(Protocol):
    """Anything with a dataset's location, such as what ``kpdata.open`` returns."""

    stored: Dataset


AnyDataset = Dataset | HoldsDataset | AnyPath


def train(
    dataset: AnyDataset | None,
    out: AnyPath,
    *,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    stage: str | None = None,
    init_from: "Run | AnyPath | None" = None,
    settings: Overrides = (),
    resume: bool = False,
    skip_checks: bool = False,
    devices: int = 1,
    progress: Shown = None,
    **model_options: Any,
) -> "Run":
    """Train a model on shards, and keep the weights that validate best.

    >>> run = train("shards/", "runs/a", size="lite", epochs=50)             # doctest: +SKIP
    >>> run.evaluate("shards/", split="test")["pck@0.2"].value               # doctest: +SKIP
    0.727

    Args:
        dataset: shards with a split ``train``, and ``val`` to select by: a folder, a URL, or what
            ``kpdata.open`` gives. None, with ``resume``: those that the run was begun with.
        out: the run's folder.
        recipe: a named configuration; without, it suits the dataset and this machine.
        model: its name, unless a recipe names it.
        epochs: in all, shared between the phases as before.
        input_size: of the finished model, in pixels.
        batch_size: crops a step.
        seed: decides everything random: weights, the order of crops, augmentation.
        stage: which phases to train, by what they train; all unless given.
        init_from: a run, whose best weights training starts from.
        settings: any other value of the configuration: ``["augment.flip=0"]``, or a mapping.
        resume: go on with the run in ``out``, which has its configuration already.
        skip_checks: train without checking labels and model first.
        devices: how many of JAX's devices share each batch.
        progress: True or False; None shows it on a terminal and in notebooks. A Progress is told
            instead.
        **model_options: of the model, such as ``size`` or ``backbone``.

    Raises:
        KpdataError: a parameter that cannot be, shards that cannot be trained on, a check that
            failed, or a loss that is not a number.

    See Also:
        configuration: what would be trained.
    """
    _check_whole(devices=devices)
    prepare_backend()
    folder = RunFolder(Path(out))
    choices: dict[str, Any] = {
        "recipe": recipe,
        "model": model,
        "epochs": epochs,
        "input_size": input_size,
        "batch_size": batch_size,
        "seed": seed,
        "stage": stage,
        "init_from": init_from,
        "settings": settings,
        **model_options,
    }
    if resume:
        config = resumed_configuration(folder, choices)
        opened = _same_data(folder, dataset)
    else:
        if dataset is None:
            raise TrainingError("`dataset` is missing: the shards to train on")
        opened = _opened(dataset)
        config = configuration(opened, **choices)
        if folder.state().epochs:
            raise TrainingError(
                f"{folder.path} holds a run already: add `resume` to go on with it, or choose "
                "another `out`"
            )
    from kpdata.train.loop.train import train as train_all

    with shown(progress) as meter:
        train_all(folder, opened, config, meter, check_first=not skip_checks, devices=devices)
    return Run(folder.path)


def configuration(
    dataset: AnyDataset,
    *,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    stage: str | None = None,
    init_from: "Run | AnyPath | None" = None,
    settings: Overrides = (),
    **model_options: Any,
) -> TrainConfig:
    """The configuration that :func:`train` would use, from the same arguments.

    Raises:
        KpdataError: a parameter that cannot be.
    """
    prepare_backend()
    from kpdata.train.run.defaults import default_config

    _check_whole(epochs=epochs, input_size=input_size, batch_size=batch_size, seed=seed)
    if recipe and model:
        raise KpdataError("`model` does not go with `recipe`: a recipe names its model")
    base = load_recipe(recipe) if recipe else None
    spec = base.spec if base else get_model(model or default_model())
    options = {name: value for name, value in model_options.items() if value is not None}
    _check_options(spec.name, options)
    for info in spec.option_infos:  # a run may be resumed from another working directory
        if info.is_file and str(options.get(info.name, "")).endswith(".h5"):
            options[info.name] = str(Path(options[info.name]).resolve())
    if base:
        config = base.with_options(**options)
    else:
        config = default_config(_opened(dataset), spec.name, options)
    if stage:
        if spec.stage(stage).needs_init and not init_from:
            raise KpdataError(
                f"stage is {stage}: it needs `init_from`, the run whose other stages it stands on"
            )
        config = of_stage(config, stage)
    if epochs is not None:
        config = with_epochs(config, epochs)
    if input_size is not None:
        config = with_input_size(config, input_size)
    changes: dict[str, Any] = {}
    if batch_size is not None:
        changes["batch_size"] = batch_size
    if seed is not None:
        changes["seed"] = seed
    if init_from is not None:
        path = init_from.path if isinstance(init_from, Run) else Path(init_from)
        changes["init_from"] = str(path.resolve())
    return override(msgspec.structs.replace(config, **changes), settings)


def resumed_configuration(folder: RunFolder, choices: Mapping[str, Any]) -> TrainConfig:
    """That of the run in a folder; KpdataError where ``choices`` name a value of another."""
    for name, value in choices.items():
        if value is not None and value != ():
            raise KpdataError(
                f"`{name}` does not go with `resume`: the run has its configuration already"
            )
    return folder.config()


def _check_whole(**numbers: Any) -> None:
    """Raise KpdataError for a value that is neither a whole number nor None."""
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise KpdataError(f"{name} is {value!r}: expected a whole number")


def _check_options(model: str, options: Mapping[str, Any]) -> None:
    """Raise KpdataError for an option that the model does not declare."""
    owners: dict[str, list[str]] = defaultdict(list)
    for spec in models().values():
        for info in spec.option_infos:
            owners[info.name].append(spec.name)
    for name in options:
        if name not in owners:
            parameters = ("epochs", "input_size", "batch_size", "seed", "stage", "init_from")
            near = difflib.get_close_matches(name, [*owners, *parameters], 1)
            raise KpdataError(
                f"`{name}` is unknown" + (f": did you mean `{near[0]}`?" if near else "")
            )
        if model not in owners[name]:
            raise KpdataError(
                f"`{name}` is of {' and '.join(owners[name])}, and this model is {model}"
            )


def _opened(dataset: AnyDataset) -> Dataset:
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


def _same_data(folder: RunFolder, dataset: AnyDataset | None) -> Dataset:
    """The dataset that a run was begun with. It may have moved since."""
    info = folder.info()
    opened = _opened(info.shards if dataset is None else dataset)
    if opened.manifest.root_hash != info.root_hash:
        raise TrainingError(
            f"{opened.folder} is not what {folder.path} was begun with: its root hash is "
            f"{opened.manifest.root_hash[:12]}…, not {info.root_hash[:12]}…"
        )
    return opened


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
            evaluation = evaluate(predictor, _opened(dataset), settings, meter)
        save(evaluation, self.evaluation_folder(split) if out is None else Path(out))
        return evaluation

    def evaluation_folder(self, split: str) -> Path:
        """The folder that :meth:`evaluate` writes to by default."""
        return self.path / f"evaluation-{split}"

    def predict(
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
    ) -> PredictionList:
        """Find the keypoints of images, folders of images and videos.

        Without ``boxes`` each image is taken for one instance that fills it.

        Args:
            sources: paths, or images (H, W, 3) RGB; one of them, or several.
            out: a folder for overlays, ``predictions.jsonl`` and ``skeleton.json``; None writes
                nothing.
            boxes: where the objects are: a COCO file, COCO detections (with ``coco_images``), a
                JSON file or mapping of file name → [[x0, y0, x1, y1], …], or an array (N, 4) for
                every source.
            category: use boxes of this ``category_id`` alone; needed where a file holds several.
            min_box_score: leave out boxes to which the detector gave a lower score.
            margin: the crops' side in units of the box's longer side; None does as in training.
            coco_out: a file for the keypoints as COCO's results JSON.
            coco_images: a COCO file that numbers the images, for ``coco_out`` and for detections.
            min_score: keypoints with a lower score are not drawn.
            flip: as in :meth:`evaluate`.
            progress: as in :func:`train`.

        Raises:
            KpdataError: a source that is not there, boxes that are none, or an option out of range.
                Files that cannot be used are skipped, and listed in the result's ``tally``.

        See Also:
            iter_predictions: the same without keeping all predictions in memory.
        """
        stream = self.iter_predictions(
            sources,
            out=out,
            boxes=boxes,
            category=category,
            min_box_score=min_box_score,
            margin=margin,
            coco_out=coco_out,
            coco_images=coco_images,
            min_score=min_score,
            flip=flip,
            progress=progress,
        )
        predictions = list(stream)
        return PredictionList(stream.tally, predictions, stream.not_in_coco)

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
        from kpdata.train.infer.files import PredictionFolder
        from kpdata.train.infer.frames import Skipped, predict_frames, read_frames
        from kpdata.train.infer.media import count_frames

        check_within("min_score", min_score, 0, 1)
        check_within("min_box_score", min_box_score, 0, 1)
        if margin is not None:
            CropRule(margin=margin)
        items = _items(sources, None if out is None else Path(out))
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
                meter.begin("predicting", count_frames(items), "frames")
                for predicted in predict_frames(predictor, frames, side, flips):
                    if folder:
                        folder.add(predicted)
                    if coco_out is not None:
                        results.add(predicted)
                    yield from by_instance(predicted, predictor.skeleton)
                    meter.advance()
            if coco_out is not None:
                results.write(Path(coco_out))

        return PredictionStream(predictions(), tally, results)

    def export(
        self,
        out: AnyPath,
        *,
        to: str | Sequence[str] = ("tflite",),
        head: str | None = None,
        flip: bool = False,
        decode: "Decode" = "dark",
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
            progress: as in :func:`train`.

        Raises:
            KpdataError: ``out`` is in use, a library is missing, or a file's outputs differ from
                the model's.
        """
        predictor = self._predictor()
        from kpdata.train.export.export import export

        _check_decode(predictor, decode, (head,) if head else predictor.best.heads[:1])
        formats = (to,) if isinstance(to, str) else tuple(to)
        with shown(progress) as meter:
            card = export(predictor, Path(out), formats, head, flip, decode, meter)
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
            "no boxes: each image counts as one instance that fills it, and is cropped to a "
            f"square around its centre, × {margin:g}. In training: {rule.words}"
        )
    if predictor.score_note:
        progress.tell(f"note: {predictor.score_note}")
    if flip and not predictor.trained_with_flips:
        progress.warn(FLIP_NOT_TRAINED)
    else:
        progress.tell(f"{'with' if flip else 'without'} flip test")


def compare(
    run_a: "Run | AnyPath", run_b: "Run | AnyPath", *, split: str = "test", seed: int = 0
) -> "Comparison":
    """Every metric of ``run_b`` less that of ``run_a``, on the same instances.

    >>> [d.name for d in compare("runs/a", "runs/b").differences]            # doctest: +SKIP
    ['PCK@0.2 (torso)', 'EPE', ...]

    Args:
        run_a, run_b: runs, their folders, or the folders of their evaluations.
        split: of the evaluations.
        seed: of the paired bootstrap.

    Raises:
        DatasetError: one was not evaluated, or the two were evaluated on different instances.
    """
    from kpdata.train.evaluate.compare import compare_runs

    first, second = (run.path if isinstance(run, Run) else Path(run) for run in (run_a, run_b))
    return compare_runs(first, second, split, seed)
