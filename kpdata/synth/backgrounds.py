"""Backgrounds of simulated pictures: studios, rooms, landscapes, textures and clutter."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
Colour = tuple[float, float, float]


def draw_background(rng: np.random.Generator, width: int, height: int, horizon: float) -> Image:
    """(H, W, 3) RGB, one of BACKGROUNDS, with grain.

    Args:
        rng: the source of all random choices.
        width, height: pixels.
        horizon: the row where level ground ends for the camera; may lie outside the picture.
    """
    wall_foot = float(np.clip(horizon + rng.uniform(0, 0.2) * height, 0, 0.85 * height))
    names = tuple(BACKGROUNDS)
    image = BACKGROUNDS[names[rng.integers(len(names))]](rng, width, height, wall_foot)
    grain = noise(rng, width, height, float(rng.uniform(3, 40)), float(rng.uniform(1, 7)))
    return np.asarray(cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U), np.uint8)


def noise(rng: np.random.Generator, width: int, height: int, cell: float, sigma: float) -> Plane:
    """(H, W) smooth noise with blobs of about ``cell`` pixels."""
    shape = max(2, round(height / cell)), max(2, round(width / cell))
    coarse = rng.standard_normal(shape, np.float32) * np.float32(sigma)
    smooth = cv2.INTER_CUBIC if cell > 4 else cv2.INTER_LINEAR
    plane = cv2.resize(coarse, (width, height), interpolation=smooth)
    return np.asarray(plane, np.float32)


def ramp(rng: np.random.Generator, width: int, height: int) -> Plane:
    """(H, W) from 0 to 1 along a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(np.sin(angle))
    plane = x[None] + y[:, None]
    scaled: Plane = (plane - plane.min()) / np.ptp(plane)
    return scaled


def colour(rng: np.random.Generator, low: float = 0, high: float = 255) -> Colour:
    """An RGB colour whose channels lie between ``low`` and ``high``."""
    red, green, blue = rng.uniform(low, high, 3).tolist()
    return red, green, blue


def muted(rng: np.random.Generator, low: float, high: float) -> Colour:
    """An RGB colour near grey."""
    grey = rng.uniform(low, high)
    red, green, blue = (grey + rng.normal(0, 14, 3)).clip(0, 255).tolist()
    return red, green, blue


def _blend(first: Colour, second: Colour, weight: Plane) -> Image:
    channels = [
        (weight * np.float32(b - a) + np.float32(a)).astype(np.uint8)
        for a, b in zip(first, second, strict=True)
    ]
    return np.asarray(cv2.merge(channels), np.uint8)


def _upright(width: int, height: int, top: float, bottom: float) -> Plane:
    rows = np.arange(height, dtype=np.float32)[:, None]
    weight = ((rows - top) / np.float32(max(bottom - top, 1))).clip(0, 1)
    return np.broadcast_to(weight, (height, width))


def _polygon(image: Image, xy: npt.ArrayLike, fill: Colour) -> None:
    points = np.round(np.asarray(xy, np.float64) * 16).astype(np.int32)
    cv2.fillPoly(image, [points.reshape(-1, 1, 2)], fill, cv2.LINE_AA, 4)


def _studio(rng: np.random.Generator, width: int, height: int, foot: float) -> Image:
    image = _blend(muted(rng, 40, 235), muted(rng, 40, 235), ramp(rng, width, height))
    if rng.random() < 0.5:
        sweep = _blend(
            muted(rng, 60, 220), muted(rng, 60, 220), _upright(width, height, foot, height)
        )
        blend = _upright(width, height, foot - 12, foot + 25)[..., None]
        image = (image * (1 - blend) + sweep * blend).astype(np.uint8)
    return image


def _room(rng: np.random.Generator, width: int, height: int, foot: float) -> Image:
    image = _blend(muted(rng, 90, 240), muted(rng, 90, 240), ramp(rng, width, height))
    floor = muted(rng, 40, 190)
    image[int(foot) :] = floor
    eye = rng.uniform(0.2, 0.8) * width, foot - rng.uniform(0.2, 0.6) * height
    seam = 0.8 * floor[0], 0.8 * floor[1], 0.8 * floor[2]
    for x in np.arange(-width, 2 * width, rng.uniform(25, 70)):
        near = eye[0] + (x - eye[0]) * 4, eye[1] + (foot - eye[1]) * 4
        if rng.random() < 0.9:
            _line(image, (x, foot), near, seam)
    for _ in range(rng.integers(0, 5)):
        _furniture(rng, image, foot)
    skirting = muted(rng, 60, 240)
    cv2.rectangle(image, (0, int(foot) - 4), (width, int(foot)), skirting, -1)
    return image


def _line(image: Image, a: tuple[float, float], b: tuple[float, float], fill: Colour) -> None:
    (xa, ya), (xb, yb) = ((round(x * 16), round(y * 16)) for x, y in (a, b))
    cv2.line(image, (xa, ya), (xb, yb), fill, 1, cv2.LINE_AA, 4)


