"""Occluders, which are painted in front of the figures: poles, boxes and leaves.

Sizes are in canvas pixels. Each kind returns a colour layer and the mask of what it covers.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from kpdata.synth.backgrounds import colour, muted, noise

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Kind = Callable[[np.random.Generator, Image, npt.NDArray[np.uint8], npt.NDArray[np.float64]], None]


def add_occluder(
    rng: np.random.Generator, canvas: Image, bbox_xyxy: npt.NDArray[np.float64]
) -> Mask:
    """Paint one of OCCLUDERS over ``canvas`` and return what it covers, (H, W).

    Args:
        rng: the source of all random choices.
        canvas: (H, W, 3) RGB, changed in place.
        bbox_xyxy: the figure to hide a part of, in canvas pixels.
    """
    names = tuple(OCCLUDERS)
    layer, mask = canvas.copy(), np.zeros(canvas.shape[:2], np.uint8)
    OCCLUDERS[names[rng.integers(len(names))]](rng, layer, mask, bbox_xyxy)
    cv2.copyTo(layer, mask, canvas)
    return mask > 0


def _pole(
    rng: np.random.Generator,
    layer: Image,
    mask: npt.NDArray[np.uint8],
    bbox_xyxy: npt.NDArray[np.float64],
) -> None:
    height, width = mask.shape
    x0, _, x1, _ = bbox_xyxy
    thick = rng.uniform(0.08, 0.25) * (x1 - x0) + 4
    middle = rng.uniform(x0, x1)
    lean = rng.normal(0, 0.04) * height
    outline = [
        [middle - thick / 2 + lean, 0],
        [middle + thick / 2 + lean, 0],
        [middle + thick / 2 - lean, height],
        [middle - thick / 2 - lean, height],
    ]
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 255)
    first, last = np.clip([middle - thick - abs(lean), middle + thick + abs(lean)], 0, width)
    columns = np.arange(int(first), int(last), dtype=np.float32)[None]
    rows = np.arange(height, dtype=np.float32)[:, None]
    across = (columns - middle - lean * (1 - 2 * rows / height)) / (thick / 2)
    gloss = (np.sqrt((1 - across**2).clip(0.05, 1)) * 0.8 + 0.25 - 0.15 * across)[..., None]
    layer[:, int(first) : int(last)] = (np.array(muted(rng, 60, 210), np.float32) * gloss).clip(
        0, 255
    )


def _box(
    rng: np.random.Generator,
    layer: Image,
    mask: npt.NDArray[np.uint8],
    bbox_xyxy: npt.NDArray[np.float64],
) -> None:
    x0, y0, x1, y1 = bbox_xyxy
    size = rng.uniform(0.25, 0.7) * (x1 - x0) + 6, rng.uniform(0.15, 0.42) * (y1 - y0) + 6
    centre = rng.uniform(x0, x1), rng.uniform(y0 + 0.3 * (y1 - y0), y1)
    corners = np.asarray(cv2.boxPoints((centre, size, float(rng.normal(0, 8)))), np.float32)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    layer[:] = np.array(colour(rng, 30, 230), np.uint8)
    lid = corners[[1, 2, 2, 1]]
    lid[2:] += (corners[[3, 0]] - corners[[2, 1]]) * np.float32(rng.uniform(0.05, 0.25))
    cv2.fillPoly(layer, [np.round(lid).astype(np.int32)], colour(rng, 60, 255))
    grain = noise(rng, mask.shape[1], mask.shape[0], float(rng.uniform(4, 40)), 9)
    cv2.add(layer, cv2.merge([grain] * 3), layer, dtype=cv2.CV_8U)


def _leaves(
    rng: np.random.Generator,
    layer: Image,
    mask: npt.NDArray[np.uint8],
    bbox_xyxy: npt.NDArray[np.float64],
) -> None:
    x0, y0, x1, y1 = bbox_xyxy
    extent = max(x1 - x0, (y1 - y0) / 2)
    centre = rng.uniform([x0, y0 + 0.2 * (y1 - y0)], [x1, y1])
    green = rng.uniform([30, 70, 20], [110, 160, 70])
    for _ in range(rng.integers(8, 26)):
        at = centre + rng.normal(0, 0.17 * extent, 2)
        size = rng.uniform(0.08, 0.24) * extent, rng.uniform(0.04, 0.1) * extent
        leaf = tuple(at.tolist()), size, float(rng.uniform(0, 180))
        cv2.ellipse(mask, leaf, 255, -1)
        cv2.ellipse(layer, leaf, (green * rng.uniform(0.6, 1.4)).clip(0, 255).tolist(), -1)


OCCLUDERS: dict[str, Kind] = {"pole": _pole, "box": _box, "leaves": _leaves}
"""Kinds of occluder by name, all equally frequent."""
