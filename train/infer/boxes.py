"""Read the boxes around which crops are cut, by file."""

import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np

from kpdata.core.errors import FormatError
from kpdata.core.sample import FloatArray
from kpdata.formats.base import LARGEST
from kpdata.formats.coco.boxes import (
    CocoBox,
    decode_detections,
    read_annotated_boxes,
    read_image_ids,
)
from kpdata.storage.bounded import read_bounded

T = TypeVar("T")
_XYXY = tuple[float, float, float, float]
_Plain = list[_XYXY] | dict[Annotated[int, msgspec.Meta(ge=0)], list[_XYXY]]
"""The boxes of a file, or of its frames by number."""

_MOST_BYTES = 256 << 20

_FORMS = (
    'a COCO file ({"images": [...], "annotations": [...]}), COCO detections ([{"image_id": 1, '
    '"bbox": [x, y, width, height], "score": 0.9}, ...], with `coco_images`), or '
    '{"photo.jpg": [[x0, y0, x1, y1], ...], "clip.mp4": {"0": [[x0, y0, x1, y1], ...], ...}}'
)


@dataclass(frozen=True, eq=False)
class Box:
    """A box of one object.

    Attributes:
        bbox_xyxy: (4,) continuous pixels of the upright image.
        score: the detector's.
        category_id: the object's class.
    """

    bbox_xyxy: FloatArray
    score: float = 1.0
    category_id: int = 1


@dataclass(frozen=True)
class BoxFilter:
    """Which boxes of a COCO file or a detector are used.

    Attributes:
        category: their ``category_id``; None where all that there are share one.
        min_score: the least score.
    """

    category: int | None = None
    min_score: float = 0.0


ANY = BoxFilter()
"""Boxes of any score, of one category."""

FileBoxes = tuple[Box, ...] | Mapping[int, tuple[Box, ...]]
"""The boxes of an image or of every frame of a video; or of a video's frames, by number from 0."""


class ByName(Generic[T]):
    """Values of files by name. A path matches the longest known end of it.

    Where none is, a file of the same base name does, if there is only one.
    """

    def __init__(self, values: Mapping[str, T]):
        self._values = dict(values)
        self._by_base: dict[str, list[T]] = defaultdict(list)
        for name, value in values.items():
            self._by_base[PurePath(name).name].append(value)

    def get(self, path: Path) -> T | None:
        """The value of the file at ``path``."""
        parts = path.as_posix().split("/")
        for start in range(len(parts)):
            if (name := "/".join(parts[start:])) in self._values:
                return self._values[name]
        alike = self._by_base.get(path.name, [])
        return alike[0] if len(alike) == 1 else None


class Boxes(ByName[FileBoxes]):
    """The boxes of files by name, and those that were left out.

    Attributes:
        unusable: where each that is no box stands in the file, and what is wrong with it.
        left_out: how many others there are, by reason.
    """

    def __init__(
        self,
        values: Mapping[str, FileBoxes],
        unusable: Sequence[str] = (),
        left_out: Mapping[str, int] = MappingProxyType({}),
    ):
        super().__init__(values)
        self.unusable, self.left_out = tuple(unusable), dict(left_out)


def read_boxes(
    path: Path, image_ids: Mapping[str, int] | None = None, chosen: BoxFilter = ANY
) -> Boxes:
    """The boxes of each file: of a COCO file, of COCO detections, or a plain list by file name.

    Crowds are left out, and what has no box or none with width and height.

    Args:
        path: the JSON file.
        image_ids: file name → id, which detections need.
        chosen: leaves out others; a plain list has neither categories nor scores to choose by.

    Raises:
        FormatError: the file is none of these, an entry is no box, no box is of use, or they are of
            several categories and none is chosen; the message says where.
    """
    try:
        data = read_bounded(path, _MOST_BYTES)
    except OSError as error:
        raise FormatError(f"{path}: cannot read: {error.strerror}") from error
    start = data.lstrip()[:1]
    if start == b"[":
        if image_ids is None:
            raise FormatError(
                f"{path}: detections know images by number: give `coco_images`, a COCO file"
            )
        found = decode_detections(path, data)
        return _by_image(path, found, image_ids, chosen)
    if start != b"{":
        raise FormatError(f"{path}: holds no boxes: expected {_FORMS}")
    plain = _plain(path, data)
    if plain is None:
        return _by_image(path, read_annotated_boxes(path), read_image_ids(path), chosen)
    return _by_name(path, plain, chosen)


def boxes_of(given: Mapping[str, Any], chosen: BoxFilter = ANY) -> Boxes:
    """Boxes from a mapping in memory: file name → (N, 4) x0, y0, x1, y1, or one box.

    For a video that can be a mapping of frame number → the same.

    Raises:
        FormatError: a value is no box.
    """
    plain: dict[str, _Plain] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            plain[str(name)] = {
                int(number): _rows(f"{name}, frame {number}", each)
                for number, each in value.items()
            }
        else:
            plain[str(name)] = _rows(str(name), value)
    return _by_name(Path("boxes"), plain, chosen)


def _rows(name: str, value: Any) -> list[_XYXY]:
    array = np.asarray(value, np.float64)
    if array.size and array.shape[-1:] != (4,):
        raise FormatError(
            f"boxes of {name} have shape {array.shape}: expected (N, 4), x0, y0, x1, y1"
        )
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in array.reshape(-1, 4).tolist()]


