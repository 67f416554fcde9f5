"""What JSON files of one image each hold, and how each style of them is decoded."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

Point = list[float | None] | None
"""[x, y], [x, y, v] or null."""

Points = dict[str, Point]
"""JSON path → point."""

Label = str | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A class by name or by number, which must fit a record."""


class AnnotatedObject(NamedTuple):
    """One object as its file has it; ``path`` and the keys of ``keypoints`` are JSON paths.

    ``names`` leads from each keypoint's name to its path, where the file names keypoints; else they
    are in the skeleton's order.
    """

    path: str
    keypoints: Points
    box_path: str = ""
    box: list[float] | None = None
    label: Label | None = None
    names: dict[str, str] | None = None


class StatedImage(NamedTuple):
    """What a file says of its image: a path, empty where it gives none, and a size in pixels."""

    path: str
    width: int | None = None
    height: int | None = None


class Style(NamedTuple):
    """How one style decodes, and what is in what was decoded.

    Attributes:
        name: what messages and the command line call it.
        kind: the type to decode as.
        objects: the objects in it; what is left out is counted.
        synonyms, keys: other names of the keys that are read, and their own.
        names: where the keypoints' names are, unless a skeleton is given: in the ``first`` file, in
            ``all`` files together, or in ``none``.
        image: what it says of its image; None where the image has the file's stem.
        shift: pixels, from the file's coordinates to continuous ones.
        convention: what its numbers are taken to mean.
    """

    name: str
    kind: Any
    objects: Callable[[Any, Counter[str]], Iterator[AnnotatedObject]]
    synonyms: dict[str, str] | None = None
    keys: tuple[str, ...] = ()
    names: Literal["first", "all", "none"] = "none"
    image: Callable[[Any, Counter[str]], StatedImage] | None = None
    shift: float = 0.5
    convention: str = "0-based pixel indices, boxes continuous xyxy, v 0/1/2, 2 where not given"

    def tidied(self, value: Any, unread: Counter[str]) -> Any:
        """``value`` with its keys by their own names; keys that are not read are counted."""
        if isinstance(value, list):
            return [self._tidied(item, unread) for item in value]
        return self._tidied(value, unread)

    def _tidied(self, value: Any, unread: Counter[str]) -> Any:
        if not isinstance(value, dict) or self.synonyms is None:
            return value
        tidy: dict[str, Any] = {}
        for key, inner in value.items():
            own = self.synonyms.get(key, key)
            if own in self.keys and own not in tidy and (own == key or own not in value):
                tidy[own] = inner
            else:
                unread[f"keys not read: {key:.40}"] += 1
        return tidy
