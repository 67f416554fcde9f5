"""Label the keypoints of a figure: their positions, and what the raster shows of them."""

import numpy as np

from kpdata.core.sample import NOT_LABELLED, OCCLUDED, VISIBLE, Instance
from kpdata.core.skeletons import COCO17
from kpdata.synth.body import PARTS, Array, Body
from kpdata.synth.camera import Camera
from kpdata.synth.paint import SUPERSAMPLE, figure_of, part_of
from kpdata.synth.raster import Mask, Raster

_OWN: dict[str, tuple[tuple[str, ...], float]] = {
    "nose": (("nose", "head"), 0.02),
    "eye": (("{}_eye", "head"), 0.018),
    "ear": (("{}_ear", "head"), 0.028),
    "shoulder": (("{}_upper_arm", "{}_girdle", "chest"), 0.085),
    "elbow": (("{}_upper_arm", "{}_forearm"), 0.05),
    "wrist": (("{}_forearm", "{}_hand"), 0.04),
    "hip": (("{}_thigh", "pelvis", "belly"), 0.095),
    "knee": (("{}_thigh", "{}_shin"), 0.06),
    "ankle": (("{}_shin", "{}_foot"), 0.045),
}


def _own(keypoint: str) -> tuple[tuple[str, ...], float]:
    side, _, rest = keypoint.partition("_")
    names, reach = _OWN[rest] if rest else _OWN[keypoint]
    return tuple(name.format(side) for name in names), reach


OWN_PARTS = np.array([[part in _own(name)[0] for part in PARTS] for name in COCO17.keypoints])
"""(17, P) the parts that show a COCO keypoint rather than hide it."""

REACH = np.array([_own(name)[1] for name in COCO17.keypoints])
"""(17,) how far before its keypoint such a part's surface may lie, in units of the stature."""


def label_figure(
    raster: Raster, body: Body, number: int, camera: Camera, silhouette: Mask
) -> Instance:
    """The figure's keypoints, with what the raster shows of them, its box and its area."""
    xy, depth = camera.project(body.keypoint_array())  # (17, 2), (17,)
    height, width = (side / SUPERSAMPLE for side in raster.depth.shape)
    inside = np.all((xy >= 0) & (xy < [width, height]), axis=1)
    columns, rows = np.where(inside[:, None], xy * SUPERSAMPLE, 0).astype(int).T
    label = raster.label[rows, columns]
    mine = figure_of(label) == number
    own = OWN_PARTS[np.arange(len(xy)), np.where(mine, part_of(label), 0)]
    near = depth - raster.depth[rows, columns] <= REACH * body.build.stature
    visibility = np.where(mine & own & near, VISIBLE, OCCLUDED)
    visibility[~inside] = NOT_LABELLED
    keypoints = np.column_stack([np.where(inside[:, None], xy, 0), visibility])
    return Instance(
        keypoints.astype(np.float32),
        bbox_xyxy=(mask_box(silhouette) / SUPERSAMPLE).astype(np.float32),
        area=float(np.count_nonzero(silhouette)) / SUPERSAMPLE**2,
        category="person",
    )


def mask_box(mask: Mask) -> Array:
    """(4,) xyxy: the tight box around a mask's pixels, in canvas pixels."""
    columns, rows = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
