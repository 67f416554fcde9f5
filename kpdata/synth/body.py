"""A figure in 3D: proportions, clothes and a pose become round cones, ellipsoids and keypoints.

Lengths are in metres. In a figure's own frame x points to its *left*, y up and z forwards; the
world shares y, and a figure whose facing is 0 looks along the world's +z.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kpdata.core.skeletons import COCO17
from kpdata.synth.looks import (
    EYE,
    HAIR,
    MOUTH,
    SHIRT,
    SHOES,
    SKIN,
    STOOL,
    TROUSERS,
    Build,
    Clothes,
    sample_build,
    sample_clothes,
)
from kpdata.synth.poses import Limb, Pose, sample_pose

Array = npt.NDArray[np.float64]

_SIDES = ("left", "right")

PARTS = (
    "stool", "pelvis", "belly", "chest", "neck", "head", "hair", "nose", "mouth",
    *(f"{side}_{part}" for side in _SIDES for part in (
        "eye", "ear", "girdle", "upper_arm", "forearm", "hand", "thigh", "shin", "foot")),
)  # fmt: skip
"""Names of body parts; a part's number is its position."""


class Cone(NamedTuple):
    """A round cone: the hull of two spheres.

    Attributes:
        part: its number in PARTS.
        ends: (2, 3) the spheres' centres.
        radii: of the two spheres.
        materials: before and after ``cut``.
        cut: where the material changes, 0 at the first end and 1 at the second.
    """

    part: int
    ends: Array
    radii: tuple[float, float]
    materials: tuple[int, int]
    cut: float = 1.0

    @property
    def is_prop(self) -> bool:
        """Whether this is a thing rather than a part of the body."""
        return self.part == PARTS.index("stool")


class Ellipsoid(NamedTuple):
    """An ellipsoid.

    Attributes:
        part: its number in PARTS.
        centre: (3,).
        axes: (3, 3) whose columns are the semi-axes.
        material: a row of the palette.
    """

    part: int
    centre: Array
    axes: Array
    material: int


@dataclass
class Body:
    """A posed figure: what to draw, and where its keypoints are.

    Attributes:
        build, clothes: what it was made from.
        cones, ellipsoids: its parts.
        keypoints: (3,) world positions by COCO name.
        chest_frame: (3, 3) the chest's left, up and forward axes as columns.
        neck_top: (3,) where the head sits.
    """

    build: Build
    clothes: Clothes
    cones: list[Cone] = field(default_factory=list)
    ellipsoids: list[Ellipsoid] = field(default_factory=list)
    keypoints: dict[str, Array] = field(default_factory=dict)
    chest_frame: Array = field(default_factory=lambda: np.eye(3))
    neck_top: Array = field(default_factory=lambda: np.zeros(3))

    def add_cone(
        self,
        part: str,
        ends: tuple[Array, Array],
        radii: tuple[float, float],
        materials: tuple[int, int],
        cut: float = 1.0,
    ) -> None:
        """Append a round cone whose radii are in units of the stature."""
        r0, r1 = (radius * self.build.stature for radius in radii)
        self.cones.append(Cone(PARTS.index(part), np.array(ends), (r0, r1), materials, cut))

    def add_ellipsoid(
        self,
        part: str,
        centre: Array,
        frame: Array,
        semi: tuple[float, float, float],
        material: int,
    ) -> None:
        """Append an ellipsoid whose semi-axes along ``frame`` are in units of the stature."""
        axes = frame * (np.array(semi) * self.build.stature)
        self.ellipsoids.append(Ellipsoid(PARTS.index(part), centre, axes, material))

    def move(self, shift: Array) -> None:
        """Move everything by (3,) metres."""
        self.cones = [cone._replace(ends=cone.ends + shift) for cone in self.cones]
        self.ellipsoids = [blob._replace(centre=blob.centre + shift) for blob in self.ellipsoids]
        self.keypoints = {name: place + shift for name, place in self.keypoints.items()}

    def keypoint_array(self) -> Array:
        """(17, 3) world positions in COCO17's order."""
        return np.array([self.keypoints[name] for name in COCO17.keypoints])


