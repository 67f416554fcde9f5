"""Draw keypoints, edges and boxes on pictures.

The left side is orange, the right side blue. Each keypoint without a mirror image has a colour of
its own, the first one green. A visible keypoint is a dot, an occluded one an outlined ring; one
that is not labelled is not drawn.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kpdata.core.sample import NOT_LABELLED, OCCLUDED, FloatArray, Instance, Pixels, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.images import codec
from kpdata.storage.atomic import write_atomically

Colour = tuple[int, int, int]

LEFT, RIGHT, MIDDLE = (255, 140, 0), (30, 150, 255), (70, 225, 90)
BOX, CROWD_BOX = (255, 225, 60), (235, 60, 235)
OUTLINE = (0, 0, 0)

_DEUTERANOPE = (
    (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881),
)  # fmt: skip
"""Linear RGB as the most frequent kind of colour blindness sees it (Machado et al., 2009)."""

_DARKEST, _GREYEST = 45.0, 25.0
"""Lightness and chroma in CIELAB: darker and greyer colours are lost on pictures."""

_SHIFT = 4  # OpenCV draws at 1/16 pixel
_RING = 1.6  # the radius of an occluded keypoint's ring over that of a visible one's dot


def draw_instance(
    rgb: Pixels, instance: Instance, skeleton: Skeleton, thickness: int | None = None
) -> Pixels:
    """A copy of ``rgb`` (H, W, 3) with the instance's box, edges and keypoints.

    Args:
        rgb: the picture.
        instance: with the K keypoints of ``skeleton``, in continuous pixels of ``rgb``.
        skeleton: its edges are drawn, and its flip pairs decide the colours; see
            :func:`keypoint_colours`.
        thickness: of the edges in pixels; None chooses by the picture's size.
    """
    width = thickness or max(1, round(max(rgb.shape[:2]) / 250))
    canvas = np.ascontiguousarray(rgb).copy()
    if instance.bbox_xyxy is not None:
        _draw_box(canvas, instance.bbox_xyxy, max(1, width // 2), instance.is_crowd)
    colours, sides = keypoint_colours(skeleton), _sides(skeleton)
    ends = [sides.get(name) for name in skeleton.keypoints]
    labelled = instance.visibility != NOT_LABELLED
    points = _fixed(instance.xy)
    for a, b in skeleton.edge_index.tolist():
        if labelled[a] and labelled[b]:
            line = tuple(points[a].tolist()), tuple(points[b].tolist())
            colour = _edge_colour(ends[a], ends[b])
            cv2.line(canvas, *line, colour, width, cv2.LINE_AA, _SHIFT)
    shades = [colours[name] for name in skeleton.keypoints]
    _draw_dots(canvas, rgb, points, instance.visibility, shades, width)
    return canvas


def draw_sample(sample: Sample, skeleton: Skeleton, size: int | None = None) -> Pixels:
    """The sample's picture (H, W, 3) with all its instances drawn.

    Args:
        sample: holds its encoded picture.
        skeleton: the keypoints' names and edges.
        size: the longer side of the result in pixels; None keeps the picture's own size.

    Raises:
        ImageError: the sample holds no picture, or it does not decode.
    """
    return draw_instances(codec.decode_stored(sample.image), sample.instances, skeleton, size)


def draw_instances(
    rgb: Pixels, instances: Iterable[Instance], skeleton: Skeleton, size: int | None = None
) -> Pixels:
    """A copy of a picture (H, W, 3) with all instances drawn; see :func:`draw_sample`."""
    height, width = rgb.shape[:2]
    canvas = rgb if size is None else resized(rgb, size)
    scale = np.array([canvas.shape[1] / width, canvas.shape[0] / height])
    for instance in instances:
        canvas = draw_instance(canvas, _scaled(instance, scale), skeleton)
    return canvas


def write_png(path: Path, rgb: Pixels) -> None:
    """Write (H, W, 3) RGB as a PNG, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, codec.encode(rgb, "png"), durable=False)


def keypoint_colours(skeleton: Skeleton) -> dict[str, Colour]:
    """Keypoint → its colour: that of its side, or one of its own where it has no mirror image."""
    sides = _sides(skeleton)
    unpaired = [name for name in skeleton.keypoints if name not in sides]
    own = dict(zip(unpaired, _distinct(len(unpaired)), strict=True))
    return {name: (sides | own)[name] for name in skeleton.keypoints}


def _sides(skeleton: Skeleton) -> dict[str, Colour]:
    pairs = skeleton.flip_pairs or ()
    return {left: LEFT for left, _ in pairs} | {right: RIGHT for _, right in pairs}


