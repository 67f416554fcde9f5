"""OKS, COCO's object keypoint similarity, and the average precision built on it."""

import contextlib
import io
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.metrics.measure import Measure
from kpdata.metrics.poses import BoolArray, Poses

MAX_DETECTIONS = 20
_CATEGORY = 1


@dataclass(frozen=True, eq=False)
class Unpredicted:
    """M annotated instances that nothing is predicted for, as no crop shows them.

    Crowds and instances without a labelled keypoint are COCO's *ignore regions*: a prediction that
    fits no other instance but one of these counts neither for nor against. All others are missed.

    Attributes:
        image_ids: M, the image of each.
        keypoints: (M, K, 3) x, y, visibility 0, 1 or 2, in continuous pixels of the image.
        bbox_xyxy: (M, 4) in the same pixels; NaN where the source has none.
        area: (M,) square pixels; NaN where the source has none.
        is_crowd: (M,).
    """

    image_ids: tuple[Hashable, ...]
    keypoints: FloatArray
    bbox_xyxy: FloatArray
    area: FloatArray
    is_crowd: BoolArray


def oks(poses: Poses) -> FloatArray:
    """(N,) the mean over labelled keypoints of exp(−d² / (2 · area · (2σ)²)).

    NaN for an instance without a labelled keypoint, or with neither an area above 0 nor a box in
    its place. This is the formula of COCO's evaluation code; its factor of 2 before σ is missing in
    COCO's description.

    Raises:
        SchemaError: the skeleton has no sigmas, or the poses have neither area nor boxes.
    """
    sigmas = _sigmas(poses.skeleton)
    area, _ = _areas(poses)
    usable = (area > 0) & poses.labelled.any(axis=1)
    offset = poses.predicted[..., :2] - poses.truth[..., :2]
    scale = np.where(usable, area, 1)[:, None] * 2 * (2 * sigmas) ** 2  # (N, K)
    squared = np.where(poses.labelled, (offset**2).sum(axis=2), np.inf)
    similarity = np.exp(-squared / scale).sum(axis=1)
    return np.where(usable, similarity / np.maximum(poses.labelled.sum(axis=1), 1), np.nan)


def average_precision(
    poses: Poses,
    image_ids: Sequence[Hashable] | None = None,
    unpredicted: Unpredicted | None = None,
) -> Measure:
    """OKS AP over .50:.05:.95 with at most 20 detections per image.

    pycocotools computes the OKS and matches predictions with instances. The precision is computed
    here, with a weight for each image; with equal weights it is that of pycocotools. Predictions
    are ranked by the mean of their K keypoint scores. The interval resamples images.

    Args:
        poses: truth and predictions. An instance without an area counts with its box's.
        image_ids: (N,) the image of each instance: predictions of an image are matched with its
            instances. None puts each instance into an image of its own.
        unpredicted: the other annotated instances of those images; None for none.

    Raises:
        SchemaError: the skeleton has no sigmas, the poses have neither area nor boxes, or nothing
            can be scored.
        KpdataError: pycocotools is not installed.
    """
    sigmas = _sigmas(poses.skeleton)
    area, from_box = _areas(poses)
    ids = list(range(len(poses))) if image_ids is None else list(image_ids)
    if len(ids) != len(poses):
        raise SchemaError(f"image_ids holds {len(ids)} values for {len(poses)} instances")
    no_area, no_keypoint = ~(area > 0), ~poses.labelled.any(axis=1)
    usable = ~no_area & ~no_keypoint
    if not usable.any():
        raise SchemaError("OKS AP: no instance has a labelled keypoint and an area above 0")
    boxes = np.full((len(poses), 4), np.nan) if poses.bbox_xyxy is None else poses.bbox_xyxy
    annotations = [
        _annotation(ids[i], poses.truth[i], area[i], boxes[i]) for i in np.flatnonzero(usable)
    ]
    others = [] if unpredicted is None else _other_annotations(unpredicted)
    missed = sum(map(_is_wanted, others))
    predictions = [
        {
            "image_id": ids[i],
            "category_id": _CATEGORY,
            "keypoints": _coco_triples(poses.predicted[i]),
            "score": float(poses.predicted[i, :, 2].mean()),
        }
        for i in np.flatnonzero(usable)
    ]
    evaluation = _evaluated([*annotations, *others], predictions, sigmas)
    return Measure(
        name="OKS AP",
        unit="fraction",
        definition="COCO average precision over OKS .50:.05:.95 (pycocotools), at most "
        f"{MAX_DETECTIONS} detections per image, sigmas of {poses.skeleton.name}, ranked by the "
        "mean keypoint score; labelled keypoints count, occluded ones included; crowds and "
        "instances without a labelled keypoint are ignored regions, instances that no crop shows "
        "are missed"
        + (f"; {from_box:,} instances count with the area of their box" if from_box else ""),
        n=int(usable.sum()) + missed,
        counted="instances",
        left_out={
            "instances without an area above 0": int(no_area.sum()),
            "instances without a labelled keypoint": int((no_keypoint & ~no_area).sum()),
        },
        units=len(evaluation.evalImgs),
        parts=tuple(f"AP@{threshold:.2f}" for threshold in evaluation.params.iouThrs),
        groups={},
        estimate=_precision_estimate(evaluation),
    )


