"""The styles of per-image JSON files: what each looks like, and the objects it holds."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import msgspec

Points = dict[str, list[float] | None]
"""JSON path → [x, y], [x, y, v] or null."""


Label = str | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A class by name or by number, which must fit a record."""


class AnnotatedObject(NamedTuple):
    """One object as its file has it; ``path`` and the keys of ``keypoints`` are JSON paths."""

    path: str
    keypoints: Points
    box_path: str = ""
    box: list[float] | None = None
    label: Label | None = None


class _Item(msgspec.Struct):
    keypoints: list[list[float]]
    box: list[float] | None = None
    label: Label | None = None


class _Torchvision(msgspec.Struct):
    keypoints: list[list[list[float]]]
    bboxes: list[list[float]] | None = None


class Unusable(Exception):
    """One annotation file cannot be used."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def _list_objects(items: list[_Item]) -> Iterator[AnnotatedObject]:
    for number, item in enumerate(items):
        path = f"$[{number}].keypoints"
        keypoints: Points = {f"{path}[{i}]": point for i, point in enumerate(item.keypoints)}
        yield AnnotatedObject(path, keypoints, f"$[{number}].box", item.box, item.label)


def _torchvision_objects(value: _Torchvision) -> Iterator[AnnotatedObject]:
    boxes = [None] * len(value.keypoints) if value.bboxes is None else value.bboxes
    if len(boxes) != len(value.keypoints):
        raise Unusable(
            "bad annotation",
            f"$.bboxes holds {len(boxes)} boxes, $.keypoints {len(value.keypoints)} objects: "
            "expected one box for each",
        )
    for number, (points, box) in enumerate(zip(value.keypoints, boxes, strict=True)):
        path = f"$.keypoints[{number}]"
        keypoints: Points = {f"{path}[{i}]": point for i, point in enumerate(points)}
        yield AnnotatedObject(path, keypoints, f"$.bboxes[{number}]", box)


def _named_objects(value: dict[str, list[float] | None]) -> Iterator[AnnotatedObject]:
    yield AnnotatedObject("$", {f"$.{name}": point for name, point in value.items()})


class Style(NamedTuple):
    """How one style decodes, and the objects in what was decoded."""

    kind: Any
    objects: Callable[[Any], Iterator[AnnotatedObject]]


STYLES = {
    "list": Style(list[_Item], _list_objects),
    "torchvision": Style(_Torchvision, _torchvision_objects),
    "named": Style(dict[str, list[float] | None], _named_objects),
}


def recognise(value: object) -> str:
    """The style that a decoded file looks like.

    Raises:
        Unusable: none of them.
    """
    if isinstance(value, list):
        return "list"
    if isinstance(value, dict):
        return "torchvision" if {"bboxes", "keypoints"} & value.keys() else "named"
    raise Unusable("bad annotation", f"$ is {value!r:.40}: expected a list or an object")
