"""Scores of keypoint predictions, each with its definition, count and uncertainty.

    poses = Poses(skeleton, truth, predicted, area=area)
    score = pck(poses).score(np.random.default_rng(0))
    delta = compare(pck(first), pck(second), np.random.default_rng(0))

All coordinates are pixels of the source image. A metric is a function of :class:`Poses` that
returns a :class:`Measure`, from which a :class:`Score` or a comparison of two models is computed.
Keypoints that are not labelled (v = 0) never count; occluded ones (v = 1) do.
"""

from kpdata.metrics.baseline import mean_pose, pose_in_source
from kpdata.metrics.localisation import auc, epe, nme, pck, pck_area, pckh, pckh_stretched, pcp
from kpdata.metrics.measure import Delta, Difference, Measure, Score, compare
from kpdata.metrics.oks import Unpredicted, average_precision, oks
from kpdata.metrics.poses import Poses, distances, reference_lengths
from kpdata.metrics.visibility import visibility_accuracy, visibility_roc_auc

__all__ = [
    "Delta",
    "Difference",
    "Measure",
    "Poses",
    "Score",
    "Unpredicted",
    "auc",
    "average_precision",
    "compare",
    "distances",
    "epe",
    "mean_pose",
    "nme",
    "oks",
    "pck",
    "pck_area",
    "pckh",
    "pckh_stretched",
    "pcp",
    "pose_in_source",
    "reference_lengths",
    "visibility_accuracy",
    "visibility_roc_auc",
]
