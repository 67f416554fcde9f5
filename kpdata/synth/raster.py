"""A depth buffer that draws shaded round cones and ellipsoids.

Screen space has x to the right and y down in canvas pixels (the first pixel's centre is at 0.5),
and w towards the viewer, also in canvas pixels: w = −depth · scale, where ``scale`` is pixels per
metre at the shape's own depth. Within one shape the view counts as parallel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

BACKDROP = 0
"""Label of a pixel that no shape covers."""


class Light(NamedTuple):
    """A far light.

    Attributes:
        direction: (3,) unit vector towards the light in screen space.
        ambient, diffuse: brightness in its shade, and what facing the light adds.
    """

    direction: tuple[float, float, float]
    ambient: float
    diffuse: float


class Labels(NamedTuple):
    """What a shape writes into the label buffer: ``before``, and ``after`` beyond ``cut``."""

    before: int
    after: int
    cut: float = 1.0


@dataclass
class _Window:
    rows: slice
    columns: slice
    x: Float32  # (1, w) pixel centres relative to the shape's anchor
    y: Float32  # (h, 1)


class Raster:
    """Buffers of one canvas, (H, W) each.

    Attributes:
        depth: metres from the camera, infinite where nothing is drawn.
        shade: brightness of the frontmost surface.
        label: number of the frontmost surface, BACKDROP where nothing is drawn.
    """

    def __init__(self, width: int, height: int):
        self.depth = np.full((height, width), np.inf, np.float32)
        self.shade = np.zeros((height, width), np.float32)
        self.label = np.zeros((height, width), np.uint16)

    def cone(
        self, spheres: Array, scale: float, light: Light, labels: Labels, silhouette: Mask
    ) -> None:
        """Draw the hull of two spheres and mark all its pixels in ``silhouette``.

        Along the axis, t from 0 to 1, the spheres' front is w(t) + √q(t) with the concave
        parabola q(t) = r(t)² − |p − c(t)|²; its largest value is the surface, in closed form.

        Args:
            spheres: (2, 4) x, y, w and radius of each end.
            scale: pixels per metre.
            light, labels: how to shade and what to write.
            silhouette: (H, W) mask of the whole figure, hidden parts included.
        """
        window = self._window(
            (spheres[:, :2] - spheres[:, 3:]).min(axis=0),
            (spheres[:, :2] + spheres[:, 3:]).max(axis=0),
            spheres[0, :2],
        )
        if window is None:
            return
        x, y = window.x, window.y
        (_, _, w0, r0), (_, _, w1, r1) = spheres.tolist()
        dx, dy = (spheres[1, :2] - spheres[0, :2]).tolist()
        length = dx * dx + dy * dy
        taper = 0.9 * length**0.5  # beyond it one disc would swallow the other
        dr, dw = min(max(r1 - r0, -taper), taper), w1 - w0
        alpha = max(length - dr * dr, 1e-4)
        q_0 = r0 * r0 - x * x - y * y
        slope = r0 * dr + x * dx + y * dy
        peak = np.sqrt(np.maximum(q_0 + slope * slope / alpha, 0))
        t = slope / alpha + peak * (dw / (alpha * (alpha + dw * dw)) ** 0.5)
        t = np.minimum(np.maximum(t, 0), 1)
        q = q_0 + t * (2 * slope - alpha * t)
        height = np.sqrt(np.maximum(q, 0))
        lx, ly, lw = light.direction
        lit = ((x - dx * t) * lx + (y - dy * t) * ly + height * lw) / (r0 + dr * t)
        label = np.where(t <= labels.cut, np.uint16(labels.before), np.uint16(labels.after))
        self._put(
            window, q > 0, (w0 + dw * t + height) * (-1 / scale), lit, light, label, silhouette
        )

    def ellipsoid(
        self,
        centre: tuple[float, float, float],
        axes: Array,
        scale: float,
        light: Light,
        label: int,
        silhouette: Mask,
    ) -> None:
        """Draw an ellipsoid and mark all its pixels in ``silhouette``.

        Args:
            centre: x, y and w.
            axes: (3, 3) whose columns are the semi-axes in screen space.
            scale, light, label, silhouette: as for a cone.
        """
        spread = axes @ axes.T
        reach = np.sqrt(np.diag(spread))[:2]
        anchor = np.array(centre[:2])
        window = self._window(anchor - reach, anchor + reach, anchor)
        if window is None:
            return
        x, y = window.x, window.y
        (xx, xy, xw), (_, yy, yw), (_, _, ww) = np.linalg.inv(spread).tolist()
        half = xw * x + yw * y
        discriminant = half * half - ww * (xx * x * x + (2 * xy) * x * y + yy * y * y - 1)
        root = np.sqrt(np.maximum(discriminant, 0))
        w = (root - half) / ww
        lx, ly, lw = light.direction
        nx, ny = xx * x + xy * y + xw * w, xy * x + yy * y + yw * w
        lit = (nx * lx + ny * ly + root * lw) / np.sqrt(nx * nx + ny * ny + root * root + 1e-12)
        depth = (centre[2] + w) * (-1 / scale)
        self._put(window, discriminant > 0, depth, lit, light, np.uint16(label), silhouette)

    def _window(self, low: Array, high: Array, anchor: Array) -> _Window | None:
        height, width = self.depth.shape
        x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
        x1, y1 = min(int(high[0]) + 1, width), min(int(high[1]) + 1, height)
        if x0 >= x1 or y0 >= y1:
            return None
        x = (np.arange(x0, x1) + (0.5 - anchor[0])).astype(np.float32)
        y = (np.arange(y0, y1) + (0.5 - anchor[1])).astype(np.float32)
        return _Window(slice(y0, y1), slice(x0, x1), x[None], y[:, None])

    def _put(
        self,
        window: _Window,
        inside: Mask,
        depth: Float32,
        lit: Float32,
        light: Light,
        label: npt.NDArray[np.uint16] | np.uint16,
        silhouette: Mask,
    ) -> None:
        at = window.rows, window.columns
        silhouette[at] |= inside
        front = inside & (depth < self.depth[at])
        np.copyto(self.depth[at], depth, where=front)
        np.copyto(self.shade[at], light.ambient + light.diffuse * np.maximum(lit, 0), where=front)
        np.copyto(self.label[at], label, where=front)