@lru_cache
def _distinct(count: int) -> tuple[Colour, ...]:
    """MIDDLE, and then each time the colour that is least like any before, nor like a side.

    Two colours are as unlike as they are to a colour-blind person, by their distance in CIELAB.
    Colours come again after some eight hundred.
    """
    levels = np.linspace(0, 255, 11)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3).round()
    lab = _as_seen(grid)[0]
    candidates = grid[(lab[:, 0] >= _DARKEST) & (np.hypot(lab[:, 1], lab[:, 2]) >= _GREYEST)]
    seen = _as_seen(candidates)
    nearest = np.full(len(candidates), np.inf)
    taken = [LEFT, RIGHT, MIDDLE]
    for number in range(count + 2):
        away = np.linalg.norm(seen - _as_seen(np.array([taken[number]])), axis=2).min(axis=0)
        nearest = np.minimum(nearest, away)
        if number >= 2:
            red, green, blue = candidates[nearest.argmax()].tolist()
            taken.append((int(red), int(green), int(blue)))
    return tuple(taken[2 : 2 + count])


def _as_seen(rgb: npt.NDArray[Any]) -> FloatArray:
    """(2, N, 3) colours (N, 3) in CIELAB, as most people see them and as a deuteranope does."""
    part = rgb / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    eyes = np.array([linear, np.clip(linear @ np.array(_DEUTERANOPE).T, 0, 1)], np.float32)
    return np.asarray(cv2.cvtColor(eyes, cv2.COLOR_LRGB2Lab), np.float64)


def _edge_colour(first: Colour | None, second: Colour | None) -> Colour:
    """That of the one side which an edge touches, else MIDDLE."""
    sides = {first, second} - {None}
    return (sides.pop() if len(sides) == 1 else None) or MIDDLE


def _fixed(xy: FloatArray) -> npt.NDArray[np.int32]:
    """Continuous pixels in OpenCV's fixed-point numbers, which have pixel centres at integers."""
    return np.round((xy - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _draw_dots(
    canvas: Pixels,
    rgb: Pixels,
    points: npt.NDArray[np.int32],
    visibility: FloatArray,
    colours: list[Colour],
    width: int,
) -> None:
    radius = (1.0 + 1.1 * width) * (1 << _SHIFT)
    dot, ring, line = round(radius), round(_RING * radius), max(1, width // 2)
    outer = ring + round((1 + 0.8 * line) * (1 << _SHIFT))
    holes = np.zeros(canvas.shape[:2], np.uint8)
    for point in points[visibility == OCCLUDED].tolist():
        cv2.circle(canvas, tuple(point), outer, OUTLINE, cv2.FILLED, cv2.LINE_AA, _SHIFT)
        cv2.circle(holes, tuple(point), ring, 255, cv2.FILLED, cv2.LINE_8, _SHIFT)
    cv2.copyTo(rgb, holes, canvas)
    for point, seen, colour in zip(points.tolist(), visibility.tolist(), colours, strict=True):
        if seen != NOT_LABELLED:
            size, fill = (ring, line) if seen == OCCLUDED else (dot, cv2.FILLED)
            cv2.circle(canvas, tuple(point), size, colour, fill, cv2.LINE_AA, _SHIFT)


def _draw_box(canvas: Pixels, bbox_xyxy: FloatArray, width: int, is_crowd: bool) -> None:
    x0, y0, x1, y1 = bbox_xyxy.tolist()
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
    for a, b in pairwise(corners):
        dashes = max(1, round(float(np.abs(b - a).sum()) / (8 * width))) if is_crowd else 1
        stops = np.linspace(a, b, 2 * dashes)
        for start, end in zip(stops[::2], stops[1::2], strict=True):
            ends = tuple(_fixed(start).tolist()), tuple(_fixed(end).tolist())
            colour = CROWD_BOX if is_crowd else BOX
            cv2.line(canvas, *ends, colour, width, cv2.LINE_AA, _SHIFT)


def resized(rgb: Pixels, longer: int) -> Pixels:
    """``rgb`` resized so that its longer side has ``longer`` pixels."""
    scale = longer / max(rgb.shape[:2])
    width, height = (max(1, round(side * scale)) for side in rgb.shape[1::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)


def _scaled(instance: Instance, scale: FloatArray) -> Instance:
    keypoints = instance.keypoints * np.array([*scale, 1.0])
    box = instance.bbox_xyxy
    return Instance(
        keypoints,
        bbox_xyxy=None if box is None else box * np.tile(scale, 2),
        is_crowd=instance.is_crowd,
    )