def rotation(axis: int, degrees: float) -> Array:
    """(3, 3) right-handed turn about the x (0), y (1) or z (2) axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def sample_body(rng: np.random.Generator, facing: float) -> Body:
    """A random figure that stands on the ground (y = 0) over the origin.

    Args:
        rng: the source of all random choices.
        facing: degrees about y; 0 looks along +z, 90 along +x.
    """
    return pose_body(sample_build(rng), sample_clothes(rng), sample_pose(rng), facing)


def pose_body(build: Build, clothes: Clothes, pose: Pose, facing: float) -> Body:
    """The figure of this build and clothes in this pose, its lowest part on the ground."""
    body = Body(build, clothes)
    root = rotation(1, facing) @ rotation(0, pose.tilt)
    _add_torso(body, pose, root)
    for index, side in enumerate(_SIDES):
        _add_arm(body, side, pose.arms[index])
        _add_leg(body, side, pose.legs[index], root)
    _add_head(body, pose)
    _set_down(body, pose)
    return body


def _add_torso(body: Body, pose: Pose, root: Array) -> None:
    unit, girth, build = body.build.stature, body.build.girth, body.build
    half = (
        root @ rotation(1, pose.turn / 2) @ rotation(0, pose.stoop / 2) @ rotation(2, pose.sway / 2)
    )
    chest = root @ rotation(1, pose.turn) @ rotation(0, pose.stoop) @ rotation(2, pose.sway)
    waist = half @ [0, 0.095 * unit, 0]
    neck = waist + chest @ [0, 0.195 * unit, -0.01 * unit]
    body.chest_frame = chest
    for sign, side in zip((1, -1), _SIDES, strict=True):
        body.keypoints[f"{side}_hip"] = root @ [sign * 0.053 * build.hips * unit, 0, 0]
        shoulder = neck + chest @ [
            sign * 0.112 * build.shoulders * unit,
            -0.022 * unit,
            0.008 * unit,
        ]
        body.keypoints[f"{side}_shoulder"] = shoulder
    width = 0.094 * build.hips * girth
    body.add_ellipsoid(
        "pelvis", half @ [0, 0.012 * unit, 0], half, (width, 0.07, 0.064 * girth), TROUSERS
    )
    width = 0.041 * (build.hips + build.shoulders) * girth
    body.add_ellipsoid(
        "belly", waist + half @ [0, 0.012 * unit, 0], half, (width, 0.105, 0.06 * girth), SHIRT
    )
    width = 0.1 * build.shoulders * (0.4 + 0.6 * girth)
    middle = waist + chest @ [0, 0.095 * unit, 0.004 * unit]
    body.add_ellipsoid("chest", middle, chest, (width, 0.122, 0.027 + 0.038 * girth), SHIRT)
    body.neck_top = neck + chest @ [0, 0.075 * unit, 0.012 * unit]
    body.add_cone("neck", (neck, body.neck_top), (0.032, 0.029), (SKIN, SKIN))


def _limb_frame(frame: Array, side: str, limb: Limb) -> Array:
    sign = 1 if side == "left" else -1
    swing = rotation(0, -limb.flex) @ rotation(2, sign * limb.abduct)
    return frame @ swing @ rotation(1, -sign * limb.twist)


def _add_arm(body: Body, side: str, limb: Limb) -> None:
    unit, girth = body.build.stature, 0.35 + 0.65 * body.build.girth
    upper = _limb_frame(body.chest_frame, side, limb)
    lower = upper @ rotation(0, -limb.bend)
    down = np.array([0.0, -unit * body.build.arms, 0.0])
    raised = max(0.0, -float(upper[:, 1] @ body.chest_frame[:, 1]))
    shoulder = body.keypoints[f"{side}_shoulder"] + body.chest_frame[:, 1] * raised * 0.03 * unit
    body.keypoints[f"{side}_shoulder"] = shoulder
    ends = body.neck_top - body.chest_frame[:, 1] * 0.085 * unit, shoulder
    body.add_cone(f"{side}_girdle", ends, (0.036, 0.03 * girth), (SHIRT, SHIRT))
    elbow = shoulder + upper @ down * 0.18
    wrist = elbow + lower @ down * 0.15
    body.keypoints[f"{side}_elbow"], body.keypoints[f"{side}_wrist"] = elbow, wrist
    sleeve = body.clothes.sleeve
    radii = 0.031 * girth, 0.025 * girth
    body.add_cone(f"{side}_upper_arm", (shoulder, elbow), radii, (SHIRT, SKIN), min(sleeve, 1))
    radii = 0.025 * girth, 0.0165 * girth
    body.add_cone(f"{side}_forearm", (elbow, wrist), radii, (SHIRT, SKIN), max(sleeve - 1, -1))
    knuckles, tips = (lower @ down * reach for reach in (0.045, 0.085))
    hand = f"{side}_hand"
    body.add_cone(hand, (wrist, wrist + knuckles), (0.015, 0.02), (SKIN, SKIN))
    body.add_cone(hand, (wrist + knuckles, wrist + tips), (0.019, 0.01), (SKIN, SKIN))


def _add_leg(body: Body, side: str, limb: Limb, root: Array) -> None:
    unit, girth = body.build.stature, 0.3 + 0.7 * body.build.girth
    upper = _limb_frame(root, side, limb)
    lower = upper @ rotation(0, limb.bend)
    down = np.array([0.0, -unit * body.build.legs, 0.0])
    hip = body.keypoints[f"{side}_hip"]
    knee = hip + upper @ down * 0.245
    ankle = knee + lower @ down * 0.245
    body.keypoints[f"{side}_knee"], body.keypoints[f"{side}_ankle"] = knee, ankle
    leg = body.clothes.leg
    radii = 0.052 * girth, 0.034 * girth
    body.add_cone(f"{side}_thigh", (hip, knee), radii, (TROUSERS, SKIN), min(leg, 1))
    radii = 0.034 * girth, 0.023 * girth
    body.add_cone(f"{side}_shin", (knee, ankle), radii, (TROUSERS, SKIN), max(leg - 1, -1))
    heel = ankle + lower @ [0, -0.022 * unit, -0.012 * unit]
    toe = ankle + lower @ [0, -0.028 * unit, 0.085 * unit]
    body.add_cone(f"{side}_foot", (heel, toe), (0.022, 0.0155), (SHOES, SHOES))


def _add_head(body: Body, pose: Pose) -> None:
    turn, nod, roll = pose.head
    frame = body.chest_frame @ rotation(1, turn) @ rotation(0, nod) @ rotation(2, roll)
    size = body.build.head
    unit = body.build.stature * size
    centre = body.neck_top + frame @ [0, 0.04 * unit, 0.008 * unit]

    def place(x: float, y: float, z: float) -> Array:
        return centre + frame @ (np.array([x, y, z]) * unit)

    def blob(part: str, at: Array, semi: tuple[float, float, float], material: int) -> None:
        body.add_ellipsoid(
            part, at, frame, (semi[0] * size, semi[1] * size, semi[2] * size), material
        )

    blob("head", centre, (0.043, 0.064, 0.054), SKIN)
    blob("hair", place(0, 0.012, -0.01), (0.0455, 0.06, 0.053), HAIR)
    if body.build.long_hair:
        blob("hair", place(0, -0.03, -0.032), (0.046, 0.07, 0.03), HAIR)
    tip = place(0, -0.008, 0.057)
    body.keypoints["nose"] = tip
    body.add_cone(
        "nose", (place(0, 0.012, 0.049), tip), (0.005 * size, 0.0095 * size), (SKIN, SKIN)
    )
    blob("mouth", place(0, -0.033, 0.0435), (0.016, 0.0045, 0.006), MOUTH)
    for sign, side in zip((1, -1), _SIDES, strict=True):
        eye, ear = place(sign * 0.0175, 0.012, 0.0475), place(sign * 0.043, -0.004, -0.002)
        body.keypoints[f"{side}_eye"], body.keypoints[f"{side}_ear"] = eye, ear
        blob(f"{side}_eye", eye, (0.0085, 0.006, 0.005), EYE)
        blob(f"{side}_ear", ear, (0.007, 0.0165, 0.011), SKIN)


def _set_down(body: Body, pose: Pose) -> None:
    ends = np.array([cone.ends[:, 1] for cone in body.cones])
    lowest = (ends - np.array([cone.radii for cone in body.cones])).min()
    lowest = min(
        lowest, *(blob.centre[1] - np.linalg.norm(blob.axes[1]) for blob in body.ellipsoids)
    )
    body.move(np.array([0.0, pose.lift * body.build.stature - lowest, 0.0]))
    if pose.seated:
        seat = (body.keypoints["left_hip"] + body.keypoints["right_hip"]) / 2
        top = seat - [0, 0.15 * body.build.stature, 0]
        foot = top * [1, 0, 1] + [0, 0.05, 0]
        body.add_cone("stool", (foot, top), (0.09, 0.09), (STOOL, STOOL))
