"""The boxes of COCO files and of COCO detections, and the ids of their images."""

from pathlib import Path

import msgspec

from kpdata.formats._lib import json_stream
from kpdata.formats.coco.index import Int64


class CocoBox(msgspec.Struct):
    """What an annotation, or a detection, says of an object's box.

    Attributes:
        image_id: of its image.
        bbox: x, y, width, height.
        score: a detector's.
        category_id: the object's class.
        iscrowd: whether it is a crowd.
    """

    image_id: Int64
    bbox: tuple[float, float, float, float] | None = None
    score: float | None = None
    category_id: Int64 = 1
    iscrowd: bool | int = 0


class _Image(msgspec.Struct):
    id: Int64
    file_name: str


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


def read_annotated_boxes(path: Path) -> list[CocoBox]:
    """The annotations of a COCO file, in its order.

    Raises:
        FormatError: it is not one.
    """
    return [
        box
        for _, first, raw in json_stream.batches(path, ("annotations",))
        for box in json_stream.decode_batch(path, "annotations", first, raw, CocoBox)
    ]


def decode_detections(path: Path, data: bytes) -> list[CocoBox]:
    """The entries of COCO's results format, a list; ``path`` is named in errors.

    Raises:
        FormatError: it is none.
    """
    return json_stream.decode(path, "$", data, list[CocoBox])
