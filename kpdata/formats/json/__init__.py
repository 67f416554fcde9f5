"""A JSON file per image, in the styles that scripts write: list, torchvision and named."""

import msgspec

from kpdata.formats.base import IMAGES, SKELETON, Format, Option, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen) -> str | None:
    first = seen.first_json
    if first is None or first.is_cut:
        return None
    try:
        value = msgspec.json.decode(first.head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    objects = value if isinstance(value, list) else [value]
    if not objects or not all(isinstance(one, dict) for one in objects):
        return None
    if all("keypoints" in one for one in objects) and "image_id" not in objects[0]:
        return f"the key keypoints of {first.path.name}"
    named = not isinstance(value, list) and value and all(map(_is_point, value.values()))
    return f"the named points of {first.path.name}" if named else None


def _is_point(value: object) -> bool:
    numbers = isinstance(value, list) and all(isinstance(n, int | float) for n in value)
    return value is None or (numbers and len(value) in (2, 3))  # type: ignore[arg-type]


FORMAT = Format(
    name="json",
    summary="one JSON file per image; styles list, torchvision, named",
    coordinates="0-based pixel indices, boxes continuous xyxy",
    visibility="v 0/1/2, 2 where not given",
    read=imported("kpdata.formats.json.read:read"),
    detect=_detect,
    options=(
        IMAGES,
        SKELETON,
        Option(
            "style",
            "The files' style, where it is not to be recognised.",
            "STYLE",
            ("list", "torchvision", "named"),
        ),
    ),
)
