"""Skeletons: which keypoints a dataset has, what joins them, and how one maps to another.

Everything is by *name*; indices are derived. A custom skeleton is a small JSON file:

    {"name": "boat",
     "keypoints": ["bow", "stern", "left_rail", "right_rail", "mast"],
     "edges": [["bow", "mast"], ["mast", "stern"]],
     "flip_pairs": [["left_rail", "right_rail"]],
     "sigmas": {"bow": 0.05, "stern": 0.05, "left_rail": 0.08, "right_rail": 0.08, "mast": 0.06}}

Only ``name`` and ``keypoints`` are required. Without ``flip_pairs`` they are read off the names
(left/right); give ``[]`` for an object without a mirror image.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from kpdata.core.errors import SchemaError
from kpdata.core.flip_pairs import Pair, flip_pairs_by_name

MAX_KEYPOINTS = 1000
MAX_NAME = 200
"""Characters of a keypoint's name: tables and messages list them."""


class Skeleton(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Named keypoints, and what is known about them.

    Attributes:
        name: what messages and manifests call it.
        keypoints: K names, in the order of every (K, …) array.
        edges: pairs of names to draw, and to measure limbs on.
        flip_pairs: pairs that change places in a mirror image; None derives them from the names,
            and leaves () where no two names mirror each other.
        sigmas: OKS sigma by name; empty where nobody measured them (then there is no AP).
        torso, head: the pair whose distance is the reference of PCK and of PCKh.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[Pair, ...] = ()
    flip_pairs: tuple[Pair, ...] | None = None
    sigmas: dict[str, float] = {}
    torso: Pair | None = None
    head: Pair | None = None

    def __post_init__(self) -> None:
        """Derive missing flip pairs; raise SchemaError naming the key and the name at fault."""
        if not self.keypoints:
            raise SchemaError("keypoints: a skeleton needs at least one name")
        if len(self) > MAX_KEYPOINTS:
            raise SchemaError(f"keypoints: {len(self):,} names, at most {MAX_KEYPOINTS:,} are read")
        if fault := _name_fault(self.keypoints):
            raise SchemaError(f"keypoints: the name {fault}")
        if self.flip_pairs is None:
            msgspec.structs.force_setattr(self, "flip_pairs", flip_pairs_by_name(self.keypoints))
        pairs = {"edges": self.edges, "flip_pairs": self.flip_pairs or ()}
        pairs |= {key: (pair,) for key in ("torso", "head") if (pair := getattr(self, key))}
        for key, group in pairs.items():
            for pair in group:
                self._check_pair(key, pair)
        flipped = Counter(name for pair in self.flip_pairs or () for name in pair)
        for name, times in flipped.items():
            if times > 1:
                raise SchemaError(f"flip_pairs: {name!r} stands in two pairs")
        for name, sigma in self.sigmas.items():
            self._check_name("sigmas", name)
            if not 0 < sigma < 1:
                raise SchemaError(f"sigmas: {name!r} has {sigma}: expected a value between 0 and 1")
        unmeasured = [name for name in self.keypoints if name not in self.sigmas]
        if self.sigmas and unmeasured:
            raise SchemaError(f"sigmas: none given for {', '.join(map(repr, unmeasured))}")

    def __len__(self) -> int:
        return len(self.keypoints)

    def index(self, name: str) -> int:
        """Position of ``name`` in every (K, …) array."""
        try:
            return self._indices[name]
        except KeyError:
            raise SchemaError(
                f"skeleton {self.name} has no keypoint {name!r}; it has {', '.join(self.keypoints)}"
            ) from None

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.keypoints)}

    @cached_property
    def flip_index(self) -> npt.NDArray[np.intp]:
        """(K,) such that ``keypoints[flip_index]`` are the keypoints of the mirror image."""
        index = np.arange(len(self))
        for left, right in self.flip_pairs or ():
            i, j = self.index(left), self.index(right)
            index[[i, j]] = j, i
        return index

    @cached_property
    def edge_index(self) -> npt.NDArray[np.intp]:
        """(E, 2) indices of the edges' ends."""
        ends = [(self.index(a), self.index(b)) for a, b in self.edges]
        return np.array(ends, np.intp).reshape(-1, 2)

    @cached_property
    def sigma_array(self) -> npt.NDArray[np.float64] | None:
        """(K,) OKS sigmas, or None where the skeleton has none."""
        return np.array([self.sigmas[name] for name in self.keypoints]) if self.sigmas else None

    def _check_pair(self, key: str, pair: Pair) -> None:
        for name in pair:
            self._check_name(key, name)
        if pair[0] == pair[1]:
            raise SchemaError(f"{key}: {pair[0]!r} is paired with itself")

    def _check_name(self, key: str, name: str) -> None:
        if name not in self._indices:
            raise SchemaError(f"{key}: {name!r} is not among the keypoints")


def _name_fault(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            return f"{name!r} is {'given twice' if name else 'empty'}"
        if len(name) > MAX_NAME:
            return f"{name!r:.40} has {len(name):,} characters, at most {MAX_NAME} are read"
        seen.add(name)
    return None
