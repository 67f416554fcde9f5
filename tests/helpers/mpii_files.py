"""Files of MPII's layout, as SciPy writes them."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

EMPTY = np.zeros((0, 0))


def structs(rows: list[dict[str, Any]]) -> Any:
    """A MATLAB struct array, of shape (1, N)."""
    if not rows:
        return EMPTY
    names = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty((1, len(rows)), [(name, object) for name in names])
    for index, row in enumerate(rows):
        for name in names:
            array[0, index][name] = row.get(name, EMPTY)
    return array


def point(index: int, x: float, y: float, **more: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "id": index, **more}


def person(points: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    found = {"annopoints": structs([{"point": structs(points)}]), **more}
    return {"x1": 11, "y1": 21, "x2": 41, "y2": 61, **found}


def image(name: str, people: Any, **more: Any) -> dict[str, Any]:
    return {"image": structs([{"name": name}]), "annorect": people, **more}


def save(folder: Path, images: list[dict[str, Any]], train: Any = None, **options: Any) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    flags = np.ones((1, len(images)), np.uint8) if train is None else np.atleast_2d(train)
    release = structs([{"annolist": structs(images), "img_train": flags, "version": "12"}])
    path = folder / "mpii_human_pose_v1_u12_1.mat"
    scipy.io.savemat(path, {"RELEASE": release}, **options)
    return path
