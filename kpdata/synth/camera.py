"""A pinhole camera over level ground, y = 0."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kpdata.synth.body import rotation

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Where the camera is and what it sees.

    Attributes:
        rotation: (3, 3) world → camera; the camera's x points right, y down, z forwards.
        eye: (3,) the camera's position in the world.
        focal: focal length in pixels.
        centre: (2,) the picture's centre in pixels.
    """

    rotation: Array
    eye: Array
    focal: float
    centre: Array

    def to_camera(self, world: Array) -> Array:
        """(..., 3) world → (..., 3) camera coordinates in metres."""
        return np.asarray((world - self.eye) @ self.rotation.T)

    def project(self, world: Array) -> tuple[Array, Array]:
        """(..., 3) world → (..., 2) continuous pixels and (...) depth in metres."""
        seen = self.to_camera(world)
        depth = seen[..., 2]
        return self.centre + self.focal * seen[..., :2] / depth[..., None], depth

    def ray(self, xy: Array) -> Array:
        """(3,) world offset from the eye to what is seen at ``xy``, at depth 1."""
        seen = np.array([*((xy - self.centre) / self.focal), 1.0])
        return np.asarray(self.rotation.T @ seen)

    def ground(self, x: float, depth: float, height: float) -> Array:
        """(3,) the world position at this column, depth and height above the ground."""
        right = (x - self.centre[0]) / self.focal * depth
        level = self.rotation[:, 1]
        down = (height - self.eye[1] - level[0] * right - level[2] * depth) / level[1]
        return np.asarray(self.eye + self.rotation.T @ np.array([right, down, depth]))

    @property
    def horizon(self) -> float:
        """The row at which level ground ends, in the picture's middle column."""
        up = self.rotation[:, 1]
        return float(self.centre[1] - self.focal * up[2] / up[1])


def turned(pitch: float, roll: float) -> Array:
    """(3, 3) rotation of a camera that looks along the world's −z.

    Args:
        pitch: degrees downwards.
        roll: degrees clockwise.
    """
    level = np.diag([1.0, -1.0, -1.0])
    return rotation(2, -roll) @ rotation(0, pitch) @ level
