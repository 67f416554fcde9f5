"""Make one picture: place figures before a camera, draw them, add occluders, label, and expose."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from kpdata.core.errors import SchemaError
from kpdata.core.sample import VISIBLE, ImageRef, Instance, Sample
from kpdata.images import codec
from kpdata.synth import paint
from kpdata.synth.backgrounds import Image, draw_background
from kpdata.synth.body import Body, sample_body
from kpdata.synth.camera import Camera, turned
from kpdata.synth.labels import label_figure, mask_box
from kpdata.synth.occluders import add_occluder
from kpdata.synth.paint import SUPERSAMPLE
from kpdata.synth.raster import BACKDROP, Mask, Raster

MAX_FIGURES = 3
_FIGURES_ODDS = (0.6, 0.28, 0.12)
_JPEG_QUALITY = 92
_MIN_SIDE = 32
_MIN_SHOWN = 3  # visible keypoints of every figure
_NEAREST = 0.6  # metres before the camera


class Scene(NamedTuple):
    """The figures, and the camera that sees them."""

    camera: Camera
    bodies: list[Body]


def samples(count: int, seed: int = 0, size: tuple[int, int] = (320, 240)) -> Iterator[Sample]:
    """Simulated pictures of articulated figures, with exact COCO17 labels.

    Picture i depends on ``seed``, i and ``size`` only, never on ``count``. A keypoint's place is
    its projection; it is visible (2) where its own part of the body is the frontmost surface,
    occluded (1) behind the figure itself, another figure or an occluder, and not labelled (0)
    outside the picture. Boxes and areas are those of the figure's silhouette within the picture,
    including what is hidden behind something else.

    Args:
        count: how many.
        seed: another seed gives other pictures.
        size: width and height in pixels, at least 32 each.

    Yields:
        Samples with keys ``1`` … ``count`` that hold their pictures as JPEG bytes.

    Raises:
        SchemaError: the size is too small.
    """
    width, height = size
    if min(size) < _MIN_SIDE:
        raise SchemaError(f"size is {width}x{height}: expected at least {_MIN_SIDE} pixels a side")
    for index in range(count):
        yield _sample(index, np.random.default_rng([seed, index]), width, height)


def _sample(index: int, rng: np.random.Generator, width: int, height: int) -> Sample:
    instances: list[Instance] = []
    while not instances or min(_num_visible(instance) for instance in instances) < _MIN_SHOWN:
        picture, instances = draw_picture(rng, sample_scene(rng, width, height), width, height)
    data = codec.encode(picture, "jpeg", _JPEG_QUALITY)
    name = f"{index + 1:06d}.jpg"
    image = ImageRef(name, width=width, height=height, data=data, format="jpeg")
    first_id = index * MAX_FIGURES + 1
    numbered = (replace(one, id=first_id + n) for n, one in enumerate(instances))
    return Sample(str(index + 1), image, tuple(numbered))


def _num_visible(instance: Instance) -> int:
    return int(np.count_nonzero(instance.visibility == VISIBLE))


def sample_scene(rng: np.random.Generator, width: int, height: int) -> Scene:
    """One to three random figures on level ground, and a camera that looks at the first."""
    number = 1 + int(rng.choice(MAX_FIGURES, p=_FIGURES_ODDS))
    while True:
        bodies = [sample_body(rng, float(rng.uniform(0, 360))) for _ in range(number)]
        camera, depth = _aim(rng, bodies[0], width, height)
        _place_others(rng, bodies, camera, depth, width)
        nearest = min(camera.project(body.keypoint_array())[1].min() for body in bodies)
        if nearest > _NEAREST and camera.eye[1] > 0.1:
            return Scene(camera, bodies)


def _aim(rng: np.random.Generator, body: Body, width: int, height: int) -> tuple[Camera, float]:
    """A camera before ``body``, and the body's depth."""
    focal = height * rng.uniform(1.1, 2.6)
    share = rng.uniform(0.95, 1.5) if rng.random() < 0.12 else rng.uniform(0.55, 0.98)
    depth = focal * body.build.stature / (share * height)
    pitch = rng.uniform(15, 45) if rng.random() < 0.12 else rng.normal(4, 6)
    centre = np.array([width / 2, height / 2])
    middle = body.keypoint_array().mean(axis=0)
    rotation = turned(float(pitch), float(rng.normal(0, 2.5)))
    camera = Camera(rotation, np.zeros(3), focal, centre)
    room = np.array([width, height]) * [0.3, 0.06] * (2 if rng.random() < 0.15 else 1)
    aim = centre + rng.uniform(-room, room)
    eye = middle - camera.ray(aim) * depth
    return replace(camera, eye=eye), depth


def _place_others(
    rng: np.random.Generator, bodies: list[Body], camera: Camera, depth: float, width: int
) -> None:
    columns = [float(camera.project(bodies[0].keypoint_array())[0][:, 0].mean())]
    for body in bodies[1:]:
        free = [x for x in rng.uniform(0.05, 0.95, 12) * width if _apart(x, columns, width)]
        columns.append(float(free[0]) if free else float(rng.uniform(0, width)))
        spot = camera.ground(columns[-1], depth * float(rng.uniform(0.85, 1.5)), 0.0)
        body.move(spot * [1, 0, 1])


def _apart(x: float, columns: list[float], width: int) -> bool:
    return all(abs(x - other) > 0.2 * width for other in columns)


def draw_picture(
    rng: np.random.Generator, scene: Scene, width: int, height: int
) -> tuple[Image, list[Instance]]:
    """Draw a scene before a random background, behind random occluders.

    Returns:
        The picture (H, W, 3) and an instance per figure that lies at least partly within it.
    """
    camera, bodies = scene
    sun = paint.sample_sun(rng)
    picture = draw_background(rng, width, height, camera.horizon)
    paint.cast_shadows(picture, bodies, camera, sun)
    enlarged = cv2.resize(picture, None, fx=SUPERSAMPLE, fy=SUPERSAMPLE)
    canvas = np.asarray(enlarged, np.uint8)
    raster = Raster(width * SUPERSAMPLE, height * SUPERSAMPLE)
    light = sun.on_screen(camera)
    silhouettes = [
        paint.draw_figure(raster, body, number, camera, light) for number, body in enumerate(bodies)
    ]
    paint.colour_figures(canvas, raster, bodies, camera)
    _occlude(rng, canvas, raster, silhouettes)
    instances = [
        label_figure(raster, body, number, camera, silhouette)
        for number, (body, silhouette) in enumerate(zip(bodies, silhouettes, strict=True))
        if silhouette.any()
    ]
    return paint.expose(rng, canvas), instances


def _occlude(
    rng: np.random.Generator, canvas: Image, raster: Raster, silhouettes: list[Mask]
) -> None:
    """Paint an occluder before a third of the figures; its pixels belong to no figure."""
    for silhouette in silhouettes:
        if silhouette.any() and rng.random() < 0.35:
            covered = add_occluder(rng, canvas, mask_box(silhouette))
            raster.label[covered] = BACKDROP
