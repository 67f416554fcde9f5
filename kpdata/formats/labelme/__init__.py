"""labelme, and X-AnyLabeling, which writes the same layout: a JSON file per image."""

from kpdata.formats.base import IMAGES, SKELETON, Format, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen) -> str | None:
    first = seen.first_json
    if first is None or not first.json_keys.get("shapes", b"").startswith(b"["):
        return None
    return f"the key shapes of {first.path.name}"


FORMAT = Format(
    name="labelme",
    summary="labelme and X-AnyLabeling: a JSON file of shapes per image",
    coordinates="continuous pixels from the image's corner",
    visibility="v 1 where marked occluded, else 2",
    read=imported("kpdata.formats.labelme.read:read"),
    detect=_detect,
    aliases=("x_anylabeling", "xanylabeling", "anylabeling"),
    options=(IMAGES, SKELETON),
)
