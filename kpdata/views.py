"""What a view of an image does to its labels, be it a crop, an augmented copy or both."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kpdata.geometry import Affine, map_box, scale_of
from kpdata.schema import NOT_LABELLED, Instance

_NOWHERE = (0.0, 0.0, NOT_LABELLED)


def move_instance(
    instance: Instance,
    affine: Affine,
    width: int,
    height: int,
    flip_index: npt.NDArray[np.intp] | None = None,
) -> tuple[Instance, int]:
    """Map an instance by ``affine`` into a picture of ``width`` × ``height`` pixels.

    A keypoint outside [0, width) × [0, height) becomes v = 0. The box is the upright box around
    the mapped one and is not clipped; area and head size grow with the affine's scale.

    Args:
        instance: labels in the source's pixels.
        affine: (2, 3) source pixels → picture pixels.
        width, height: the picture's size.
        flip_index: (K,) the skeleton's, applied where ``affine`` mirrors, so that the left wrist
            of the mirror image is the one that looks left; None never swaps names.

    Returns:
        The instance in the picture, and how many labelled keypoints left its frame.
    """
    keypoints = instance.keypoints
    if flip_index is not None and _mirrors(affine):
        keypoints = keypoints[flip_index]
    (a, b, shift_x), (c, d, shift_y) = affine.tolist()
    moved = np.array(
        [
            (a * x + b * y + shift_x, c * x + d * y + shift_y, v) if v else _NOWHERE
            for x, y, v in keypoints.tolist()
        ],
        np.float32,
    )
    lost = [
        row
        for row, (x, y, v) in enumerate(moved.tolist())
        if v and not (0 <= x < width and 0 <= y < height)
    ]
    if lost:
        moved[lost] = _NOWHERE
    scale = scale_of(affine)
    seen = replace(
        instance,
        keypoints=moved,
        bbox_xyxy=None if instance.bbox_xyxy is None else map_box(affine, instance.bbox_xyxy),
        area=None if instance.area is None else instance.area * scale**2,
        head_size=None if instance.head_size is None else instance.head_size * scale,
    )
    return seen, len(lost)


def _mirrors(affine: Affine) -> bool:
    return bool(affine[0, 0] * affine[1, 1] < affine[0, 1] * affine[1, 0])
