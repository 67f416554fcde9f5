"""YOLO pose, as Ultralytics trains on it: data.yaml, images/ and labels/."""

from kpdata.formats.base import IMAGES, SKELETON, VISIBILITY, Format, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen) -> str | None:
    return "its key kpt_shape" if "kpt_shape" in seen.yaml else None


def _hint(seen: Seen) -> str | None:
    files = [seen / n for n in seen.names if n.endswith((".yaml", ".yml"))] or [seen]
    without = [file.path.name for file in files if {"names", "train"} <= file.yaml.keys()]
    return f"{without[0]} has no kpt_shape, so it is not of YOLO pose" if without else None


FORMAT = Format(
    name="yolo",
    summary="YOLO pose: data.yaml, images/ and labels/ with a text file per image",
    coordinates="normalised x/W, y/H of the upright image",
    visibility="v 0/1/2, 2 where not given",
    read=imported("kpdata.formats.yolo.read:read"),
    write=imported("kpdata.formats.yolo.write:write"),
    detect=_detect,
    hint=_hint,
    aliases=("yolo_pose", "ultralytics", "yolov8", "yolo11"),
    options=(IMAGES, SKELETON, VISIBILITY),
    has_splits=True,
)
