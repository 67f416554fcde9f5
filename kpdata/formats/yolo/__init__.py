"""YOLO pose, as Ultralytics trains on it: data.yaml, images/ and labels/."""

from kpdata.formats.base import IMAGES, SKELETON, Format, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen) -> str | None:
    return "its key kpt_shape" if "kpt_shape" in seen.yaml else None


FORMAT = Format(
    name="yolo",
    summary="YOLO pose: data.yaml, images/ and labels/ with a text file per image",
    coordinates="normalised x/W, y/H of the upright image",
    visibility="v 0/1/2, 2 where not given",
    read=imported("kpdata.formats.yolo.read:read"),
    write=imported("kpdata.formats.yolo.write:write"),
    detect=_detect,
    aliases=("yolo_pose", "ultralytics", "yolov8", "yolo11"),
    options=(IMAGES, SKELETON),
    has_splits=True,
)
