"""Repairs of what other tools write into COCO files: numbers as text, sizes of 0, null values.

Only entries that do not decode as they are come here, and every repair is counted. A structure that
cannot be repaired stays as it is, for the decoder to refuse; a value that cannot be repaired costs
its image, with a reason.
"""

import math
from collections import Counter
from typing import Any

WHOLE = "whole numbers written as decimals or text, read as numbers"
SIZES = "image sizes of 0 or without a number, read as unknown"
FLAGS = "iscrowd written as null, decimal or text, read as a flag"
EMPTY = "boxes and keypoints given as [], read as absent"
NULLS = "keypoint values of null, read as no number"
NESTED = "keypoints given as [[x, y, v], ...], read as one list"
NUMBERS = "annotations without a usable id, numbered anew"

Entry = dict[str, Any]


class Mender:
    """Repairs entries, one at a time.

    Attributes:
        counts: how often each repair was made, by its name.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def image(self, entry: Entry) -> Entry:
        """An element of ``images`` whose id and size are whole numbers where they can be."""
        mended = dict(entry)
        if isinstance(entry.get("id"), float):  # text may be an id as it is
            mended["id"] = self._whole(entry["id"])
        for side in ("width", "height"):
            if side not in mended or mended[side] is None:
                continue
            mended[side] = self._whole(mended[side])
            if mended[side] in (0, ""):
                self.counts[SIZES] += 1
                mended[side] = None
        return mended

    def category(self, entry: Entry) -> Entry:
        """An element of ``categories`` whose id is a whole number where it can be."""
        return entry | {"id": self._whole(entry["id"])} if "id" in entry else entry

    def annotation(self, entry: Entry) -> tuple[Entry, str]:
        """An element of ``annotations``, and the fault of the first value that cannot be mended.

        Returns:
            The entry without the values at fault, and "reason: detail", in which {} stands for the
            entry's path in the file. The text is empty where nothing is at fault.
        """
        mended = dict(entry)
        if isinstance(entry.get("image_id"), float):
            mended["image_id"] = self._whole(entry["image_id"])
        if "category_id" in mended:
            mended["category_id"] = self._whole(mended["category_id"])
        if (number := mended.get("id")) is not None:
            number = self._whole(number)
        is_int64 = type(number) is int and -(2**63) <= number < 2**63
        mended["id"] = number if is_int64 else None
        fault = ""
        for key, mend, reason, expected in (
            ("iscrowd", self._flag, "bad iscrowd", "0 or 1"),
            ("keypoints", self._keypoints, "bad keypoints", "a list of numbers"),
            ("bbox", self._numbers, "bad box", "a list of numbers"),
            ("area", _number, "bad area", "a number"),
        ):
            if key not in mended:
                continue
            try:
                mended[key] = mend(mended[key])
            except (TypeError, ValueError, OverflowError):
                shown = f"{entry[key]!r:.40}".replace("{", "{{").replace("}", "}}")
                fault = fault or f"{reason}: {{}}.{key} is {shown}: expected {expected}"
                mended[key] = 0 if key == "iscrowd" else None
        return mended, fault

    def _whole(self, value: Any) -> Any:
        """``value`` as an int where it is a whole number as decimal or text, else as it is."""
        number = value
        if isinstance(value, float) and value.is_integer():
            number = int(value)
        elif isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            number = int(value) if str(int(value)) == value else value
        self.counts[WHOLE] += type(number) is not type(value)
        return number

    def _flag(self, value: Any) -> int:
        if type(value) not in (int, bool):
            self.counts[FLAGS] += 1
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return int(value.lower() == "true")
        return int(bool(float(value or 0)))

    def _keypoints(self, values: Any) -> list[float] | None:
        """A list of numbers, of one list for each keypoint too."""
        if isinstance(values, list) and values and all(isinstance(v, list) for v in values):
            self.counts[NESTED] += 1
            values = [number for value in values for number in value]
        return self._numbers(values)

    def _numbers(self, values: Any) -> list[float] | None:
        """A list of numbers, with NaN for null; None where there is no list."""
        if values is None:
            return None
        if not isinstance(values, list):
            raise TypeError(values)
        self.counts[NULLS] += values.count(None)
        for value in values:
            if not (value is None or type(value) in (int, float)):
                raise TypeError(value)
        return [math.nan if value is None else float(value) for value in values]


def _number(value: Any) -> float | None:
    if isinstance(value, (list, dict, str)):
        raise TypeError(value)
    return None if value is None else float(value)
