"""The baseline of every score: the mean pose, predicted for every instance."""

import numpy as np

from kpdata.core.sample import FloatArray
from kpdata.core.transform import apply_affines


def mean_pose(xy_norm: FloatArray, visibility: FloatArray) -> FloatArray:
    """(K, 2) the mean position of each keypoint over the instances in which it is labelled.

    Args:
        xy_norm: (M, K, 2) training keypoints in crop-normalised coordinates, 0 to 1 in the crop.
        visibility: (M, K) 0, 1 or 2.

    A keypoint that is never labelled is put in the middle of the crop, (0.5, 0.5).
    """
    labelled = np.asarray(visibility)[..., None] > 0  # (M, K, 1)
    total = np.where(labelled, np.asarray(xy_norm, np.float64), 0).sum(axis=0)
    count = np.broadcast_to(labelled.sum(axis=0), total.shape)
    return np.divide(total, count, out=np.full_like(total, 0.5), where=count > 0)


def pose_in_source(
    pose_norm: FloatArray, inverse_affines: FloatArray, crop_size: int | tuple[int, int]
) -> FloatArray:
    """(N, K, 2) the pose in source pixels, for each of N crops.

    Args:
        pose_norm: (K, 2), 0 to 1 in the crop.
        inverse_affines: (N, 2, 3) crop pixels → source pixels.
        crop_size: the crop's side in pixels, or its width and height.
    """
    return apply_affines(inverse_affines, np.asarray(pose_norm, np.float64) * crop_size)
