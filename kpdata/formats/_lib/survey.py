"""The first look at a folder of per-image JSON: its style, its keypoints' names, its classes."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from kpdata.core.errors import FormatError, located
from kpdata.core.skeleton import MAX_KEYPOINTS, Skeleton
from kpdata.core.skeletons import BUILT_IN
from kpdata.formats._lib import json_stream
from kpdata.formats._lib.listing import FilePairs, check_file
from kpdata.formats._lib.style import AnnotatedObject, Contents, Label, Style
from kpdata.formats.base import Unusable


def first_sound(
    annotations: Path, listing: FilePairs, recognise: Callable[[object], Style]
) -> tuple[Style, list[AnnotatedObject]]:
    """The style and the objects of the first file that has any, else of the first sound one."""
    empty, problem = None, ""
    for pair in listing.pairs():
        path = annotations / pair.annotation
        try:
            value = _decode(path, annotations, Any)
            style = recognise(value)
            objects = contents_of(path, annotations, style).objects
        except Unusable as error:
            problem = problem or f"{path}: {error}"
            continue
        if value:
            return style, objects
        empty = empty or (style, objects)
    if empty:
        return empty
    if problem:
        raise FormatError(f"{annotations}: no file can be read; the first says: {problem}")
    raise FormatError(f"{annotations}: holds no .json file: give the folder of the annotations")


def derive_skeleton(annotations: Path, style: Style, first: list[AnnotatedObject]) -> Skeleton:
    """The skeleton that the keys of the first file's first object give, if the style has them.

    Raises:
        FormatError: the file does not say the keypoints' names.
    """
    if style.names == "first" and first and first[0].keypoints:
        names = tuple(path.removeprefix("$.") for path in first[0].keypoints)
        with located(f"{annotations}: the keys of the first file"):
            return Skeleton(name="custom", keypoints=names)
    seen = f" of its {len(first[0].keypoints)} keypoints" if first else ""
    raise FormatError(
        f"{annotations}: style {style.name} does not say the names{seen}: "
        "give `skeleton`, a JSON file or a built-in skeleton's name"
    )


def skeleton_of(annotations: Path, names: Collection[str]) -> Skeleton:
    """The built-in skeleton of exactly these keypoints, else one of them in the order of names.

    Numbers in names count as numbers: ``p2`` comes before ``p10``.

    Raises:
        FormatError: there are none.
        SchemaError: there are too many.
    """
    if not names:
        raise FormatError(
            f"{annotations}: no file has a shape of type point, whose label names a keypoint: "
            "label some, or give `skeleton`"
        )
    for skeleton in BUILT_IN.values():
        if set(skeleton.keypoints) == set(names):
            return skeleton
    with located(f"{annotations}: the labels of all points"):
        return Skeleton(name="custom", keypoints=tuple(sorted(names, key=_natural)))


def _natural(name: str) -> tuple[Any, ...]:
    parts = re.split("([0-9]+)", name)
    parts[1::2] = [f"{len(digits.lstrip('0')):09}{digits.lstrip('0')}" for digits in parts[1::2]]
    return tuple(parts), name


class Survey(NamedTuple):
    """What all files together hold: boxes or none, labels, names of keypoints, values of v."""

    has_boxes: bool
    labels: set[Label | None]
    names: set[str]
    visibilities: set[float | None]


def survey(annotations: Path, listing: FilePairs, style: Style) -> Survey:
    """Look at all files.

    No more names are kept than show that there are too many.
    """
    has_boxes = False
    labels: dict[Label | None, Path] = {}
    names: set[str] = set()
    visibilities: set[float | None] = set()
    for path, found in _all_objects(annotations, listing, style):
        has_boxes |= found.box is not None
        labels.setdefault(found.label, path)
        if len(names) <= MAX_KEYPOINTS:
            names.update(found.names or ())
        visibilities.update(p[2] if len(p) == 3 else 2 for p in found.keypoints.values() if p)
        visibilities &= {0, 1, 2}  # others are faults, of any number
    kinds = {type(label): label for label in labels if label is not None}
    if len(kinds) > 1:
        name, number = kinds[str], kinds[int]
        raise FormatError(
            f"{labels[number]}: its label {number} is a number, but {labels[name]} has the name "
            f"{name!r}: give all labels as names, or all as numbers"
        )
    return Survey(has_boxes, set(labels), _folded(names), visibilities)


def _folded(names: set[str]) -> set[str]:
    """One spelling of names that differ in upper and lower case alone, lower case before others."""
    spellings: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name != name.lower(), name)):
        spellings.setdefault(name.casefold(), name)
    return set(spellings.values())


def _all_objects(
    annotations: Path, listing: FilePairs, style: Style
) -> Iterator[tuple[Path, AnnotatedObject]]:
    for pair in listing.pairs():
        path = annotations / pair.annotation
        objects: list[AnnotatedObject] = []
        with suppress(Unusable):  # reported when the samples are read
            objects = contents_of(path, annotations, style).objects
        for found in objects:
            yield path, found


def classes_of(
    labels: Iterable[Label | None], unlabelled: str
) -> dict[Label | None, tuple[str, int]]:
    """Label → the class's name and number."""
    numbers = {label for label in labels if isinstance(label, int)}
    if numbers:
        free = next(number for number in count(1) if number not in numbers)
        return {None: (unlabelled, free), **{n: (str(n), n) for n in numbers}}
    names = {label: str(label or unlabelled) for label in labels}
    order = {name: number for number, name in enumerate(sorted(set(names.values())), start=1)}
    return {label: (name, order[name]) for label, name in names.items()}


def contents_of(path: Path, folder: Path, style: Style) -> Contents:
    """What a file of ``style`` holds.

    Raises:
        Unusable: it cannot be read, lies outside ``folder``, or is not of that style.
    """
    if style.synonyms is None:
        return style.contents(_decode(path, folder, style.kind))
    value, unread = style.tidied(_decode(path, folder, Any))
    with _as_unusable(path):
        contents = style.contents(json_stream.convert(path, value, style.kind))
    return contents._replace(counts=contents.counts + unread)


def _decode(path: Path, folder: Path, kind: Any) -> Any:
    with _as_unusable(path):
        check_file(path, folder)
        return json_stream.decode(path, "$", path.read_bytes(), kind)


@contextmanager
def _as_unusable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unusable("bad annotation", f"cannot read: {error.strerror}") from error
    except FormatError as error:
        raise Unusable("bad annotation", str(error).removeprefix(f"{path}: ")) from error
