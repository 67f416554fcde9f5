"""True and predicted poses side by side, distances between them, and reference lengths."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import SchemaError
from kpdata.core.flip_pairs import Pair
from kpdata.core.sample import NOT_LABELLED, FloatArray
from kpdata.core.skeleton import Skeleton

Reference = str | Pair
"""``torso``, ``head``, ``bbox``, or a pair of keypoint names."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Poses:
    """N instances of a skeleton with K keypoints, in continuous pixels of the source images.

    Attributes:
        skeleton: names the K keypoints.
        truth: (N, K, 3) x, y, visibility 0, 1 or 2; x and y mean nothing where v = 0.
        predicted: (N, K, 3) x, y, score.
        area: (N,) square pixels, for OKS; NaN where the source has none.
        bbox_xyxy: (N, 4), for the reference ``bbox``; NaN where the source has none.
        head_size: (N,) pixels, for the reference ``head``; NaN where the source has none.
        image_size: (N, 2) width and height of each source image, for the stretched metric.
    """

    skeleton: Skeleton
    truth: FloatArray
    predicted: FloatArray
    area: FloatArray | None = None
    bbox_xyxy: FloatArray | None = None
    head_size: FloatArray | None = None
    image_size: FloatArray | None = None

    def __post_init__(self) -> None:
        """Convert the arrays to float64; raise SchemaError for a wrong shape or value."""
        n, k = len(self.truth), len(self.skeleton)
        if not n:
            raise SchemaError("truth holds no instance: there is nothing to score")
        shapes = {"truth": (n, k, 3), "predicted": (n, k, 3), "area": (n,), "bbox_xyxy": (n, 4)}
        shapes |= {"head_size": (n,), "image_size": (n, 2)}
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is None:
                continue
            array = np.asarray(value, np.float64)
            if array.shape != shapes[field.name]:
                expected = f"{shapes[field.name]} for {n} instances of {self.skeleton.name}"
                raise SchemaError(f"{field.name} has shape {array.shape}: expected {expected}")
            object.__setattr__(self, field.name, array)
        self._check("truth", np.isin(self.truth[..., 2], (0, 1, 2)), "visibility 0, 1 or 2")
        placed = np.isfinite(self.truth).all(axis=2) | ~self.labelled
        self._check("truth", placed, "finite coordinates where labelled")
        self._check("predicted", np.isfinite(self.predicted).all(axis=2), "finite numbers")

    def _check(self, name: str, good: npt.NDArray[Any] | np.bool_, expected: str) -> None:
        if not good.all():
            instance, keypoint = np.argwhere(~good)[0]
            value = getattr(self, name)[instance, keypoint].tolist()
            raise SchemaError(
                f"{name}: instance {instance}, {self.skeleton.keypoints[keypoint]} is {value}: "
                f"expected {expected}"
            )

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def labelled(self) -> BoolArray:
        """(N, K) whether each keypoint counts; occluded ones do."""
        return self.truth[..., 2] != NOT_LABELLED

    def require(self, name: str, purpose: str) -> FloatArray:
        """The optional array ``name``; raises SchemaError if it was not given."""
        value: FloatArray | None = getattr(self, name)
        if value is None:
            raise SchemaError(f"{purpose} needs {name}, and none was given")
        return value


@dataclass(frozen=True, eq=False)
class Lengths:
    """Reference lengths: what the errors of a normalised metric are divided by.

    Attributes:
        values: (N,) pixels; 0 or NaN if the instance has no usable reference.
        name: part of the metric's name: ``torso``, ``head``, ``bbox`` or ``a–b``.
        definition: what was measured, with the names of the keypoints.
    """

    values: FloatArray
    name: str
    definition: str

    @property
    def usable(self) -> BoolArray:
        """(N,) whether each instance has a finite reference above 0."""
        return (self.values > 0) & np.isfinite(self.values)

    @property
    def left_out(self) -> dict[str, int]:
        """Cause → number of instances without a usable reference."""
        return {
            f"instances without a {self.name} reference": int((~np.isfinite(self.values)).sum()),
            f"instances with {self.name} length 0": int((self.values <= 0).sum()),
        }


def distances(poses: Poses, scale: FloatArray | float = 1.0) -> FloatArray:
    """(N, K) distance between truth and prediction in pixels; NaN where not labelled.

    Args:
        poses: what to compare.
        scale: (N, 2) factors on x and y before measuring, or one number for all.
    """
    factors = np.broadcast_to(np.asarray(scale, np.float64), (len(poses), 2))
    offset = (poses.predicted[..., :2] - poses.truth[..., :2]) * factors[:, None]
    return np.where(poses.labelled, np.hypot(offset[..., 0], offset[..., 1]), np.nan)


