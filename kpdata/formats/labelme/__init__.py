"""labelme, and X-AnyLabeling, which writes the same layout: a JSON file per image."""

from kpdata.formats.base import IMAGES, SKELETON, Format, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen) -> str | None:
    for file in seen.json_files:
        if _holds_shapes(file):
            return f"the key shapes of {file.path.name}"
    return None


def _holds_shapes(seen: Seen) -> bool:
    return not seen.is_json_list and seen.json_keys.get("shapes", b"").startswith(b"[")


def _hint(seen: Seen) -> str | None:
    return "give the folder of labelme's files" if _holds_shapes(seen) else None


FORMAT = Format(
    name="labelme",
    summary="labelme and X-AnyLabeling: a JSON file of shapes per image",
    coordinates="continuous pixels from the image's corner",
    visibility="v 1 where marked occluded, else 2",
    read=imported("kpdata.formats.labelme.read:read"),
    detect=_detect,
    hint=_hint,
    aliases=("x_anylabeling", "xanylabeling", "anylabeling"),
    options=(IMAGES, SKELETON),
)
