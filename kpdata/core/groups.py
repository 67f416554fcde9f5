"""Group names that must share a split: a union-find structure."""

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
