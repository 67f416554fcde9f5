"""Leeds Sports Pose and its extension: MATLAB files of 14 keypoints, 1-based pixels.

The two files look alike but mean opposite things: LSP holds (3, 14, N) and its flag 1 means
*occluded*; LSP extended holds (14, 3, N) and its flag 1 means *labelled*. The shape of the
array tells them apart.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import FormatError, located
from kpdata.core.sample import (
    NOT_LABELLED,
    OCCLUDED,
    VISIBLE,
    FloatArray,
    Instance,
    Rejected,
    Sample,
)
from kpdata.core.skeletons import LSP14
from kpdata.formats._lib import matlab
from kpdata.formats.base import LARGEST, Source, find_images, image_ref
from kpdata.storage.stores import Location

MAX_BYTES = 64 << 20
"""Larger files are refused, inflated or not: the real ones hold under 4 MiB."""

_SHAPES = {"lsp": (3, 14), "lspet": (14, 3)}
_OTHER = {"lsp": "lspet", "lspet": "lsp"}
_OFFICIAL_COUNT, _OFFICIAL_TRAIN = 2000, 1000


def read(annotations: Path, images: Location | None = None) -> Source:
    """LSP: ``joints`` (3, 14, N). Flag 1 is occluded; with N = 2000, the first 1000 are train.

    Raises:
        FormatError: no images folder, or the file is not LSP's.
    """
    points = _load(annotations, "lsp").transpose(2, 1, 0)  # (N, 14, 3)
    visibility = np.where(points[..., 2] == 1, OCCLUDED, VISIBLE)
    official = len(points) == _OFFICIAL_COUNT
    return _source(annotations, images, points, visibility, "im{:04}.jpg", official)


def read_lspet(annotations: Path, images: Location | None = None) -> Source:
    """LSP extended: ``joints`` (14, 3, N). Flag 0 is missing; there is no official split.

    Raises:
        FormatError: no images folder, or the file is not LSP extended's.
    """
    points = _load(annotations, "lspet").transpose(2, 0, 1)  # (N, 14, 3)
    visibility = np.where(points[..., 2] == 1, VISIBLE, NOT_LABELLED)
    return _source(annotations, images, points, visibility, "im{:05}.jpg", official=False)


def _source(
    annotations: Path,
    images: Location | None,
    points: FloatArray,
    visibility: npt.NDArray[Any],
    file_name: str,
    official: bool,
) -> Source:
    root = find_images(annotations, images, [annotations.parent / "images"])
    return Source(
        skeleton=LSP14,
        samples=_samples(annotations, root, points, visibility, file_name, official),
        images_root=root,
        annotation_files=(annotations,),
        counts=Counter(),
        has_boxes=False,
    )


def _samples(
    annotations: Path,
    root: Location,
    points: FloatArray,
    visibility: npt.NDArray[Any],
    file_name: str,
    official: bool,
) -> Iterator[Sample | Rejected]:
    labelled = visibility[..., None] != NOT_LABELLED
    xy = np.where(labelled, points[..., :2] - 0.5, 0)  # (N, 14, 2)
    placed = np.abs(xy) <= LARGEST  # (N, 14, 2), False for NaN
    keypoints = np.concatenate([np.where(placed, xy, 0), visibility[..., None]], axis=2)
    usable = placed.all(axis=2) & np.isin(points[..., 2], (0, 1))  # (N, 14)
    for index in range(len(points)):
        name = file_name.format(index + 1)
        if usable[index].all():
            instance = Instance(keypoints[index], category="person")
            split = ("train" if index < _OFFICIAL_TRAIN else "test") if official else None
            yield Sample(name, image_ref(root, name), (instance,), split)
        else:
            keypoint = int(np.argmin(usable[index]))
            yield Rejected(
                name,
                "bad keypoints",
                f"{annotations}: joints of image {index + 1} ({name}): "
                f"{LSP14.keypoints[keypoint]} is {points[index, keypoint].tolist()}: "
                f"expected x and y within {LARGEST:g} pixels, and a flag of 0 or 1",
            )


def _load(path: Path, name: str) -> FloatArray:
    """``joints`` as float64, (3, 14, N) or (14, 3, N) as the format ``name`` has it."""
    data = matlab.read_file(path, MAX_BYTES)
    with located(str(path)):
        joints = matlab.read_array(data, "joints", MAX_BYTES)
        return joints.reshape(_full_shape(joints.shape, name))


def _full_shape(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    full = (*shape, 1) if len(shape) == 2 else shape  # MATLAB drops a last axis of 1
    if len(full) == 3 and full[:2] == _SHAPES[name] and full[2]:
        return full
    wanted = str(_SHAPES[name]).replace(")", ", N)")
    other = _OTHER[name]
    hint = f": this is {other}'s, read it as {other}" if full[:2] == _SHAPES[other] else ""
    raise FormatError(f"joints has shape {shape}, {name}'s is {wanted}{hint}")
