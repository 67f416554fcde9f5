"""Which categories of a COCO file are read, and the skeleton that they share."""

from collections import Counter
from pathlib import Path
from typing import Any

from kpdata.core.errors import FormatError, located
from kpdata.core.flip_pairs import Pair
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import built_in_with, skeletons_of
from kpdata.formats.coco.index import Category, Index

FAULTY_EDGES = "edges of a category's skeleton that join no two of its keypoints, left out"
OTHER_EDGES = "edges of a category's skeleton that has other keypoints, left out"
FROM_ZERO = "edges of a category's skeleton counted from 0, read as such"


def choose(
    path: Path, index: Index, wanted: str | None, skeleton: Skeleton | None
) -> dict[int, Category]:
    """The categories to read, by their position: all that have the same keypoints.

    Args:
        path: the file, for messages.
        index: the file's content.
        wanted: the name of the category to read; None for all.
        skeleton: what the keypoints are, whatever the file calls them; None where the file says.

    Raises:
        FormatError: no category has keypoints, those of several differ, or they are not as many
            as the skeleton's.
    """
    able = {
        position: entry
        for position, entry in enumerate(index.categories)
        if entry.keypoints or (skeleton and _counts_held(index, entry))
    }
    if not able:
        raise FormatError(f"{path}: {_why_none(index)}")
    names = ", ".join(repr(entry.name) for entry in able.values())
    chosen = {n: entry for n, entry in able.items() if wanted in (None, entry.name)}
    if not chosen:
        raise FormatError(f"{path}: no category {wanted!r} with keypoints; there is {names}")
    if skeleton is not None:
        fitting = {
            n: entry
            for n, entry in chosen.items()
            if len(skeleton) in (_counts_held(index, entry) or [len(entry.keypoints or ())])
        }
        if not fitting:
            entry = next(iter(chosen.values()))
            count = next(iter(_counts_held(index, entry)), len(entry.keypoints or ()))
            raise FormatError(
                f"{path}: skeleton {skeleton.name} has {len(skeleton)} keypoints, category "
                f"{entry.name!r} {count}: give `skeleton`, {skeletons_of(count)}"
            )
        return fitting
    if len({entry.keypoints for entry in chosen.values()}) > 1:
        raise FormatError(
            f"{path}: several categories have keypoints, and not the same: give `category`: {names}"
        )
    return chosen


def check_lengths(path: Path, index: Index, chosen: dict[int, Category]) -> None:
    """Raise FormatError where all annotations of a category hold another number than it names."""
    for entry in chosen.values():
        held, named = _counts_held(index, entry), len(entry.keypoints or ())
        if len(held) == 1 and named not in held:
            pairs = ""
            if held[0] * 3 == named * 2:
                pairs = f"; if they are x and y of all {named}, without v, add v to each"
            raise FormatError(
                f"{path}: category {entry.name!r} names {named} keypoints, but each of its "
                f"annotations holds {held[0]}, as x, y and v: give `skeleton`, "
                f"{skeletons_of(held[0])}{pairs}"
            )


def _counts_held(index: Index, category: Category) -> list[int]:
    """How many keypoints the category's annotations hold, the most frequent number first."""
    lengths = [
        (times, length)
        for (id_, length), times in index.lengths.items()
        if id_ == category.id and length % 3 == 0
    ]
    return [length // 3 for _, length in sorted(lengths, reverse=True)]


def _why_none(index: Index) -> str:
    """Why no category has keypoints, and what to do about it."""
    for entry in index.categories:
        if held := _counts_held(index, entry):
            return (
                f"category {entry.name!r} does not name its keypoints, of which an annotation "
                f"holds {held[0]}: give `skeleton`, {skeletons_of(held[0])}"
            )
    if not index.annotations.total():
        return (
            "no category has keypoints, and there are no annotations: label images and export them "
            "again. CVAT exports the keypoints only of labels of type skeleton"
        )
    return (
        "no category has keypoints: give the person_keypoints file rather than the instances one, "
        'or add "keypoints": ["nose", ...] to the category'
    )


def skeleton_of(path: Path, chosen: dict[int, Category]) -> tuple[Skeleton, Counter[str]]:
    """The skeleton of the chosen categories, with the edges of the first that has any.

    Returns:
        The skeleton, and how many edges were left out because they join no two keypoints, or read
        as counted from 0.

    Raises:
        SchemaError: a keypoint's name stands twice.
    """
    position, first = next(iter(chosen.items()))
    names = first.keypoints or ()
    if known := built_in_with(names):
        return known, Counter()
    drawn = next((entry.skeleton for entry in chosen.values() if entry.skeleton), None)
    name = first.name if len(chosen) == 1 else "custom"
    with located(f"{path}: $.categories[{position}]"):
        edges, counts = _edges(names, drawn)
        return Skeleton(name=name, keypoints=names, edges=edges), counts


def _edges(names: tuple[str, ...], drawn: Any) -> tuple[tuple[Pair, ...], Counter[str]]:
    """Edges by name, of pairs of numbers from 1, or from 0 where only so all of them are sound.

    A number that no keypoint has shows that the edges were drawn for another skeleton: then none
    of them means what its numbers say here.
    """
    counts: Counter[str] = Counter()
    if not isinstance(drawn, list):
        counts[FAULTY_EDGES] += drawn is not None
        return (), counts
    pairs = [edge for edge in drawn if _is_pair(edge)]
    first = 1
    if len(pairs) == len(drawn) and any(0 in edge for edge in pairs):
        first = 0
        counts[FROM_ZERO] += len(pairs)
    if not all(first <= end < first + len(names) for edge in pairs for end in edge):
        return (), Counter({OTHER_EDGES: len(drawn)})
    counts[FAULTY_EDGES] += len(drawn) - len(pairs)
    return tuple((names[a - first], names[b - first]) for a, b in pairs), counts


def _is_pair(edge: Any) -> bool:
    is_list = isinstance(edge, list) and len(edge) == 2 and edge[0] != edge[1]
    return is_list and all(type(end) is int for end in edge)
