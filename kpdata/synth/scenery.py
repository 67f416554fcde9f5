"""What surrounds the figures: backgrounds behind them and occluders before them."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]


def draw_background(rng: np.random.Generator, width: int, height: int, horizon: float) -> Image:
    """(H, W, 3) RGB: a studio, a room, a landscape, a texture or clutter.

    Args:
        rng: where every choice comes from.
        width, height: pixels.
        horizon: the row where the ground ends, from the camera; may lie outside the picture.
    """
    horizon = float(np.clip(horizon, 0.12 * height, 0.85 * height))
    kind = _KINDS[rng.choice(len(_KINDS), p=_ODDS)]
    image = kind(rng, width, height, horizon)
    grain = _noise(rng, width, height, int(rng.integers(3, 40)), float(rng.uniform(2, 12)))
    return _to_bytes(image + grain)


def _studio(rng: np.random.Generator, width: int, height: int, horizon: float) -> npt.NDArray:  # type: ignore[type-arg]
    ramp = _ramp(rng, width, height)[..., None]
    return _colour(rng) * (1 - ramp) + _colour(rng) * ramp
