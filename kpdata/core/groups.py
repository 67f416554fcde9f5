"""Which images must share a split: what their names say, and joining groups of them."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

N = TypeVar("N", str, int)


class Parents(Protocol[N]):
    """The storage of :class:`Groups`: a dict, or an object with these two methods."""

    def get(self, name: N, default: N, /) -> N:
        """Return the parent of a name, or ``default``."""

    def __setitem__(self, name: N, parent: N, /) -> None:
        """Set or replace the parent of a name."""


class Groups(Generic[N]):
    """Sets of names that must share a split; names that were never joined take no memory.

    The smallest name of a set represents it.

    Args:
        parents: where the sets are stored: each name → a smaller name of its set.
    """

    def __init__(self, parents: Parents[N]) -> None:
        self._parents: Parents[N] = parents

    def find(self, name: N) -> N:
        """The smallest name of ``name``'s group."""
        while (parent := self._parents.get(name, name)) != name:
            if (above := self._parents.get(parent, parent)) != parent:
                self._parents[name] = above  # shortens the path for the next call
            name = above
        return name

    def join(self, first: N, second: N) -> bool:
        """Merge the groups of two names; return False if they are one group already."""
        low, high = sorted((self.find(first), self.find(second)))
        if low == high:
            return False
        self._parents[high] = low
        return True


_VERSION = re.compile(r"(.+)\.rf\.[0-9A-Za-z]{6,64}\.[A-Za-z]+")


def roboflow_picture(name: str) -> str | None:
    """The picture that an image of a Roboflow export is a version of; None for other names.

    >>> roboflow_picture("train/boat_1_png.rf.9e3779b1c0de.jpg"), roboflow_picture("boat_1.png")
    ('boat_1_png', None)
    """
    found = _VERSION.fullmatch(posixpath.basename(name))
    return found[1] if found else None


class NumberedNames:
    """Notices images whose names are a few beginnings with many numbers, as videos' frames have.

    >>> names = NumberedNames()
    >>> for video in ("a", "b", "c", "d"):
    ...     for frame in range(5):
    ...         names.add(f"{video}/{frame:04}.png")
    >>> print(*names.hint())  # doctest: +NORMALIZE_WHITESPACE
    images look like frames of 4 videos (a/0000.png, a/0001.png, ...), which may leak from one split
    into another: if so, keep each together with `group` '^(.*?[^0-9])[0-9]+[.][^.]+$'
    """

    PATTERN = r"^(.*?[^0-9])[0-9]+[.][^.]+$"
    """Its first group is a name's beginning."""

    _LEAST_FRAMES = 4
    _LEAST_VIDEOS = 4  # train, val and test are three
    _MOST_BEGINNINGS = 10_000

    def __init__(self) -> None:
        self._pattern = re.compile(self.PATTERN)
        self._beginnings: Counter[str] = Counter()
        self._examples: list[str] = []
        self._others = 0

    def add(self, name: str) -> None:
        """Look at an image's name."""
        found = self._pattern.match(name)
        if not found or len(self._beginnings) > self._MOST_BEGINNINGS:
            self._others += 1
            return
        self._beginnings[found[1]] += 1
        if len(self._examples) < 2:
            self._examples.append(name)

    def hint(self) -> Iterator[str]:
        """What to try, where most images belong to one of several such beginnings."""
        videos = [count for count in self._beginnings.values() if count >= self._LEAST_FRAMES]
        images = self._beginnings.total() + self._others
        if len(videos) >= self._LEAST_VIDEOS and sum(videos) > images / 2:
            yield (
                f"the images look like frames of {len(videos):,} videos "
                f"({', '.join(self._examples)}, ...), which may leak from one split into another. "
                f"If they are, keep each video in one split with `group` '{self.PATTERN}'"
            )
