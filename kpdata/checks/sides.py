"""The orientation of poses, from flip pairs alone, whatever the body.

Take two flip pairs, such as shoulders and hips, and go from the middle of the first to the middle
of the second. The left keypoints then lie on your left or on your right: this is the pose's
*orientation*. Rotating the pose in the image does not change it. Mirroring it, looking from behind,
or exchanging the names left and right does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from kpdata.core.flip_pairs import Pair
from kpdata.core.sample import NOT_LABELLED, FloatArray
from kpdata.core.skeleton import Skeleton

BoolArray = npt.NDArray[np.bool_]

LEAST_AGREEMENT = 0.6
"""Pairs that share a body agree in 80 % (LSP's ankles and wrists) to 99 % (shoulders and hips)."""

_CLEAR, _FAR = 0.25, 4.0
"""The distance of left from right across that path, in units of its length, in a clear pose."""

_MOST_PAIRS = 24
_SMALLEST_GROUP = 100


@dataclass(frozen=True, eq=False)
class PairAgreement:
    """Two flip pairs, and the poses in which they agree on which side is left.

    Attributes:
        names: of the pairs.
        clear: number of poses in which the sides of both pairs are clearly apart.
        poses: (M,) indices of the clear poses in which the two agree.
        orientation: (M,) the orientation of each of them.
    """

    names: tuple[Pair, Pair]
    clear: int
    poses: npt.NDArray[np.intp]
    orientation: BoolArray

    @property
    def agreeing(self) -> int:
        """The number of poses in which they agree: M."""
        return len(self.poses)

    @property
    def agreement(self) -> float:
        """The share of clear poses in which the pairs agree on which side is left."""
        return self.agreeing / max(1, self.clear)

    def describe(self) -> str:
        """The pairs and their agreement, in words."""
        first, second = ("/".join(pair) for pair in self.names)
        return f"{first} and {second} agree in {self.agreement:.0%} of {self.clear:,} clear poses"


@dataclass(frozen=True)
class PoseGroup:
    """Poses that have the same keypoints visible.

    Attributes:
        name: what they have in common, for messages.
        count: number of poses.
        share: of the orientation that is more frequent, 0.5 to 1.
    """

    name: str
    count: int
    share: float

    @property
    def imbalance(self) -> float:
        """How far the share is from one half."""
        return self.share - 0.5

    @property
    def certainty(self) -> float:
        """The imbalance, in standard deviations of that many coin tosses."""
        return 2 * self.imbalance * float(np.sqrt(self.count))

    def describe(self) -> str:
        """What they have in common and how they are oriented, in words."""
        return f"{self.share:.0%} of {self.count:,} poses{self.name} are the same way round"


def agreements(truth: FloatArray, skeleton: Skeleton) -> Iterator[PairAgreement]:
    """Yield the agreement of every two of the first flip pairs.

    Args:
        truth: (N, K, 3) x, y, visibility.
        skeleton: names the pairs.
    """
    pairs = (skeleton.flip_pairs or ())[:_MOST_PAIRS]
    ends = np.array([[skeleton.index(name) for name in pair] for pair in pairs])  # (P, 2)
    xy = np.asarray(truth[..., :2], np.float64)[:, ends]  # (N, P, 2, 2)
    labelled = (truth[..., 2] != NOT_LABELLED)[:, ends].all(axis=2)  # (N, P)
    middle, across = xy.mean(axis=2), xy[:, :, 0] - xy[:, :, 1]  # (N, P, 2), right to left
    for a, b in combinations(range(len(pairs)), 2):
        walk = middle[:, b] - middle[:, a]
        offsets = np.stack([_across(across[:, pair], walk) for pair in (a, b)])  # (2, N)
        apart = (np.abs(offsets) > _CLEAR) & (np.abs(offsets) < _FAR)
        clear = apart.all(axis=0) & labelled[:, a] & labelled[:, b]
        poses = np.flatnonzero(clear & (offsets[0] * offsets[1] > 0))
        yield PairAgreement((pairs[a], pairs[b]), int(clear.sum()), poses, offsets[0, poses] > 0)


def _across(vectors: FloatArray, walk: FloatArray) -> FloatArray:
    """(N,) each vector's component across ``walk``, in units of the length of ``walk``."""
    cross = vectors[:, 0] * walk[:, 1] - vectors[:, 1] * walk[:, 0]
    length = (walk**2).sum(axis=1)
    return np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)


def best_agreement(truth: FloatArray, skeleton: Skeleton) -> PairAgreement | None:
    """The two pairs that agree best, among those that are clear in many poses."""
    all_ = list(agreements(truth, skeleton))
    most = max((pairs_found.clear for pairs_found in all_), default=0)
    often = [pairs_found for pairs_found in all_ if pairs_found.clear >= max(1, most / 2)]
    return max(often, key=lambda pairs_found: pairs_found.agreement, default=None)


def disagreeing_pair(truth: FloatArray, skeleton: Skeleton, least: int) -> PairAgreement | None:
    """The best agreement of a pair that agrees with no other; None where there is no such pair.

    Args:
        truth: (N, K, 3) x, y, visibility.
        skeleton: names the pairs.
        least: the clear poses below which two pairs are not judged.
    """
    best: dict[Pair, PairAgreement] = {}
    for pairs_found in agreements(truth, skeleton):
        for pair in pairs_found.names if pairs_found.clear >= least else ():
            if pair not in best or pairs_found.agreement > best[pair].agreement:
                best[pair] = pairs_found
    worst = min(best.values(), key=lambda pairs_found: pairs_found.agreement, default=None)
    return worst if worst is not None and worst.agreement < LEAST_AGREEMENT else None


def orientation_groups(
    pairs_found: PairAgreement, visible: BoolArray, skeleton: Skeleton
) -> Iterator[PoseGroup]:
    """Yield the group of all poses, then groups by the visibility of a keypoint or flip pair.

    Args:
        pairs_found: whose poses are counted.
        visible: (N, K) keypoints that are visible.
        skeleton: names them.
    """
    yield _group("", pairs_found.orientation)
    visible = visible[pairs_found.poses]
    paired = {name for pair in skeleton.flip_pairs or () for name in pair}
    middle = [(name,) for name in skeleton.keypoints if name not in paired]
    for names in (*middle, *(skeleton.flip_pairs or ())):
        count = visible[:, [skeleton.index(name) for name in names]].sum(axis=1)
        for number in range(len(names) + 1):
            some = pairs_found.orientation[count == number]
            if len(some) >= _SMALLEST_GROUP:
                yield _group(f" with {number} of {'/'.join(names)} visible", some)


def _group(name: str, orientation: BoolArray) -> PoseGroup:
    share = float(orientation.mean())
    return PoseGroup(name, len(orientation), max(share, 1 - share))