def pair_lengths(poses: Poses, pair: Pair, scale: FloatArray | float = 1.0) -> FloatArray:
    """(N,) true distance between two keypoints; NaN unless both are labelled.

    Args:
        poses: where the truth is.
        pair: the two keypoints' names.
        scale: as in :func:`distances`.
    """
    ends = [poses.skeleton.index(name) for name in pair]
    offset = (poses.truth[:, ends[1], :2] - poses.truth[:, ends[0], :2]) * scale
    labelled = poses.labelled[:, ends].all(axis=1)
    return np.where(labelled, np.hypot(offset[:, 0], offset[:, 1]), np.nan)


def reference_lengths(poses: Poses, reference: Reference) -> Lengths:
    """The length that errors are divided by, for each instance.

    ``torso`` and ``head`` are distances of the skeleton's pairs. But if any instance has a head
    size from the source, ``head`` is the head size for all, so that a score never mixes two
    references. ``bbox`` is the box's longer side.

    Raises:
        SchemaError: the poses have no such reference; the message says what to give.
    """
    if reference == "bbox":
        box = poses.require("bbox_xyxy", "the reference 'bbox'")
        sides = np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
        return Lengths(sides, "bbox", "longer side of the bounding box")
    sizes = poses.head_size
    if reference == "head" and sizes is not None and not np.isnan(sizes).all():
        return Lengths(sizes, "head", "head size as the source states it")
    pair = reference if isinstance(reference, tuple) else _skeleton_pair(poses.skeleton, reference)
    name = reference if isinstance(reference, str) else "–".join(pair)
    definition = f"true distance {'–'.join(pair)}"
    return Lengths(pair_lengths(poses, pair), name, definition)


def require_pair(skeleton: Skeleton, reference: str) -> Pair:
    """The skeleton's ``torso`` or ``head`` pair; raises SchemaError if it has none."""
    pair: Pair | None = getattr(skeleton, reference)
    if pair is None:
        raise SchemaError(
            f"skeleton {skeleton.name} names no {reference} pair: add "
            f'"{reference}": [name, name] to its JSON file, and convert the shards with '
            "it as `to_skeleton`"
        )
    return pair


def _skeleton_pair(skeleton: Skeleton, reference: str) -> Pair:
    if reference not in ("torso", "head"):
        raise SchemaError(
            f"no reference {reference!r}: give torso, head, bbox or a pair of keypoint names"
        )
    return require_pair(skeleton, reference)


def keypoint_groups(skeleton: Skeleton) -> dict[str, tuple[int, ...]]:
    """Group left and right: shared name → indices in ``skeleton.keypoints``."""
    names = _averaged_names(skeleton)
    groups: dict[str, tuple[int, ...]] = {}
    for position, name in enumerate(skeleton.keypoints):
        groups[names[name]] = (*groups.get(names[name], ()), position)
    return groups


def limb_groups(skeleton: Skeleton, limbs: Sequence[Pair]) -> dict[str, tuple[int, ...]]:
    """Group limbs with their mirror images: shared name → indices in ``limbs``."""
    names = _averaged_names(skeleton)
    mirror = {
        name: skeleton.keypoints[other]
        for name, other in zip(skeleton.keypoints, skeleton.flip_index, strict=True)
    }
    position = {frozenset(limb): i for i, limb in enumerate(limbs)}
    groups: dict[str, tuple[int, ...]] = {}
    for i, limb in enumerate(limbs):
        other = position.get(frozenset(mirror[name] for name in limb), i)
        if other == i:
            groups["–".join(limb)] = (i,)
        elif other > i:
            shared = "–".join(names[name] for name in limb)
            groups["–".join(limb) if shared in groups else shared] = (i, other)
    return groups


def _averaged_names(skeleton: Skeleton) -> dict[str, str]:
    """Keypoint → the name that it shares with its mirror image: ``left_wrist`` → ``wrist``."""
    names = {name: name for name in skeleton.keypoints}
    for pair in skeleton.flip_pairs or ():
        left, right = (name.split("_") for name in pair)
        shared = "_".join(word for word in left if word in right)
        clash = shared in skeleton.keypoints or shared in names.values()
        names |= dict.fromkeys(pair, "/".join(pair) if clash or not shared else shared)
    return names
