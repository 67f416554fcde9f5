"""COCO keypoints: one JSON file, of any category and any number of keypoints."""

from kpdata.formats.base import IMAGES, PIXEL_ORIGIN, SKELETON, VISIBILITY, Format, Option, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen) -> str | None:
    keys = seen.json_keys
    if seen.is_json_list:
        return None
    if {"images", "categories"} <= keys.keys():  # captions have none
        named = [key for key in ("images", "annotations", "categories") if key in keys]
        return f"its keys {', '.join(named)}"
    for key, part in (("images", b'"file_name"'), ("annotations", b'"image_id"')):
        if seen.is_cut and part in keys.get(key, b""):
            return f"its key {key}, of objects with {part.decode()}"
    return None


FORMAT = Format(
    name="coco",
    summary="COCO keypoints: one JSON file, any category and any number of keypoints",
    coordinates="0-based pixel indices, boxes continuous xywh",
    visibility="v 0/1/2",
    read=imported("kpdata.formats.coco.read:read"),
    write=imported("kpdata.formats.coco.write:write"),
    detect=_detect,
    aliases=("cocokeypoints", "coco_keypoints", "coco_json", "mscoco"),
    options=(
        IMAGES,
        Option(
            "category",
            "The category to read, if there are several with different keypoints.",
            "NAME",
        ),
        SKELETON,
        VISIBILITY,
        PIXEL_ORIGIN,
    ),
)
