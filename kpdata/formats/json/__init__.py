"""A JSON file per image, in the styles that scripts write: list, torchvision and named."""

import msgspec

from kpdata.formats.base import IMAGES, PIXEL_ORIGIN, SKELETON, VISIBILITY, Format, Option, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen) -> str | None:
    for file in seen.json_files:
        if evidence := _style_of(file):
            return f"{evidence} of {file.path.name}"
    return None


def _hint(seen: Seen) -> str | None:
    return "give the folder of the JSON files, one per image" if _style_of(seen) else None


def _style_of(seen: Seen) -> str | None:
    """What in a JSON file is that of one image; None where nothing is."""
    if seen.is_cut or not seen.json_keys:
        return None
    try:
        value = msgspec.json.decode(seen.head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    objects = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in objects):
        return None
    if all("keypoints" in one for one in objects) and "image_id" not in objects[0]:
        return "the key keypoints"
    named = not isinstance(value, list) and value and all(map(_is_point, value.values()))
    return "the named points" if named else None


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
    hint=_hint,
    options=(
        IMAGES,
        SKELETON,
        Option(
            "style",
            "The style of the files. Default: the one that is recognised.",
            "STYLE",
            ("list", "torchvision", "named"),
        ),
        VISIBILITY,
        PIXEL_ORIGIN,
    ),
)
