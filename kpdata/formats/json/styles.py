"""The styles of per-image JSON files: what each looks like, and the objects it holds."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from kpdata.formats._lib.json_objects import AnnotatedObject, Label, Point, Points, StatedImage
from kpdata.formats.base import Unusable
from kpdata.formats.json.labelme import LabelmeFile, labelme_objects, stated_image

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


def _list_objects(items: list[_Item], _: Counter[str]) -> Iterator[AnnotatedObject]:
    for number, item in enumerate(items):
        path = f"$[{number}].keypoints"
        keypoints: Points = {f"{path}[{i}]": point for i, point in enumerate(item.keypoints)}
        yield AnnotatedObject(path, keypoints, f"$[{number}].box", item.box, item.label)


def _torchvision_objects(value: _Torchvision, _: Counter[str]) -> Iterator[AnnotatedObject]:
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


def _named_objects(value: Points, _: Counter[str]) -> Iterator[AnnotatedObject]:
    names = {name: f"$.{name}" for name in value}
    yield AnnotatedObject("$", {names[name]: value[name] for name in value}, names=names)


class Style(NamedTuple):
    """How one style decodes, and what is in what was decoded.

    Attributes:
        kind: the type to decode as.
        objects: the objects in it; what is left out is counted.
        synonyms, keys: other names of the keys that are read, and their own.
        image: what it says of its image; None where the image has the file's stem.
        shift: pixels, from the file's coordinates to continuous ones.
        convention: what its numbers are taken to mean.
    """

    kind: Any
    objects: Callable[[Any, Counter[str]], Iterator[AnnotatedObject]]
    synonyms: dict[str, str] | None = None
    keys: tuple[str, ...] = ()
    image: Callable[[Any, Counter[str]], StatedImage] | None = None
    shift: float = 0.5
    convention: str = "0-based pixel indices, boxes continuous xyxy, v 0/1/2, 2 where not given"

    def tidied(self, value: Any, unread: Counter[str]) -> Any:
        """``value`` with its keys by their own names; keys that are not read are counted."""
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
    "labelme": Style(
        LabelmeFile,
        labelme_objects,
        image=stated_image,
        shift=0,
        convention="continuous pixels from the image's corner, v 1 where marked occluded, else 2",
    ),
}


def recognise(value: object) -> str:
    """The style that a decoded file looks like.

    Raises:
        Unusable: none of them, or another format.
    """
    if isinstance(value, dict) and _is_shapes(value.get("shapes")):
        return "labelme"
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


def _is_shapes(value: object) -> bool:
    """Whether it is labelme's; a keypoint called "shapes" would hold numbers."""
    return isinstance(value, list) and all(isinstance(shape, dict) for shape in value)
