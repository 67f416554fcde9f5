"""The styles of per-image JSON files: what each looks like, and the objects it holds."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from kpdata.formats._lib.style import AnnotatedObject, Contents, Label, Point, Points, Style
from kpdata.formats.base import Unusable
from kpdata.formats.labelme.read import holds_shapes

_ITEM_KEYS = {"bbox": "box", "category": "label", "labels": "label"}
_TORCHVISION_KEYS = {"boxes": "bboxes"}
"""Other names of keys that are read → their own."""


class _Item(msgspec.Struct):
    keypoints: list[Point]
    box: list[float] | None = None
    label: Label | None = None


class _Torchvision(msgspec.Struct):
    keypoints: list[list[Point]]
    bboxes: list[list[float]] | None = None
    labels: list[Label] | None = None


def _list_objects(items: list[_Item]) -> Iterator[AnnotatedObject]:
    for number, item in enumerate(items):
        path = f"$[{number}].keypoints"
        keypoints: Points = {f"{path}[{i}]": point for i, point in enumerate(item.keypoints)}
        yield AnnotatedObject(path, keypoints, f"$[{number}].box", item.box, item.label)


def _torchvision_objects(value: _Torchvision) -> Iterator[AnnotatedObject]:
    count = len(value.keypoints)
    boxes: list[Any] = value.bboxes if value.bboxes is not None else [None] * count
    labels: list[Any] = value.labels if value.labels is not None else [None] * count
    for key, each, found in (("bboxes", "box", boxes), ("labels", "label", labels)):
        if len(found) != count:
            raise Unusable(
                "bad annotation",
                f"$.{key} holds {len(found)} {each}{'e' * (each == 'box')}s, "
                f"$.keypoints {count} objects: expected one {each} for each",
            )
    for number, points in enumerate(value.keypoints):
        path = f"$.keypoints[{number}]"
        keypoints: Points = {f"{path}[{i}]": point for i, point in enumerate(points)}
        box_path = f"$.bboxes[{number}]"
        yield AnnotatedObject(path, keypoints, box_path, boxes[number], labels[number])


def _named_objects(value: Points) -> Iterator[AnnotatedObject]:
    names = {name: f"$.{name}" for name in value}
    yield AnnotatedObject("$", {names[name]: value[name] for name in value}, names=names)


def _only(objects: Callable[[Any], Iterator[AnnotatedObject]]) -> Callable[[Any], Contents]:
    """What reads contents that are objects alone."""
    return lambda value: Contents(list(objects(value)), None, Counter())


STYLES = {
    style.name: style
    for style in (
        Style("list", list[_Item], _only(_list_objects), _ITEM_KEYS, _Item.__struct_fields__),
        Style(
            "torchvision",
            _Torchvision,
            _only(_torchvision_objects),
            _TORCHVISION_KEYS,
            _Torchvision.__struct_fields__,
        ),
        Style("named", Points, _only(_named_objects), names="first"),
    )
}


def recognise(value: object) -> Style:
    """The style that a decoded file looks like.

    Raises:
        Unusable: none of them, or another format.
    """
    if isinstance(value, dict) and holds_shapes(value):
        raise Unusable(
            "bad annotation",
            "a file of labelme's (it has shapes): read it as format labelme",
        )
    if isinstance(value, dict) and {"images", "annotations"} <= value.keys():
        raise Unusable(
            "bad annotation",
            "a COCO file (it has images and annotations): read it as format coco",
        )
    if isinstance(value, list):
        return STYLES["list"]
    if isinstance(value, dict):
        boxed = {"bboxes", "boxes", "keypoints"} & value.keys()
        return STYLES["torchvision" if boxed else "named"]
    raise Unusable("bad annotation", f"$ is {value!r:.40}: expected a list or an object")
