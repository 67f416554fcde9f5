"""Boxes to look into, and the numbers that a COCO file gives its images."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Generic, TypeVar

import msgspec
import numpy as np

from kpdata.bounded import read_bounded
from kpdata.errors import FormatError
from kpdata.formats import json_stream
from kpdata.formats.coco_index import Int64
from kpdata.formats.source import LARGEST
from kpdata.schema import FloatArray

T = TypeVar("T")
_XYXY = tuple[float, float, float, float]

_MOST_BYTES = 256 << 20

_FORMS = (
    'a COCO file ({"images": [...], "annotations": [...]}), COCO detections ([{"image_id": 1, '
    '"bbox": [x, y, width, height], "score": 0.9}, ...], with --coco-images), or '
    '{"photo.jpg": [[x0, y0, x1, y1], ...]}'
)


@dataclass(frozen=True, eq=False)
class Box:
    """Where an object is.

    Attributes:
        bbox_xyxy: (4,) continuous pixels of the upright image.
        score: the detector's.
        category_id: the object's class.
    """

    bbox_xyxy: FloatArray
    score: float = 1.0
    category_id: int = 1


class ByName(Generic[T]):
    """Values of files by name: the longest end of a path that is known counts.

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


class Boxes(ByName[tuple[Box, ...]]):
    """The boxes of files by name, and those that were left out as they are none.

    Attributes:
        unusable: where each lies in the file, and what is wrong with it.
    """

    def __init__(self, values: Mapping[str, tuple[Box, ...]], unusable: Sequence[str] = ()):
        super().__init__(values)
        self.unusable = tuple(unusable)


class _Image(msgspec.Struct):
    id: Int64
    file_name: str


class _Annotation(msgspec.Struct):
    image_id: Int64
    bbox: tuple[float, float, float, float] | None = None
    score: float = 1.0
    category_id: Int64 = 1
    iscrowd: bool | int = 0


def read_image_ids(path: Path) -> dict[str, int]:
    """``file_name`` → ``id`` of the images of a COCO file.

    Raises:
        FormatError: it is not one.
    """
    return {
        image.file_name: image.id
        for _, first, raw in json_stream.batches(path, ("images",))
        for image in json_stream.decode_batch(path, "images", first, raw, _Image)
    }


def read_boxes(path: Path, image_ids: Mapping[str, int] | None = None) -> Boxes:
    """The boxes of each file: of a COCO file, of COCO detections, or a plain list by file name.

    Crowds are left out, and boxes without width or height.

    Args:
        path: the JSON file.
        image_ids: file name → id, which detections need.

    Raises:
        FormatError: the file is none of these, an entry is no box, or no box is of use; the
            message says where.
    """
    try:
        data = read_bounded(path, _MOST_BYTES)
    except OSError as error:
        raise FormatError(f"{path}: cannot read: {error.strerror}") from error
    start = data.lstrip()[:1]
    if start == b"[":
        if image_ids is None:
            raise FormatError(f"{path}: detections know images by number: add --coco-images FILE")
        found = json_stream.decode(path, "$", data, list[_Annotation])
        return _by_image(path, found, image_ids)
    if start != b"{":
        raise FormatError(f"{path}: holds no boxes: expected {_FORMS}")
    plain = _plain(path, data)
    if plain is None:
        return _by_image(path, _annotations(path), read_image_ids(path))
    return _usable(
        path,
        {
            name: [(f"$.{name}[{i}]", Box(np.array(box))) for i, box in enumerate(boxes)]
            for name, boxes in plain.items()
        },
    )


def _plain(path: Path, data: bytes) -> dict[str, list[_XYXY]] | None:
    """A plain list by file name; None where the file is not meant as one.

    Raises:
        FormatError: an entry is no list of boxes.
    """
    try:
        entries = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not all(bytes(entry)[:1] == b"[" for entry in entries.values()) or "images" in entries:
        return None
    boxes = {}
    for name, entry in entries.items():
        try:
            boxes[name] = msgspec.json.decode(entry, type=list[_XYXY])
        except (msgspec.DecodeError, RecursionError) as error:
            raise FormatError(
                f"{path}: {name}: {error}: expected a list of boxes, [[x0, y0, x1, y1], ...]"
            ) from error
    return boxes


def _annotations(path: Path) -> list[_Annotation]:
    return [
        annotation
        for _, first, raw in json_stream.batches(path, ("annotations",))
        for annotation in json_stream.decode_batch(path, "annotations", first, raw, _Annotation)
    ]


def _by_image(
    path: Path, annotations: Iterable[_Annotation], image_ids: Mapping[str, int]
) -> Boxes:
    names = {number: name for name, number in image_ids.items()}
    boxes: dict[str, list[tuple[str, Box]]] = defaultdict(list)
    for place, entry in enumerate(annotations):
        if entry.bbox is None or entry.iscrowd or entry.image_id not in names:
            continue
        x, y, width, height = entry.bbox
        box = Box(np.array([x, y, x + width, y + height]), entry.score, entry.category_id)
        boxes[names[entry.image_id]].append((f"annotation {place}: bbox", box))
    return _usable(path, boxes)


def _usable(path: Path, placed: Mapping[str, Iterable[tuple[str, Box]]]) -> Boxes:
    """Those that show something, each of which came with its place in the file.

    Raises:
        FormatError: there are some, and none of them does.
    """
    usable: dict[str, list[Box]] = {name: [] for name in placed}
    faults = []
    for name, boxes in placed.items():
        for place, box in boxes:
            if fault := _fault(box.bbox_xyxy):
                faults.append(f"{place} {fault}")
            else:
                usable[name].append(box)
    if faults and not any(usable.values()):
        raise FormatError(f"{path}: {faults[0]}, and no other box is of use")
    return Boxes({name: tuple(boxes) for name, boxes in usable.items()}, faults)


def _fault(bbox_xyxy: FloatArray) -> str | None:
    if (np.abs(bbox_xyxy) <= LARGEST).all() and (bbox_xyxy[2:] > bbox_xyxy[:2]).all():
        return None
    low, high = bbox_xyxy[:2].tolist(), bbox_xyxy[2:].tolist()
    return (
        f"reaches from {low} to {high}: expected finite pixels, and a right lower corner to the "
        "right of and below the left upper one"
    )