def _by_name(path: Path, plain: Mapping[str, _Plain], chosen: BoxFilter) -> Boxes:
    if chosen != ANY:
        raise FormatError(
            f"{path}: a plain list of boxes has no categories and no scores: leave out `category` "
            "and `min_box_score`"
        )
    placed = {}
    for name, given in plain.items():
        for number, boxes in given.items() if isinstance(given, dict) else [(None, given)]:
            where = f"$.{name}" if number is None else f"$.{name}.{number}"
            placed[name, number] = [
                (f"{where}[{i}]", Box(np.array(box))) for i, box in enumerate(boxes)
            ]
    return _usable(path, placed)


def _plain(path: Path, data: bytes) -> dict[str, _Plain] | None:
    """Boxes listed by file name; None if the file is of another form.

    Raises:
        FormatError: an entry is no list of boxes.
    """
    try:
        entries = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _plain_with_nan(data)
    if "images" in entries or not all(bytes(e)[:1] in (b"[", b"{") for e in entries.values()):
        return None
    boxes: dict[str, _Plain] = {}
    for name, entry in entries.items():
        try:
            boxes[name] = msgspec.json.decode(entry, type=_Plain)
        except (msgspec.DecodeError, RecursionError) as error:
            raise FormatError(
                f"{path}: {name}: {error}: expected a list of boxes, [[x0, y0, x1, y1], ...], or "
                "such a list for each frame by its number from 0"
            ) from error
    return boxes


def _plain_with_nan(data: bytes) -> dict[str, _Plain] | None:
    """The same of a file that holds NaN or Infinity, which Python writes and JSON does not know."""
    if b'"images"' in data:
        return None  # a COCO file, which would take much memory
    try:
        return msgspec.convert(json.loads(data), dict[str, _Plain], str_keys=True)
    except (ValueError, RecursionError, msgspec.ValidationError):
        return None


def _by_image(
    path: Path, annotations: Sequence[CocoBox], image_ids: Mapping[str, int], chosen: BoxFilter
) -> Boxes:
    names = {number: name for name, number in image_ids.items()}
    boxes: dict[tuple[str, int | None], list[tuple[str, Box]]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    _check_choice(path, annotations, chosen)
    for number, entry in enumerate(annotations):
        if reason := _why_not(entry, names, chosen):
            left_out[reason] += 1
            continue
        assert entry.bbox is not None, "or there is a reason"
        x, y, width, height = entry.bbox
        score = 1.0 if entry.score is None else entry.score
        box = Box(np.array([x, y, x + width, y + height]), score, entry.category_id)
        boxes[names[entry.image_id], None].append((f"annotation {number}: bbox", box))
    _check_one_class(path, [box for placed in boxes.values() for _, box in placed])
    return _usable(path, boxes, left_out)


def _why_not(entry: CocoBox, names: Container[int], chosen: BoxFilter) -> str | None:
    """Why an entry is not used, as a name to count by; None if it is used."""
    if entry.iscrowd:
        return "crowd"
    if entry.bbox is None:
        return "no bbox"
    if entry.image_id not in names:
        return "image unknown to the COCO file"
    if chosen.category not in (None, entry.category_id):
        return "other category"
    return "low score" if entry.score is not None and entry.score < chosen.min_score else None


def _check_choice(path: Path, annotations: Sequence[CocoBox], chosen: BoxFilter) -> None:
    """Raise FormatError if no box passes the filter."""
    classes = {entry.category_id for entry in annotations}
    if chosen.category not in (None, *classes):
        known = ", ".join(map(str, sorted(classes)))
        raise FormatError(f"category is {chosen.category}: no box of {path} is; known: {known}")
    if chosen.min_score > 0 and all(entry.score is None for entry in annotations):
        raise FormatError(f"{path}: no box has a score: leave out `min_box_score`")


def _check_one_class(path: Path, boxes: Iterable[Box]) -> None:
    """Raise FormatError if boxes of several classes would be used."""
    classes = Counter(box.category_id for box in boxes)
    if len(classes) > 1:
        found = ", ".join(f"{number} ({classes[number]:,} boxes)" for number in sorted(classes))
        raise FormatError(
            f"{path}: holds boxes of several categories: {found}. Choose that of the run's objects "
            "by its number, as `category`"
        )


def _usable(
    path: Path,
    placed: Mapping[tuple[str, int | None], Iterable[tuple[str, Box]]],
    left_out: Mapping[str, int] = MappingProxyType({}),
) -> Boxes:
    """The boxes that have an extent, of files and, where they are numbered, of frames.

    Each comes with its path in the file, for messages.

    Raises:
        FormatError: there are some, and none of them does.
    """
    whole: dict[str, tuple[Box, ...]] = {}
    by_frame: dict[str, dict[int, tuple[Box, ...]]] = defaultdict(dict)
    faults = []
    some = False
    for (name, number), boxes in placed.items():
        found = [(where, box, _fault(box.bbox_xyxy)) for where, box in boxes]
        faults += [f"{where} {fault}" for where, _, fault in found if fault]
        usable = tuple(box for _, box, fault in found if not fault)
        some |= bool(usable)
        if number is None:
            whole[name] = usable
        else:
            by_frame[name][number] = usable
    if faults and not some:
        raise FormatError(f"{path}: {faults[0]}, and no other box is of use")
    return Boxes({**whole, **by_frame}, faults, left_out)


def _fault(bbox_xyxy: FloatArray) -> str | None:
    if (np.abs(bbox_xyxy) <= LARGEST).all() and (bbox_xyxy[2:] > bbox_xyxy[:2]).all():
        return None
    low, high = bbox_xyxy[:2].tolist(), bbox_xyxy[2:].tolist()
    return (
        f"reaches from {low} to {high}: expected finite pixels, and a right lower corner to the "
        "right of and below the left upper one"
    )
