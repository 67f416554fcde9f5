"""The files of labelme, and of tools that write the same layout, such as X-AnyLabeling.

A keypoint is a shape of type ``point`` whose label is its name, a box one of type ``rectangle``
whose label is the category; shapes of one ``group_id`` are one object. Coordinates are those of
labelme's canvas, which spans [0, W] × [0, H] from the upright image's corner: they are continuous.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from kpdata.core.sample import MAX_SIDE, OCCLUDED, VISIBLE
from kpdata.core.skeleton import Skeleton
from kpdata.formats._lib.per_image import read_folder
from kpdata.formats._lib.style import AnnotatedObject, Contents, StatedImage, Style
from kpdata.formats.base import LARGEST, Source, Unusable
from kpdata.storage.stores import Location

MAX_SHAPES = 30_000
"""Points and rectangles of one file."""

SIZES = "image sizes that are no whole numbers from 1, read as unknown"
BOTH_OFF = "points with flag visible and one for occlusion, both off, v = 2"

_UNCLEAR = "objects not told apart"
_HIDDEN_WORDS = frozenset({"occluded", "hidden", "invisible"})

_MARKED_LABEL = re.compile(rf"(.+?)[ _.-]*[ _.(-]({'|'.join(sorted(_HIDDEN_WORDS))})\)?", re.I)

GroupId = int | str | None


class _Shape(msgspec.Struct):
    label: str
    points: Any = None
    shape_type: str | None = None
    group_id: GroupId = None
    flags: dict[str, Any] | None = None
    description: Any = None
    difficult: Any = None


class LabelmeFile(msgspec.Struct, rename="camel"):
    """As much of a file as is decoded: ``imageData``, which can be large, is not."""

    shapes: list[_Shape]
    image_path: str | None = None
    image_width: Any = None
    image_height: Any = None


class _Point(NamedTuple):
    number: int
    label: str
    x: float
    y: float
    visibility: int

    @property
    def path(self) -> str:
        return _path(self.number, self.label)


class _Box(NamedTuple):
    number: int
    label: str
    xyxy: list[float]


@dataclass
class _Group:
    """What belongs together; one object, once it has at most one box."""

    points: list[_Point] = field(default_factory=list)
    boxes: list[_Box] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Of the first shape."""
        numbers = [point.number for point in self.points] + [box.number for box in self.boxes]
        return min(numbers)


def read(
    annotations: Path, images: Location | None = None, skeleton: Skeleton | None = None
) -> Source:
    """Read a folder of labelme's JSON files; see :func:`read_folder`.

    Args:
        annotations: the folder.
        images: the images' folder, where each has the name that its file gives, or its stem.
        skeleton: by default the names of all files' points.

    Raises:
        FormatError: what :func:`read_folder` refuses.
    """

    def recognise(value: object) -> Style:
        if not holds_shapes(value):
            raise Unusable("bad annotation", "has no list of shapes: not a file of labelme's")
        return LABELME

    return read_folder(annotations, images, skeleton, recognise)


def holds_shapes(value: object) -> bool:
    """Whether a decoded file is labelme's; a keypoint called "shapes" would hold numbers."""
    shapes = value.get("shapes") if isinstance(value, dict) else None
    return isinstance(shapes, list) and all(isinstance(shape, dict) for shape in shapes)


def read_shapes(value: LabelmeFile) -> Contents:
    """What a decoded file holds: its objects, in the order of their first shapes.

    Raises:
        Unusable: a point or a rectangle is malformed, or it is not clear which belong together.
    """
    return _ShapeReader().read(value)


