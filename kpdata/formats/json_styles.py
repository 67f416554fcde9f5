"""The styles of per-image JSON files: what each looks like, and the objects it holds."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import msgspec

Point = list[float | None] | None
"""[x, y], [x, y, v] or null."""

Points = dict[str, Point]
"""JSON path → point."""

_ITEM_KEYS = {"bbox": "box", "category": "label", "labels": "label"}
_TORCHVISION_KEYS = {"boxes": "bboxes"}
"""Other names of keys that are read → their own."""

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
    keypoints: list[Point]
    box: list[float] | None = None
    label: Label | None = None


class _Torchvision(msgspec.Struct):
    keypoints: list[list[Point]]
    bboxes: list[list[float]] | None = None
    labels: list[Label] | None = None


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
    yield AnnotatedObject("$", {f"$.{name}": point for name, point in value.items()})


class Style(NamedTuple):
    """How one style decodes, the objects in what was decoded, and other names of its keys."""

    kind: Any
    objects: Callable[[Any], Iterator[AnnotatedObject]]
    synonyms: dict[str, str] | None = None
    keys: tuple[str, ...] = ()

    def tidied(self, value: Any, unread: Counter[str]) -> Any:
        """``value`` with its keys by their own names; keys that are not read are counted."""
        if self.synonyms is None:
            return value
        if isinstance(value, list):
            return [self._tidied(item, unread) for item in value]
        return self._tidied(value, unread)

    def _tidied(self, value: Any, unread: Counter[str]) -> Any:
        if not isinstance(value, dict) or self.synonyms is None:
            return value
        tidy: dict[str, Any] = {}
        for key, inner in value.items():
            own = self.synonyms.get(key, key)
            if own in self.keys and own not in tidy and (own == key or own not in value):
                tidy[own] = inner
            else:
                unread[f"keys not read: {key:.40}"] += 1
        return tidy


STYLES = {
    "list": Style(list[_Item], _list_objects, _ITEM_KEYS, _Item.__struct_fields__),
    "torchvision": Style(
        _Torchvision, _torchvision_objects, _TORCHVISION_KEYS, _Torchvision.__struct_fields__
    ),
    "named": Style(Points, _named_objects),
}


def recognise(value: object) -> str:
    """The style that a decoded file looks like.

    Raises:
        Unusable: none of them, or another format.
    """
    if isinstance(value, dict) and isinstance(value.get("shapes"), list):
        raise Unusable(
            "bad annotation",
            'a labelme file (it has "shapes"), which kpdata does not read: write a COCO file of '
            "these, with labelme2coco say, and read that with `kpdata convert coco`",
        )
    if isinstance(value, dict) and {"images", "annotations"} <= value.keys():
        raise Unusable(
            "bad annotation",
            "a COCO file (it has images and annotations): read it with `kpdata convert coco`",
        )
    if isinstance(value, list):
        return "list"
    if isinstance(value, dict):
        return "torchvision" if {"bboxes", "boxes", "keypoints"} & value.keys() else "named"
    raise Unusable("bad annotation", f"$ is {value!r:.40}: expected a list or an object")