def _furniture(rng: np.random.Generator, image: Image, foot: float) -> None:
    height, width = image.shape[:2]
    w, h = rng.uniform(0.08, 0.3) * width, rng.uniform(0.15, 0.5) * height
    x = rng.uniform(-0.1, 0.95) * width
    y = foot - h if rng.random() < 0.4 else foot - h - rng.uniform(0.15, 0.6) * height
    box = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    _polygon(image, box, muted(rng, 30, 230))
    inner = box.mean(axis=0) + (box - box.mean(axis=0)) * rng.uniform(0.7, 0.92)
    _polygon(image, inner, colour(rng, 40, 250))


def _landscape(rng: np.random.Generator, width: int, height: int, foot: float) -> Image:
    blue, haze = rng.uniform([70, 120, 170], [150, 190, 250]), rng.uniform(170, 245, 3)
    image = _blend(tuple(blue), tuple(haze), _upright(width, height, 0, foot))
    for _ in range(rng.integers(0, 4)):
        centre = rng.uniform(0, width), rng.uniform(0, max(foot, 1))
        size = rng.uniform(15, 70), rng.uniform(4, 16)
        cv2.ellipse(image, (centre, size, 0), (236, 238, 240), -1, cv2.LINE_AA)
    for distance in (0.5, 1.0):
        _hills(rng, image, foot, distance)
    near, far = ((rng.uniform(50, 130), rng.uniform(80, 150), rng.uniform(30, 90)) for _ in "nf")
    if rng.random() < 0.4:
        near, far = muted(rng, 80, 190), muted(rng, 80, 190)
    ground = _blend(far, near, _upright(width, height, foot, height))
    turf = noise(rng, width, height, 4, 9)
    ground = np.asarray(cv2.add(ground, cv2.merge([turf] * 3), dtype=cv2.CV_8U), np.uint8)
    image[int(foot) :] = ground[int(foot) :]
    return image


def _hills(rng: np.random.Generator, image: Image, foot: float, nearness: float) -> None:
    width = image.shape[1]
    x = np.linspace(0, width, 24)
    phases, waves = rng.uniform(0, 6, 3), np.array([1, 2.3, 5.1]) * rng.uniform(0.6, 1.4)
    swell = np.sin(x[:, None] / width * 6 * waves + phases) @ [1, 0.5, 0.25]
    crest = foot - (swell + 2) * rng.uniform(2, 14)
    outline = np.vstack([np.column_stack([x, crest]), [[width, foot + 2], [0, foot + 2]]])
    green = np.array([90, 120, 80]) * (1.3 - 0.6 * nearness) + rng.normal(0, 12, 3)
    _polygon(image, outline, tuple(green.clip(0, 255)))
    for _ in range(rng.integers(0, 6)):
        size = rng.uniform(8, 45), rng.uniform(15, 60)
        centre = rng.uniform(0, width), foot - size[1] / 3
        leaf = (rng.uniform([25, 60, 20], [80, 120, 60]) * (1.3 - 0.5 * nearness)).tolist()
        cv2.ellipse(image, (centre, size, rng.uniform(-10, 10)), tuple(leaf), -1, cv2.LINE_AA)


def _texture(rng: np.random.Generator, width: int, height: int, foot: float) -> Image:
    channels = []
    shared = noise(rng, width, height, float(rng.uniform(10, 80)), float(rng.uniform(10, 45)))
    fine = noise(rng, width, height, float(rng.uniform(1.5, 8)), float(rng.uniform(3, 25)))
    for mean in rng.uniform(50, 200, 3).tolist():
        own = noise(rng, width, height, float(rng.uniform(15, 90)), float(rng.uniform(5, 35)))
        channels.append(shared + fine + own + np.float32(mean))
    return np.asarray(cv2.merge(channels).clip(0, 255), np.uint8)


def _clutter(rng: np.random.Generator, width: int, height: int, foot: float) -> Image:
    image = _blend(colour(rng), colour(rng), ramp(rng, width, height))
    for _ in range(rng.integers(8, 40)):
        centre = rng.uniform(0, [width, height])
        radius = rng.uniform(4, 0.22 * width)
        fill = colour(rng)
        if rng.random() < 0.4:
            size = radius * 2, radius * rng.uniform(0.3, 2)
            box = (tuple(centre.tolist()), size, rng.uniform(0, 180))
            cv2.ellipse(image, box, fill, -1, cv2.LINE_AA)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            spokes = np.column_stack([np.cos(angles), np.sin(angles)])
            _polygon(image, centre + spokes * radius, fill)
    return image


BACKGROUNDS: dict[str, Callable[[np.random.Generator, int, int, float], Image]] = {
    "studio": _studio,
    "room": _room,
    "landscape": _landscape,
    "texture": _texture,
    "clutter": _clutter,
}
"""Kinds of background by name, all equally frequent."""