class _ShapeReader:
    """Reads one file, and counts what it leaves out or reads in a special way."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def read(self, value: LabelmeFile) -> Contents:
        groups = self._grouped(value.shapes)
        ungrouped = groups.pop(None, _Group())
        for group_id, group in groups.items():
            if len(group.boxes) > 1:
                first, second = (_path(box.number, box.label) for box in group.boxes[:2])
                raise Unusable(
                    _UNCLEAR,
                    f"{first} and {second} are two rectangles of group_id {group_id!r:.40}: "
                    "set a group_id of its own for each object",
                )
        joined = _joined(list(groups.values()), ungrouped)
        objects = [_object(group) for group in sorted(joined, key=lambda group: group.number)]
        return Contents(objects, self._image(value), self._counts)

    def _image(self, value: LabelmeFile) -> StatedImage:
        sizes = []
        for size in (value.image_width, value.image_height):
            is_number = isinstance(size, int | float) and 1 <= size <= MAX_SIDE
            sizes.append(int(size) if is_number and size == int(size) else None)
        if None in sizes and (value.image_width, value.image_height) != (None, None):
            self._counts[SIZES] += 1
        return StatedImage(value.image_path or "", *sizes)

    def _grouped(self, shapes: list[_Shape]) -> dict[GroupId, _Group]:
        """Points and rectangles by their group_id."""
        groups: dict[GroupId, _Group] = defaultdict(_Group)
        kept = 0
        for number, shape in enumerate(shapes):
            if shape.shape_type == "point":
                groups[shape.group_id].points.append(self._point(number, shape))
            elif shape.shape_type == "rectangle":
                groups[shape.group_id].boxes.append(_box(number, shape))
            else:
                self._counts[f"shapes left out: {shape.shape_type or 'without a type':.40}"] += 1
                continue
            kept += 1
            if kept > MAX_SHAPES:
                raise Unusable(
                    "bad annotation",
                    f"$.shapes holds more than {MAX_SHAPES:,} points and rectangles",
                )
        return groups

    def _point(self, number: int, shape: _Shape) -> _Point:
        label, mark = _split_label(shape.label)
        if not label:
            problem = f"$.shapes[{number}].label is empty: expected the keypoint's name"
            raise Unusable("bad keypoints", problem)
        points = _coordinates(number, shape)
        if len(points) != 1:
            raise Unusable(
                "bad keypoints", f"$.shapes[{number}].points is {points!r:.80}: expected one [x, y]"
            )
        (x, y), visibility = points[0], self._visibility(number, shape, mark)
        return _Point(number, label, x, y, visibility)

    def _visibility(self, number: int, shape: _Shape, mark: str) -> int:
        """1 for a point that is marked as occluded in a way that means nothing else, else 2.

        ``mark`` is the word that its label ends with.
        """
        flags = self._flags(shape)
        marks = [f"whose label ends with {mark}"] if mark else []
        marks += [f"with flag {name}" for name, on in flags.items() if on and name != "visible"]
        if flags.get("visible") is False and len(flags) == 1:
            marks.append("with flag visible off")
        description = shape.description
        if isinstance(description, str) and description.strip().lower() in _HIDDEN_WORDS:
            marks.append(f"described as {description.strip().lower()}")
        if shape.difficult is True:
            marks.append("marked difficult")
        if not marks:
            if flags.get("visible") is False:
                self._counts[BOTH_OFF] += 1
            return VISIBLE
        if flags.get("visible"):
            raise Unusable(
                "bad keypoints",
                f"{_path(number, shape.label)} has flag visible, but is also {marks[0]}: "
                "remove one of the two",
            )
        self._counts[f"points {marks[0]}, v = 1"] += 1
        return OCCLUDED

    def _flags(self, shape: _Shape) -> dict[str, bool]:
        """The flags that say whether a point is visible; others that are set are counted."""
        known = {}
        for name, value in (shape.flags or {}).items():
            folded = name.strip().lower()
            if isinstance(value, bool) and (folded == "visible" or folded in _HIDDEN_WORDS):
                known[folded] = value
            elif value is not False:
                self._counts[f"flags not read: {name:.40}"] += 1
        return known


def _joined(grouped: list[_Group], ungrouped: _Group) -> list[_Group]:
    """One group for each object, made of those with a group_id and of what has none.

    A group without a rectangle takes the one without a group_id that it lies in. Points without a
    group_id are one object where there can be no other; else each takes the rectangle that it lies
    in, which must not be that of a group with points.
    """
    free = [_Group([], [box]) for box in ungrouped.boxes]
    bare = [group for group in grouped if not group.boxes]
    if free and bare:
        grouped = [group for group in grouped if group.boxes]
        find = _finder(free)
        for group in bare:
            _give(group.points, find(group.points))
    if ungrouped.points:
        owners = free + [group for group in grouped if group.boxes]
        if len(owners) == 1 and not any(group.points for group in free + grouped):
            owners[0].points = ungrouped.points
        elif owners:
            _share_out(ungrouped.points, owners)
        elif grouped:
            raise Unusable(
                _UNCLEAR,
                f"{ungrouped.points[0].path} has no group_id, but other points have: "
                "set the group_id of its object",
            )
        else:
            free = [ungrouped]
    return grouped + free


def _share_out(points: list[_Point], owners: list[_Group]) -> None:
    """Give points without a group_id to the rectangles that they lie in."""
    find = _finder(owners)
    shares: dict[int, tuple[_Group, list[_Point]]] = {}
    for point in points:
        owner = find([point])
        shares.setdefault(id(owner), (owner, []))[1].append(point)
    for owner, share in shares.values():
        _give(share, owner)


def _give(points: list[_Point], owner: _Group) -> None:
    if owner.points:
        box = owner.boxes[0]
        raise Unusable(
            _UNCLEAR,
            f"{points[0].path} lies in {_path(box.number, box.label)}, as does "
            f"{owner.points[0].path} of another group_id: "
            "set the same group_id for the shapes of each object",
        )
    owner.points = points


def _finder(owners: list[_Group]) -> Callable[[list[_Point]], _Group]:
    """What finds the one owner in whose rectangle points lie, edges included."""
    x0, y0, x1, y1 = np.array([owner.boxes[0].xyxy for owner in owners]).T  # (B,) each

    def find(points: list[_Point]) -> _Group:
        inside = np.ones(len(owners), bool)
        for point in points:
            inside &= (x0 <= point.x) & (point.x <= x1) & (y0 <= point.y) & (point.y <= y1)
        if np.count_nonzero(inside) == 1:
            return owners[int(np.argmax(inside))]
        what = "its group" if len(points) > 1 else "it"
        raise Unusable(
            _UNCLEAR,
            f"{points[0].path}: {what} lies in {np.count_nonzero(inside)} of the {len(owners)} "
            "rectangles that may be its box, not in one: "
            "set the same group_id for the shapes of each object",
        )

    return find


def _object(group: _Group) -> AnnotatedObject:
    names: dict[str, str] = {}
    for point in group.points:
        if point.label in names:
            raise Unusable(
                _UNCLEAR,
                f"{names[point.label]} and {point.path} are two points of one name in what looks "
                "like one object: set a group_id of its own for each object",
            )
        names[point.label] = point.path
    box = group.boxes[0] if group.boxes else None
    return AnnotatedObject(
        path=f"$.shapes[{group.number}]",
        keypoints={point.path: [point.x, point.y, point.visibility] for point in group.points},
        box_path=f"$.shapes[{box.number}].points" if box else "",
        box=box.xyxy if box else None,
        label=box.label if box else None,
        names=names,
    )


def _split_label(label: str) -> tuple[str, str]:
    """A label's name, and the word that marks an occluded point behind it; empty without one.

    >>> _split_label("left_wrist_occluded"), _split_label("bow ")
    (('left_wrist', 'occluded'), ('bow', ''))
    """
    found = _MARKED_LABEL.fullmatch(label.strip())
    return (found[1], found[2].lower()) if found else (label.strip(), "")


def _box(number: int, shape: _Shape) -> _Box:
    points = _coordinates(number, shape)
    values = [value for point in points for value in point]
    if len(points) not in (2, 4) or not all(abs(value) <= LARGEST for value in values):
        raise Unusable(
            "bad box",
            f"$.shapes[{number}].points is {points!r:.80}: expected two opposite corners, or all "
            f"four, within {LARGEST:g} pixels",
        )
    xs, ys = values[::2], values[1::2]
    return _Box(number, shape.label.strip(), [min(xs), min(ys), max(xs), max(ys)])


def _coordinates(number: int, shape: _Shape) -> list[tuple[float, float]]:
    try:
        return msgspec.convert(shape.points, list[tuple[float, float]])
    except msgspec.ValidationError as error:
        problem, _, inner = str(error).partition(" - at `$")
        where = f"$.shapes[{number}].points{inner.rstrip('`')}"
        raise Unusable("bad annotation", f"{where}: {problem}") from error


def _path(number: int, label: str) -> str:
    return f"$.shapes[{number}] ({label:.40})"


LABELME = Style(
    "labelme",
    LabelmeFile,
    read_shapes,
    names="all",
    names_image=True,
    shift=0,
    convention="continuous pixels from the image's corner, v 1 where marked occluded, else 2",
)
