"""Joining names that must share a split."""

from typing import Generic, Protocol, TypeVar

N = TypeVar("N", str, int)


class Parents(Protocol[N]):
    """Where :class:`Groups` keeps what it remembers: a dict, or something like one."""

    def get(self, name: N, default: N, /) -> N:
        """The parent of a name, or ``default``."""

    def __setitem__(self, name: N, parent: N, /) -> None:
        """Give a name a parent, in place of any that it has."""


class Groups(Generic[N]):
    """Joins names that must share a split, remembering only those that were joined.

    The smallest name of a joined set stands for all of it.

    Args:
        parents: filled with a smaller name of its set for each name that does not stand for itself.
    """

    def __init__(self, parents: Parents[N]) -> None:
        self._parents: Parents[N] = parents

    def find(self, name: N) -> N:
        """The name that stands for ``name``'s group."""
        while (parent := self._parents.get(name, name)) != name:
            if (above := self._parents.get(parent, parent)) != parent:
                self._parents[name] = above  # halves the next way
            name = above
        return name

    def join(self, first: N, second: N) -> bool:
        """Put two names, and all that was joined to either, into one group; False if they were."""
        low, high = sorted((self.find(first), self.find(second)))
        if low == high:
            return False
        self._parents[high] = low
        return True
