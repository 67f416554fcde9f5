"""Which categories of a COCO file are read, and the skeleton that they share."""

from collections import Counter
from pathlib import Path
from typing import Any

from kpdata.core.errors import FormatError, located
from kpdata.core.flip_pairs import Pair
from kpdata.core.skeleton import Skeleton, built_in_with
from kpdata.formats.coco.index import Category

FAULTY_EDGES = "edges of a category's skeleton that join no two of its keypoints, left out"
FROM_ZERO = "edges of a category's skeleton counted from 0, read as such"


def choose(path: Path, categories: list[Category], wanted: str | None) -> dict[int, Category]:
    """The categories to read, by their position: all that have the same keypoints.

    Args:
        path: the file, for messages.
        categories: all of the file's.
        wanted: the name of the one to read; None for all.

    Raises:
        FormatError: none has keypoints, or those of several differ.
    """
    able = {index: entry for index, entry in enumerate(categories) if entry.keypoints}
    names = ", ".join(repr(entry.name) for entry in able.values())
    if not able:
        raise FormatError(
            f"{path}: no category has keypoints: give the person_keypoints file rather than the "
            'instances one, or add "keypoints": ["nose", ...] to the category'
        )
    chosen = {index: entry for index, entry in able.items() if wanted in (None, entry.name)}
    if not chosen:
        raise FormatError(f"{path}: no category {wanted!r} with keypoints; there is {names}")
    if len({entry.keypoints for entry in chosen.values()}) > 1:
        raise FormatError(
            f"{path}: several categories have keypoints, and not the same: give `category`: {names}"
        )
    return chosen


def skeleton_of(path: Path, chosen: dict[int, Category]) -> tuple[Skeleton, Counter[str]]:
    """The skeleton of the chosen categories, with the edges of the first that has any.

    Returns:
        The skeleton, and how many edges were left out because they join no two keypoints, or read
        as counted from 0.

    Raises:
        SchemaError: a keypoint's name stands twice.
    """
    index, first = next(iter(chosen.items()))
    names = first.keypoints or ()
    if known := built_in_with(names):
        return known, Counter()
    drawn = next((entry.skeleton for entry in chosen.values() if entry.skeleton), None)
    name = first.name if len(chosen) == 1 else "custom"
    with located(f"{path}: $.categories[{index}]"):
        edges, counts = _edges(names, drawn)
        return Skeleton(name=name, keypoints=names, edges=edges), counts


def _edges(names: tuple[str, ...], drawn: Any) -> tuple[tuple[Pair, ...], Counter[str]]:
    """Edges by name, of pairs of numbers from 1, or from 0 where only so all of them are sound."""
    counts: Counter[str] = Counter()
    if not isinstance(drawn, list):
        counts[FAULTY_EDGES] += drawn is not None
        return (), counts
    sound = [edge for edge in drawn if _is_sound(edge, 1, len(names))]
    first = 1
    if len(sound) < len(drawn) and all(_is_sound(edge, 0, len(names) - 1) for edge in drawn):
        sound, first = drawn, 0
        counts[FROM_ZERO] += len(drawn)
    counts[FAULTY_EDGES] += len(drawn) - len(sound)
    return tuple((names[a - first], names[b - first]) for a, b in sound), counts


def _is_sound(edge: Any, low: int, high: int) -> bool:
    if not isinstance(edge, list) or len(edge) != 2 or edge[0] == edge[1]:
        return False
    return all(type(end) is int and low <= end <= high for end in edge)
