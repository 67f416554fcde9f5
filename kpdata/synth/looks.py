"""The look of a figure: proportions, skin, hair and clothes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SKIN, SHIRT, TROUSERS, SHOES, HAIR, EYE, MOUTH, STOOL = range(8)
"""Materials: rows of a figure's palette."""


@dataclass(frozen=True)
class Build:
    """Proportions: stature in metres, and factors on an average body."""

    stature: float
    girth: float
    shoulders: float
    hips: float
    legs: float
    arms: float
    head: float
    long_hair: bool


@dataclass(frozen=True)
class Clothes:
    """Colours and cuts.

    Attributes:
        palette: (8, 3) RGB by material, 0 to 255.
        sleeve: how much of the arm is shirt, 0 to 2 (1 ends at the elbow).
        leg: how much of the leg is trousers, likewise.
        stripe: the shirt's stripes: their period in units of the stature, 0 without any.
        stripe_axis: 0 for upright stripes, 1 for level ones.
    """

    palette: Array
    sleeve: float
    leg: float
    stripe: float
    stripe_axis: int


def sample_build(rng: np.random.Generator) -> Build:
    """Random proportions, from child to tall adult, slight to stout."""
    stature = float(rng.choice([rng.uniform(1.55, 1.95), rng.uniform(1.15, 1.55)], p=[0.85, 0.15]))
    factor = rng.normal(1, [0.12, 0.07, 0.08, 0.03, 0.03, 0.04]).clip(0.8, 1.3)
    girth, shoulders, hips, legs, arms, head = factor.tolist()
    childish = max(0.0, 1.6 - stature)
    return Build(
        stature,
        girth,
        shoulders,
        hips,
        legs,
        arms,
        head + 0.6 * childish,
        bool(rng.random() < 0.35),
    )


def sample_clothes(rng: np.random.Generator) -> Clothes:
    """Random skin, hair and clothes; the two sides of a body always look alike."""
    skins = np.array(
        [[244, 208, 182], [226, 178, 145], [190, 136, 100], [140, 92, 62], [88, 58, 42]]
    )
    hairs = np.array([[30, 24, 20], [70, 45, 28], [140, 98, 52], [205, 170, 110], [150, 145, 140]])
    dark = rng.uniform(15, 90, (2, 3))
    palette = np.array(
        [
            skins[rng.integers(len(skins))] * rng.uniform(0.92, 1.05),
            rng.uniform(20, 245, 3),
            rng.uniform(20, 130, 3) if rng.random() < 0.6 else rng.uniform(20, 235, 3),
            dark[0] if rng.random() < 0.7 else rng.uniform(150, 245, 3),
            hairs[rng.integers(len(hairs))] * rng.uniform(0.8, 1.1),
            dark[1] * 0.4,
            [0.0, 0.0, 0.0],
            rng.uniform(40, 200, 3),
        ]
    )
    palette[MOUTH] = palette[SKIN] * [0.75, 0.45, 0.45]
    return Clothes(
        palette.clip(0, 255),
        sleeve=float(rng.choice([rng.uniform(0.1, 0.3), rng.uniform(0.45, 0.8), 1.9])),
        leg=float(rng.choice([rng.uniform(0.4, 0.9), rng.uniform(1.7, 1.95)], p=[0.3, 0.7])),
        stripe=float(rng.uniform(0.03, 0.08)) if rng.random() < 0.3 else 0.0,
        stripe_axis=int(rng.integers(2)),
    )
