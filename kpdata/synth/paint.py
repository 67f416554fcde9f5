"""Paint bodies onto a canvas: shapes in the depth buffer, colours, cast shadows, exposure."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from kpdata.synth.backgrounds import noise, ramp
from kpdata.synth.body import PARTS, Array, Body
from kpdata.synth.camera import Camera
from kpdata.synth.looks import SHIRT
from kpdata.synth.raster import BACKDROP, Labels, Light, Mask, Raster

Image = npt.NDArray[np.uint8]

SUPERSAMPLE = 2
"""Canvas pixels per picture pixel, along each side."""

_MATERIALS = 8
_CODES = 256  # per figure: 32 parts of 8 materials


class Sun(NamedTuple):
    """The light of a scene.

    Attributes:
        direction: (3,) unit vector towards it in the world.
        ambient, diffuse: as of :class:`~kpdata.synth.raster.Light`.
        shadow: how much of the ground's light a cast shadow takes away, 0 to 1.
    """

    direction: Array
    ambient: float
    diffuse: float
    shadow: float

    def on_screen(self, camera: Camera) -> Light:
        """This light as the raster counts directions."""
        x, y, z = (camera.rotation @ self.direction).tolist()
        return Light((x, y, -z), self.ambient, self.diffuse)


def sample_sun(rng: np.random.Generator) -> Sun:
    """A random light from above, soft or hard."""
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.4)
    direction = np.array(
        [np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)]
    )
    softness = rng.uniform(0.45, 0.75)
    return Sun(direction, softness, 1.12 - softness, float(rng.uniform(0.1, 0.9 - softness)))


def _code(figure: int, part: int, material: int) -> int:
    return 1 + figure * _CODES + part * _MATERIALS + material


def figure_of(label: npt.NDArray[np.uint16]) -> npt.NDArray[np.intp]:
    """Numbers of the figures in a label buffer, −1 for the background."""
    return (label.astype(np.intp) - 1) // _CODES


def part_of(label: npt.NDArray[np.uint16]) -> npt.NDArray[np.intp]:
    """Numbers of the parts in a label buffer."""
    return (label.astype(np.intp) - 1) % _CODES // _MATERIALS


def draw_figure(raster: Raster, body: Body, number: int, camera: Camera, light: Light) -> Mask:
    """Draw a body into the depth buffer; return its silhouette on the canvas.

    The silhouette holds all of the body that lies within the canvas, whatever is before it.
    """
    silhouette, props = np.zeros((2, *raster.depth.shape), np.bool_)
    spheres, scales = _screen_spheres(body, camera)
    for cone, ends, scale in zip(body.cones, spheres, scales.tolist(), strict=True):
        first, second = (_code(number, cone.part, material) for material in cone.materials)
        mask = props if cone.is_prop else silhouette
        raster.cone(ends, scale, light, Labels(first, second, cone.cut), mask)
    centres, depths = camera.project(np.array([blob.centre for blob in body.ellipsoids]))
    to_screen = np.diag([1.0, 1.0, -1.0]) @ camera.rotation
    for blob, xy, depth in zip(body.ellipsoids, centres, depths.tolist(), strict=True):
        scale = camera.focal * SUPERSAMPLE / depth
        x, y = (xy * SUPERSAMPLE).tolist()
        axes = to_screen @ blob.axes * scale
        code = _code(number, blob.part, blob.material)
        raster.ellipsoid((x, y, -depth * scale), axes, scale, light, code, silhouette)
    return silhouette


def _screen_spheres(body: Body, camera: Camera) -> tuple[Array, Array]:
    xy, depth = camera.project(np.array([cone.ends for cone in body.cones]))  # (N, 2, 2), (N, 2)
    radii = np.array([cone.radii for cone in body.cones])
    scales = camera.focal * SUPERSAMPLE / depth.mean(axis=1)  # (N,)
    spheres = np.empty((*depth.shape, 4))
    spheres[..., :2] = xy * SUPERSAMPLE
    spheres[..., 2] = -depth * scales[:, None]
    spheres[..., 3] = radii * camera.focal * SUPERSAMPLE / depth
    return spheres, scales


def colour_figures(canvas: Image, raster: Raster, bodies: list[Body], camera: Camera) -> None:
    """Paint what the raster holds onto the canvas (H, W, 3), in place."""
    at = np.flatnonzero(raster.label != BACKDROP)
    label, shade = raster.label.ravel()[at], raster.shade.ravel()[at]
    for number, body in enumerate(bodies):
        if body.clothes.stripe:
            shirts = [_code(number, part, SHIRT) for part in range(len(PARTS))]
            cloth = np.flatnonzero(np.isin(label, shirts))
            shade[cloth] *= _stripes(raster, body, camera, at[cloth])
    parts = _CODES // _MATERIALS
    palette = np.vstack([np.tile(body.clothes.palette, (parts, 1)) for body in bodies])
    colours = np.take(palette.astype(np.float32), label - 1, axis=0) * shade[:, None]
    canvas.reshape(-1, 3)[at] = np.minimum(colours, 255).astype(np.uint8)


def _stripes(
    raster: Raster, body: Body, camera: Camera, at: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    rows, columns = np.divmod(at, raster.depth.shape[1])
    axis = camera.rotation @ body.chest_frame[:, body.clothes.stripe_axis]
    x = ((columns + 0.5) / SUPERSAMPLE - camera.centre[0]) / camera.focal
    y = ((rows + 0.5) / SUPERSAMPLE - camera.centre[1]) / camera.focal
    along = (x * axis[0] + y * axis[1] + axis[2]) * raster.depth.ravel()[at]
    period = body.clothes.stripe * body.build.stature
    start = float(camera.to_camera(body.keypoints["left_shoulder"]) @ axis)
    return np.where((along - start) % period < 0.45 * period, 0.72, 1.0).astype(np.float32)


def cast_shadows(picture: Image, bodies: list[Body], camera: Camera, sun: Sun) -> None:
    """Darken the ground (y = 0) of a picture (H, W, 3) behind the bodies, in place."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for body in bodies:
        ends = np.array([cone.ends for cone in body.cones])  # (N, 2, 3)
        ends = ends - sun.direction * (ends[..., 1:2] / sun.direction[1])
        xy, depth = camera.project(ends)
        widths = 2 * np.array([cone.radii for cone in body.cones]) * camera.focal / depth
        points = np.round((xy - 0.5) * 16).clip(-30000, 30000).astype(int)
        before = np.flatnonzero(depth.min(axis=1) > 0.3)
        thick = widths[before].mean(axis=1).round().astype(int).clip(1, 255)
        for (a, b), width in zip(points[before].tolist(), thick.tolist(), strict=True):
            cv2.line(mask, a, b, 255, width, cv2.LINE_AA, 4)
    blur = max(0.8, picture.shape[0] / 120)
    soft = cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32) * (-sun.shadow / 255) + 1
    cv2.multiply(picture, cv2.merge([soft] * 3), picture, dtype=cv2.CV_8U)


def expose(rng: np.random.Generator, canvas: Image) -> Image:
    """Turn the canvas into a photograph: smaller, a little soft, unevenly lit and noisy."""
    height, width = canvas.shape[0] // SUPERSAMPLE, canvas.shape[1] // SUPERSAMPLE
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    sigma = rng.uniform(0, 0.9) * min(1.0, height / 240)
    if sigma > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    gains = rng.uniform(0.75, 1.15) * rng.normal(1, 0.04, 3)
    light = 1 + (ramp(rng, width, height) - 0.5) * np.float32(rng.uniform(0, 0.5))
    strength = float(rng.uniform(0.5, 4.5))
    grain = rng.standard_normal((height, width), np.float32) * np.float32(strength)
    channels = [
        channel * (light * np.float32(gain)) + grain + noise(rng, width, height, 2, strength / 2)
        for channel, gain in zip(cv2.split(picture), gains.tolist(), strict=True)
    ]
    exposed: Image = np.clip(cv2.merge(channels), 0, 255).astype(np.uint8)
    return exposed
