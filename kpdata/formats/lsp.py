"""Leeds Sports Pose and its extension: MATLAB files of 14 keypoints, 1-based pixels.

The two look alike and differ in everything that matters: LSP holds (3, 14, N) and its flag 1 means
*occluded*; LSP extended holds (14, 3, N) and its flag 1 means *labelled*. The array's shape tells.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kpdata.errors import FormatError
from kpdata.formats.source import LARGEST, Source, find_images, image_ref, require_file
from kpdata.schema import NOT_LABELLED, OCCLUDED, VISIBLE, FloatArray, Instance, Rejected, Sample
from kpdata.skeletons import LSP14

MAX_BYTES = 256 << 20
"""Larger files are refused: the real ones hold under 4 MiB."""

_SHAPES = {"lsp": (3, 14), "lspet": (14, 3)}
_OTHER = {"lsp": "lspet", "lspet": "lsp"}
_NUMERIC = {"double", "single"} | {f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)}
_OFFICIAL_COUNT, _OFFICIAL_TRAIN = 2000, 1000


def read(annotations: Path, images: Path | None = None) -> Source:
    """LSP: ``joints`` (3, 14, N). Flag 1 is occluded; with N = 2000, the first 1000 are train.

    Raises:
        FormatError: no images folder, or the file is not LSP's.
    """
    points = _load(annotations, "lsp").transpose(2, 1, 0)  # (N, 14, 3)
    visibility = np.where(points[..., 2] == 1, OCCLUDED, VISIBLE)
    official = len(points) == _OFFICIAL_COUNT
    return _source(annotations, images, points, visibility, "im{:04}.jpg", official)


def read_lspet(annotations: Path, images: Path | None = None) -> Source:
    """LSP extended: ``joints`` (14, 3, N). Flag 0 is missing; there is no official split.

    Raises:
        FormatError: no images folder, or the file is not LSP extended's.
    """
    points = _load(annotations, "lspet").transpose(2, 0, 1)  # (N, 14, 3)
    visibility = np.where(points[..., 2] == 1, VISIBLE, NOT_LABELLED)
    return _source(annotations, images, points, visibility, "im{:05}.jpg", official=False)


def _source(
    annotations: Path,
    images: Path | None,
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
    root: Path,
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
    """``joints`` as float64, (3, 14, N) or (14, 3, N) as the format ``name`` has it.

    The header is checked before anything is loaded: scipy.io is not made for hostile files.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            _check_size_and_version(path, file.read(8))
            file.seek(0)
            shape = _declared_shape(path, file, name)
            file.seek(0)
            joints = _scipy_io().loadmat(file, variable_names=["joints"])["joints"]
    except FormatError:
        raise
    except NotImplementedError as error:
        raise FormatError(_too_new(path)) from error
    except Exception as error:  # scipy lets through whatever it stumbles over in a damaged file
        if isinstance(error, OSError) and error.strerror:  # the system's own, not scipy's
            raise FormatError(f"{path}: cannot read: {error.strerror}") from error
        raise FormatError(
            f"{path}: not a MATLAB file, or a damaged one ({error}): download it again"
        ) from error
    if joints.dtype.kind not in "fiu" or joints.size != np.prod(shape):
        raise FormatError(f"{path}: joints is not the array of numbers that its header declares")
    points: FloatArray = joints.reshape(shape).astype(np.float64)
    return points


def _check_size_and_version(path: Path, magic: bytes) -> None:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise FormatError(f"{path}: {size} bytes: expected at most {MAX_BYTES} for a joints.mat")
    if not magic:
        raise FormatError(f"{path}: is empty: download it again")
    if magic == b"\x89HDF\r\n\x1a\n":
        raise FormatError(_too_new(path))


def _declared_shape(path: Path, file: object, name: str) -> tuple[int, ...]:
    declared = {key: (shape, kind) for key, shape, kind in _scipy_io().whosmat(file)}
    if "joints" not in declared:
        found = ", ".join(declared) or "nothing"
        raise FormatError(f"{path}: has no variable 'joints', it holds {found}")
    shape, kind = declared["joints"]
    if kind not in _NUMERIC:
        raise FormatError(f"{path}: joints is a MATLAB {kind}: expected an array of numbers")
    full = (*shape, 1) if len(shape) == 2 else tuple(shape)  # MATLAB drops a last axis of 1
    if len(full) == 3 and full[:2] == _SHAPES[name] and 0 < np.prod(full) * 8 <= MAX_BYTES:
        return full
    wanted = str(_SHAPES[name]).replace(")", ", N)")
    other = _OTHER[name]
    hint = f": this is {other}'s, read it as {other}" if full[:2] == _SHAPES[other] else ""
    raise FormatError(f"{path}: joints has shape {tuple(shape)}, {name}'s is {wanted}{hint}")


def _too_new(path: Path) -> str:
    return f"{path}: a MATLAB v7.3 (HDF5) file: resave it in MATLAB with save(..., '-v7')"


def _scipy_io() -> Any:
    import scipy.io

    return scipy.io
