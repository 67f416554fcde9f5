"""Poses of a figure: joint angles sampled from ranges, one set for each kind of pose.

A pose says what the *lead* side and the *trail* side do; which of them is left is random. All
angles are in degrees.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Range = tuple[float, float]


class Limb(NamedTuple):
    """Angles of an arm or a leg, 0 when it hangs straight down.

    Attributes:
        flex: swing forwards at the shoulder or hip.
        abduct: swing away from the body's middle.
        twist: turn inwards about the limb's own axis.
        bend: the elbow's or the knee's flexion.
    """

    flex: float
    abduct: float
    twist: float
    bend: float


class LimbRange(NamedTuple):
    """The range from which each angle of a :class:`Limb` is sampled."""

    flex: Range
    abduct: Range
    twist: Range
    bend: Range

    def sample(self, rng: np.random.Generator) -> Limb:
        """One limb from these ranges."""
        return Limb(*(float(rng.uniform(*bounds)) for bounds in self))


@dataclass(frozen=True)
class PoseRange:
    """The ranges of one kind of pose, and how often it occurs.

    Attributes:
        weight: how often, relative to the others.
        lead_arm, trail_arm, lead_leg, trail_leg: the limbs.
        stoop: how far the spine bends forwards.
        tilts: how far the whole figure may fall forwards; 0 stands, 90 lies face down.
        seated: on a stool.
        lift: height above the ground in units of the stature.
    """

    weight: float
    lead_arm: LimbRange
    trail_arm: LimbRange
    lead_leg: LimbRange
    trail_leg: LimbRange
    stoop: Range = (-4, 10)
    tilts: tuple[float, ...] = (0.0,)
    seated: bool = False
    lift: Range = (0, 0)


@dataclass(frozen=True)
class Pose:
    """Every angle of a figure, in degrees.

    Attributes:
        arms, legs: left and right.
        stoop, sway, turn: the spine's bend forwards, to the left, and its turn to the left.
        head: the head's turn to the left, nod forwards and tilt, relative to the chest.
        tilt: how far the whole figure falls forwards.
        seated: on a stool.
        lift: height above the ground in units of the stature.
    """

    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    stoop: float
    sway: float
    turn: float
    head: tuple[float, float, float]
    tilt: float
    seated: bool
    lift: float


HANGING = LimbRange((-12, 18), (6, 18), (-10, 35), (5, 40))
RAISED = LimbRange((150, 180), (5, 28), (-20, 20), (0, 60))
SIDEWAYS = LimbRange((-10, 20), (65, 115), (-20, 20), (0, 50))
ON_HIP = LimbRange((-30, -15), (38, 50), (55, 75), (95, 110))
FOLDED = LimbRange((18, 35), (5, 15), (45, 65), (85, 105))
POINTING = LimbRange((60, 105), (0, 25), (-10, 15), (0, 25))
TO_FACE = LimbRange((25, 50), (8, 25), (15, 40), (115, 135))
FORWARD = LimbRange((20, 45), (4, 12), (10, 35), (15, 55))
BACKWARD = LimbRange((-42, -18), (5, 14), (0, 20), (5, 30))
RUN_FORWARD = LimbRange((15, 50), (6, 16), (10, 40), (80, 110))
RUN_BACKWARD = LimbRange((-65, -30), (8, 22), (0, 30), (70, 105))
ON_LAP = LimbRange((20, 45), (5, 20), (10, 35), (35, 75))

STRAIGHT = LimbRange((-4, 8), (1, 9), (-15, 5), (0, 9))
ASTRIDE = LimbRange((-6, 12), (16, 32), (-25, 0), (0, 18))
STEP_FORWARD = LimbRange((14, 34), (0, 5), (-10, 5), (2, 22))
STEP_BACKWARD = LimbRange((-26, -8), (0, 5), (-10, 5), (5, 45))
SPRINT_FORWARD = LimbRange((40, 80), (0, 6), (-8, 5), (50, 105))
SPRINT_BACKWARD = LimbRange((-35, -8), (0, 6), (-8, 5), (10, 95))
SITTING = LimbRange((76, 94), (3, 18), (-12, 8), (65, 100))
SQUATTING = LimbRange((85, 115), (10, 26), (-20, 0), (100, 130))
KNEELING = LimbRange((-8, 12), (0, 8), (-8, 5), (84, 98))
LUNGING = LimbRange((60, 90), (2, 12), (-10, 5), (70, 95))
KICKING = LimbRange((35, 95), (0, 25), (-10, 10), (0, 40))

POSES = {
    "stand": PoseRange(3, HANGING, HANGING, STRAIGHT, STRAIGHT),
    "hands on hips": PoseRange(0.8, ON_HIP, ON_HIP, STRAIGHT, STRAIGHT),
    "arms folded": PoseRange(0.8, FOLDED, FOLDED, STRAIGHT, STRAIGHT),
    "point": PoseRange(1, POINTING, HANGING, STRAIGHT, STEP_FORWARD),
    "telephone": PoseRange(0.8, TO_FACE, HANGING, STRAIGHT, STRAIGHT),
    "wave": PoseRange(1, RAISED, HANGING, STRAIGHT, STRAIGHT),
    "arms up": PoseRange(1, RAISED, RAISED, STRAIGHT, ASTRIDE),
    "star": PoseRange(1, SIDEWAYS, SIDEWAYS, ASTRIDE, ASTRIDE, lift=(0, 0.12)),
    "walk": PoseRange(3, BACKWARD, FORWARD, STEP_FORWARD, STEP_BACKWARD, (0, 10)),
    "run": PoseRange(
        2, RUN_BACKWARD, RUN_FORWARD, SPRINT_FORWARD, SPRINT_BACKWARD, (8, 25), lift=(0, 0.06)
    ),
    "kick": PoseRange(0.7, BACKWARD, SIDEWAYS, KICKING, STRAIGHT, (-15, 10)),
    "lunge": PoseRange(0.8, FORWARD, ON_HIP, LUNGING, STEP_BACKWARD, (0, 25)),
    "sit": PoseRange(1.6, ON_LAP, ON_LAP, SITTING, SITTING, (-5, 25), seated=True),
    "squat": PoseRange(0.8, POINTING, POINTING, SQUATTING, SQUATTING, (25, 50)),
    "kneel": PoseRange(0.6, ON_LAP, HANGING, LUNGING, KNEELING, (0, 20)),
    "stoop": PoseRange(0.8, FORWARD, FORWARD, STRAIGHT, STRAIGHT, (35, 75)),
    "lie": PoseRange(0.6, RAISED, HANGING, STRAIGHT, STEP_FORWARD, tilts=(-90.0, 90.0)),
}
"""Kinds of pose by name."""

_NAMES = tuple(POSES)
_ODDS = np.array([pose.weight for pose in POSES.values()])
_ODDS /= _ODDS.sum()
_ARMS = (HANGING, RAISED, SIDEWAYS, ON_HIP, FOLDED, POINTING, TO_FACE, FORWARD)


def sample_pose(rng: np.random.Generator) -> Pose:
    """A random kind of pose, a random lead side, and angles from its ranges.

    One arm in five does something else instead.
    """
    ranges = POSES[_NAMES[rng.choice(len(_NAMES), p=_ODDS)]]
    lead_arm, trail_arm = (
        _ARMS[rng.integers(len(_ARMS))] if rng.random() < 0.2 else arm
        for arm in (ranges.lead_arm, ranges.trail_arm)
    )
    arms = lead_arm.sample(rng), trail_arm.sample(rng)
    legs = ranges.lead_leg.sample(rng), ranges.trail_leg.sample(rng)
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    stoop = float(rng.uniform(*ranges.stoop))
    return Pose(
        arms=arms,
        legs=legs,
        stoop=stoop,
        sway=float(rng.normal(0, 4)),
        turn=float(rng.normal(0, 8)),
        head=(
            float(rng.normal(0, 22)),
            float(rng.normal(3 - stoop / 2, 8)),
            float(rng.normal(0, 5)),
        ),
        tilt=float(rng.choice(ranges.tilts)),
        seated=ranges.seated,
        lift=float(rng.uniform(*ranges.lift)),
    )