def _evaluated(
    annotations: list[dict[str, Any]], predictions: list[dict[str, Any]], sigmas: FloatArray
) -> Any:
    """A COCOeval object, after ``evaluate`` on the images in which something can be found."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise KpdataError(
            "OKS AP needs pycocotools: pip install 'kpdata[train]' or pip install pycocotools"
        ) from error
    wanted = {each["image_id"] for each in annotations if _is_wanted(each)}
    numbers = {image: number for number, image in enumerate(sorted(wanted, key=_as_coco_sorts), 1)}
    annotations = [each for each in annotations if each["image_id"] in numbers]
    for number, each in enumerate(annotations, 1):
        each["id"] = number
    for each in (*annotations, *predictions):
        each["image_id"] = numbers[each["image_id"]]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in numbers.values()],
            "categories": [{"id": _CATEGORY, "name": "instance"}],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(predictions), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ["all"]
        evaluation.evaluate()
    return evaluation


def _as_coco_sorts(image: Hashable) -> tuple[float, str]:
    """By number, as predictions of equal scores are ranked by it; other names come last."""
    name = str(image)
    return (float(name), "") if name.isdecimal() else (np.inf, name)


def _is_wanted(annotation: dict[str, Any]) -> bool:
    """Whether a prediction should be there: not for an ignored region."""
    return annotation["num_keypoints"] > 0 and not annotation["iscrowd"]


def _other_annotations(unpredicted: Unpredicted) -> list[dict[str, Any]]:
    """Those that COCO can place: with an area, and with a labelled keypoint or a box."""
    rows = zip(
        unpredicted.image_ids, unpredicted.keypoints, unpredicted.area, unpredicted.bbox_xyxy,
        unpredicted.is_crowd.tolist(), strict=True,
    )  # fmt: skip
    return [
        _annotation(image, keypoints, size, box, is_crowd)
        for image, keypoints, area, box, is_crowd in rows
        if (size := _box_area(box) if np.isnan(area) else area) > 0
        and (keypoints[:, 2].any() or np.isfinite(box).all())
    ]


def _annotation(
    image: Hashable, keypoints: FloatArray, area: float, box: FloatArray, is_crowd: bool = False
) -> dict[str, Any]:
    x0, y0, x1, y1 = np.nan_to_num(box).tolist()
    return {
        "image_id": image,
        "category_id": _CATEGORY,
        "iscrowd": int(is_crowd),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "keypoints": _coco_triples(keypoints),
        "area": float(area),
        "bbox": [x0, y0, x1 - x0, y1 - y0],  # stands in for keypoints where none is labelled
    }


def _coco_triples(keypoints: FloatArray) -> list[float]:
    """COCO counts keypoints from the first pixel's centre, and boxes from its corner."""
    return (keypoints - (0.5, 0.5, 0)).ravel().tolist()


def _precision_estimate(evaluation: Any) -> Callable[[FloatArray], FloatArray]:
    """A function from image weights (B, units) to (B, 1 + T): AP, and AP at each OKS threshold.

    It is COCOeval.accumulate with weights: a weight of w has the effect of w copies of the image.
    """
    results = evaluation.evalImgs
    scores = np.concatenate([result["dtScores"] for result in results])
    order = np.argsort(-scores, kind="mergesort")
    image = np.repeat(np.arange(len(results)), [len(r["dtScores"]) for r in results])[order]
    matched = np.concatenate([r["dtMatches"] for r in results], axis=1)[:, order] > 0  # (T, D)
    ignored = np.concatenate([r["dtIgnore"] for r in results], axis=1)[:, order] > 0  # (T, D)
    positives = np.array([(result["gtIgnore"] == 0).sum() for result in results], np.float64)
    recalls = evaluation.params.recThrs

    def estimate(weights: FloatArray) -> FloatArray:
        wanted = weights @ positives
        rows = [
            _precisions((matched & ~ignored) * each, ~ignored * each, total, recalls)
            for each, total in zip(weights[:, image], wanted, strict=True)
        ]
        by_threshold = np.stack(rows)
        return np.column_stack([by_threshold.mean(axis=1), by_threshold])

    return estimate


def _precisions(
    true: FloatArray, weight: FloatArray, wanted: float, recalls: FloatArray
) -> FloatArray:
    """(T,) interpolated average precision.

    Args:
        true: (T, D) weight of each detection where it is right, else 0; by falling score.
        weight: (T, D) weight of each detection; 0 where it is in an ignored region.
        wanted: the weight of all true instances.
        recalls: (R,) recalls at which the precision is averaged.
    """
    found = np.cumsum(true, axis=1)
    made = np.cumsum(weight, axis=1)
    precision = np.divide(found, made, out=np.zeros_like(found), where=made > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.column_stack([envelope, np.zeros(len(envelope))])
    return np.array(
        [
            row[np.searchsorted(recall, recalls, side="left")].mean()
            for row, recall in zip(envelope, found / wanted, strict=True)
        ]
    )


def _areas(poses: Poses) -> tuple[FloatArray, int]:
    """(N,) areas, those of the boxes where the source has none, and how many those are."""
    if poses.bbox_xyxy is None:
        return poses.require("area", "OKS"), 0
    own = np.full(len(poses), np.nan) if poses.area is None else poses.area
    boxes = np.array([_box_area(box) for box in poses.bbox_xyxy])
    from_box = np.isnan(own) & (boxes > 0)
    return np.where(from_box, boxes, own), int(from_box.sum())


def _box_area(box: FloatArray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _sigmas(skeleton: Skeleton) -> FloatArray:
    if skeleton.sigma_array is None:
        raise SchemaError(
            f"OKS needs a sigma for every keypoint, and skeleton {skeleton.name} has none: add "
            f'"sigmas": {{"{skeleton.keypoints[0]}": 0.05, …}} to its JSON file, or leave OKS out. '
            "A sigma is the spread of annotators, in units of the square root of the area"
        )
    return skeleton.sigma_array
