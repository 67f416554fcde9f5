"""What the files of every per-image JSON style hold: objects, and what they say of their image."""

from typing import Annotated, NamedTuple

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
