"""Mending what other tools write into COCO files: each repair is counted, none is made up.

An entry that decodes as it should never comes here. What cannot be mended is left as it is, for the
decoder to refuse, or, where only values are at fault, named as the image's fault.
"""

import math
from collections import Counter
from typing import Any

WHOLE = "whole numbers written as decimals or text, read as numbers"
SIZES = "image sizes of 0 or without a number, read as unknown"
FLAGS = "iscrowd written as null, decimal or text, read as a flag"
EMPTY = "boxes and keypoints given as [], read as absent"
NULLS = "keypoint values of null, read as no number"
NUMBERS = "annotations without a usable id, numbered anew"

Entry = dict[str, Any]


def mend_image(entry: Entry, counts: Counter[str]) -> Entry:
    """An element of ``images`` whose id and size are whole numbers where they can be."""
    mended = dict(entry)
    if isinstance(entry.get("id"), float):  # text may be an id as it is
        mended["id"] = _whole(entry["id"], counts)
    for side in ("width", "height"):
        if side not in mended or mended[side] is None:
            continue
        mended[side] = _whole(mended[side], counts)
        if mended[side] in (0, ""):
            counts[SIZES] += 1
            mended[side] = None
    return mended


def mend_category(entry: Entry, counts: Counter[str]) -> Entry:
    """An element of ``categories`` whose id is a whole number, and whose keypoints may be null."""
    return entry | {"id": _whole(entry["id"], counts)} if "id" in entry else entry


def mend_annotation(entry: Entry, counts: Counter[str]) -> tuple[Entry, str]:
    """An element of ``annotations``, and what its values are at fault in.

    Returns:
        The entry, and "reason: detail" with {} in place of where; empty where nothing is at fault.
        A value at fault is taken out.
    """
    mended = dict(entry)
    if isinstance(entry.get("image_id"), float):
        mended["image_id"] = _whole(entry["image_id"], counts)
    if "category_id" in mended:
        mended["category_id"] = _whole(mended["category_id"], counts)
    if (number := mended.get("id")) is not None:
        number = _whole(number, counts)
    mended["id"] = number if _is_int64(number) else None
    fault = ""
    for key, mend, reason, expected in (
        ("iscrowd", _flag, "bad iscrowd", "0 or 1"),
        ("keypoints", _numbers, "bad keypoints", "a list of numbers"),
        ("bbox", _numbers, "bad box", "a list of numbers"),
        ("area", _number, "bad area", "a number"),
    ):
        if key not in mended:
            continue
        try:
            mended[key] = mend(mended[key], counts)
        except (TypeError, ValueError, OverflowError):
            shown = f"{entry[key]!r:.40}".replace("{", "{{").replace("}", "}}")
            fault = fault or f"{reason}: {{}}.{key} is {shown}: expected {expected}"
            mended[key] = 0 if key == "iscrowd" else None
    return mended, fault


def _whole(value: Any, counts: Counter[str]) -> Any:
    """``value`` as an int where it is one in another guise, else as it is."""
    number = value
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        number = int(value) if str(int(value)) == value else value
    counts[WHOLE] += type(number) is not type(value)
    return number


def _is_int64(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _flag(value: Any, counts: Counter[str]) -> int:
    if type(value) not in (int, bool):
        counts[FLAGS] += 1
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return int(value.lower() == "true")
    return int(bool(float(value or 0)))


def _number(value: Any, counts: Counter[str]) -> float | None:
    if isinstance(value, (list, dict, str)):
        raise TypeError(value)
    return None if value is None else float(value)


def _numbers(values: Any, counts: Counter[str]) -> list[float] | None:
    """A list of numbers, with NaN for null; None where there is no list."""
    if values is None:
        return None
    if not isinstance(values, list):
        raise TypeError(values)
    counts[NULLS] += values.count(None)
    return [math.nan if value is None else float(value) for value in _texts_refused(values)]


def _texts_refused(values: list[Any]) -> list[Any]:
    for value in values:
        if not (value is None or type(value) in (int, float)):
            raise TypeError(value)
    return values
