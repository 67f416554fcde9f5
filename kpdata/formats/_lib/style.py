"""What a JSON file about one image holds, and how each style of such files is decoded."""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Self

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


class Contents(NamedTuple):
    """What was read of one file.

    Attributes:
        objects: in the file's order.
        image: what the file says of its image; None in styles that say nothing.
        counts: what was left out or read in a special way, by its name.
    """

    objects: list[AnnotatedObject]
    image: StatedImage | None
    counts: Counter[str]


class Style(NamedTuple):
    """How one style of files is decoded.

    Attributes:
        name: what messages and the command line call it.
        kind: the type to decode as.
        contents: reads what a decoded file holds; raises Unusable.
        synonyms, keys: other names of the keys that are read, and their own.
        names: where the keypoints' names are, unless a skeleton is given: in the ``first`` file, in
            ``all`` files together, or in ``none``.
        names_image: whether its files say which image they are about; else the image has the
            file's stem.
        shift: pixels, from the file's coordinates to continuous ones.
        convention: what its numbers are taken to mean.
    """

    name: str
    kind: Any
    contents: Callable[[Any], Contents]
    synonyms: dict[str, str] | None = None
    keys: tuple[str, ...] = ()
    names: Literal["first", "all", "none"] = "none"
    names_image: bool = False
    shift: float = 0.5
    convention: str = "0-based pixel indices, boxes continuous xyxy, v 0/1/2, 2 where not given"

    def counted_from(self, pixel_origin: str) -> Self:
        """The same style, with (0, 0) at the first pixel's ``center`` or ``corner``."""
        if pixel_origin == "center":
            return self._replace(shift=0.5)
        pixels = self.convention.replace("0-based pixel indices", "continuous pixels")
        return self._replace(shift=0.0, convention=pixels)

    def tidied(self, value: Any) -> tuple[Any, Counter[str]]:
        """``value`` with its keys by their own names, and the keys that are not read, counted."""
        unread: Counter[str] = Counter()

        def tidy(item: Any) -> Any:
            if not isinstance(item, dict) or self.synonyms is None:
                return item
            kept: dict[str, Any] = {}
            for key, inner in item.items():
                own = self.synonyms.get(key, key)
                if own in self.keys and own not in kept and (own == key or own not in item):
                    kept[own] = inner
                else:
                    unread[f"keys not read: {key:.40}"] += 1
            return kept

        return [tidy(item) for item in value] if isinstance(value, list) else tidy(value), unread
