"""OKS, COCO's object keypoint similarity, and the average precision built on it."""

import contextlib
import io
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.sample import FloatArray
from kpdata.core.skeleton import Skeleton
from kpdata.metrics.measure import Measure
from kpdata.metrics.poses import BoolArray, Poses

MAX_DETECTIONS = 20
_CATEGORY = 1


def oks(poses: Poses) -> FloatArray:
    """(N,) the mean over labelled keypoints of exp(−d² / (2 · area · (2σ)²)).

    NaN for an instance without a labelled keypoint or without an area above 0. This is the formula
    of COCO's evaluation code; its factor of 2 before σ is missing in COCO's description.

    Raises:
        SchemaError: the skeleton has no sigmas, or the poses no area.
    """
    sigmas = _sigmas(poses.skeleton)
    area = poses.require("area", "OKS")
    usable = _usable(poses)
    offset = poses.predicted[..., :2] - poses.truth[..., :2]
    scale = np.where(usable, area, 1)[:, None] * 2 * (2 * sigmas) ** 2  # (N, K)
    squared = np.where(poses.labelled, (offset**2).sum(axis=2), np.inf)
    similarity = np.exp(-squared / scale).sum(axis=1)
    return np.where(usable, similarity / np.maximum(poses.labelled.sum(axis=1), 1), np.nan)


def average_precision(poses: Poses, image_ids: Sequence[Hashable] | None = None) -> Measure:
    """OKS AP over .50:.05:.95 with at most 20 detections per image.

    pycocotools computes the OKS and matches predictions with instances. The precision is computed
    here, with a weight for each image; with equal weights it is that of pycocotools. Predictions
    are ranked by the mean of their K keypoint scores. The interval resamples images.

    Args:
        poses: truth and predictions, with areas.
        image_ids: (N,) the image of each instance: predictions of an image are matched with its
            instances. None puts each instance into an image of its own.

    Raises:
        SchemaError: the skeleton has no sigmas, the poses no area, or nothing can be scored.
        KpdataError: pycocotools is not installed.
    """
    sigmas = _sigmas(poses.skeleton)
    poses.require("area", "OKS AP")
    usable = _usable(poses)
    if not usable.any():
        raise SchemaError("OKS AP: no instance has a labelled keypoint and an area above 0")
    ids = list(range(len(poses))) if image_ids is None else list(image_ids)
    if len(ids) != len(poses):
        raise SchemaError(f"image_ids holds {len(ids)} values for {len(poses)} instances")
    numbers = {image: number for number, image in enumerate(dict.fromkeys(ids), 1)}
    images = np.array([numbers[image] for image in ids])[usable]
    evaluation = _evaluated(poses, usable, images, sigmas)
    thresholds = evaluation.params.iouThrs
    no_area = int((~(_area(poses) > 0)).sum())
    return Measure(
        name="OKS AP",
        unit="fraction",
        definition="COCO average precision over OKS .50:.05:.95 (pycocotools), at most "
        f"{MAX_DETECTIONS} detections per image, sigmas of {poses.skeleton.name}, ranked by the "
        "mean keypoint score; labelled keypoints count, occluded ones included",
        n=int(usable.sum()),
        counted="instances",
        left_out={
            "instances without an area above 0": no_area,
            "instances without a labelled keypoint": len(poses) - int(usable.sum()) - no_area,
        },
        units=len(evaluation.params.imgIds),
        parts=tuple(f"AP@{threshold:.2f}" for threshold in thresholds),
        groups={},
        estimate=_precision_estimate(evaluation),
    )


def _evaluated(poses: Poses, usable: BoolArray, images: FloatArray, sigmas: FloatArray) -> Any:
    """A COCOeval object, after ``evaluate`` on the usable instances."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise KpdataError(
            "OKS AP needs pycocotools: pip install 'kpdata[train]' or pip install pycocotools"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        truth = COCO()
        truth.dataset = _coco_truth(poses, usable, images)
        truth.createIndex()
        results = truth.loadRes(_coco_results(poses, usable, images))
        evaluation = COCOeval(truth, results, "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ["all"]
        evaluation.evaluate()
    return evaluation


def _coco_truth(poses: Poses, usable: BoolArray, images: FloatArray) -> dict[str, Any]:
    rows = zip(poses.truth[usable], _area(poses)[usable], images.tolist(), strict=True)
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": _CATEGORY,
            "iscrowd": 0,
            "num_keypoints": int((keypoints[:, 2] > 0).sum()),
            "keypoints": keypoints.ravel().tolist(),
            "area": float(area),
            "bbox": [0, 0, 0, 0],  # required, but used only if no keypoint is labelled
        }
        for number, (keypoints, area, image) in enumerate(rows, 1)
    ]
    return {
        "images": [{"id": image} for image in sorted(set(images.tolist()))],
        "categories": [{"id": _CATEGORY, "name": poses.skeleton.name}],
        "annotations": annotations,
    }


def _coco_results(poses: Poses, usable: BoolArray, images: FloatArray) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": _CATEGORY,
            "keypoints": keypoints.ravel().tolist(),
            "score": float(keypoints[:, 2].mean()),
        }
        for keypoints, image in zip(poses.predicted[usable], images.tolist(), strict=True)
    ]


def _precision_estimate(evaluation: Any) -> Callable[[FloatArray], FloatArray]:
    """A function from image weights (B, units) to (B, 1 + T): AP, and AP at each OKS threshold.

    It is COCOeval.accumulate with weights: a weight of w has the effect of w copies of the image.
    """
    results = evaluation.evalImgs
    scores = np.concatenate([result["dtScores"] for result in results])
    order = np.argsort(-scores, kind="mergesort")
    image = np.repeat(np.arange(len(results)), [len(r["dtScores"]) for r in results])[order]
    matched = np.concatenate([r["dtMatches"] for r in results], axis=1)[:, order] > 0  # (T, D)
    positives = np.array([len(result["gtIgnore"]) for result in results], np.float64)
    recalls = evaluation.params.recThrs

    def estimate(weights: FloatArray) -> FloatArray:
        wanted = weights @ positives
        rows = [
            _precisions(matched * each, each, total, recalls)
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
        weight: (D,) weight of each detection.
        wanted: the weight of all true instances.
        recalls: (R,) recalls at which the precision is averaged.
    """
    found = np.cumsum(true, axis=1)
    made = np.cumsum(weight)
    precision = np.divide(found, made, out=np.zeros_like(found), where=made > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.column_stack([envelope, np.zeros(len(envelope))])
    return np.array(
        [
            row[np.searchsorted(recall, recalls, side="left")].mean()
            for row, recall in zip(envelope, found / wanted, strict=True)
        ]
    )


def _area(poses: Poses) -> FloatArray:
    return poses.require("area", "OKS")


def _usable(poses: Poses) -> BoolArray:
    """(N,) whether OKS is defined for each instance."""
    return (_area(poses) > 0) & poses.labelled.any(axis=1)


def _sigmas(skeleton: Skeleton) -> FloatArray:
    if skeleton.sigma_array is None:
        raise SchemaError(
            f"OKS needs a sigma for every keypoint, and skeleton {skeleton.name} has none: give "
            f'"sigmas": {{"{skeleton.keypoints[0]}": 0.05, …}} in its JSON file (the spread of '
            "annotators on a keypoint, in units of the square root of the area), or leave OKS out"
        )
    return skeleton.sigma_array
