"""Format scores for tables."""

from collections.abc import Iterator, Mapping, Sequence

from kpdata.core.skeleton import Skeleton
from kpdata.metrics import Score
from kpdata.metrics.measure import Interval
from kpdata.metrics.poses import keypoint_groups

MISSING = "-"
_SHORT_UNITS = {"fraction": " %", "px": " px", "reference lengths": ""}


def amount(value: float | None, unit: str) -> str:
    """Format a score's value; fractions in percent."""
    return MISSING if value is None else f"{_number(value, unit)}{_SHORT_UNITS[unit]}"


def change(value: float | None, unit: str) -> str:
    """Format a difference of two values, with its sign; of fractions in percentage points."""
    if value is None:
        return MISSING
    return f"{_number(value, unit, '+')}{_SHORT_UNITS[unit].replace('%', 'pp')}"


def span(interval: Interval | None, unit: str, signed: bool = False) -> str:
    """Format a 95 % interval; with signs for a difference."""
    if interval is None:
        return MISSING
    return " … ".join(_number(end, unit, "+" if signed else "") for end in interval)


def headline(scores: Sequence[Score], leading: Score) -> str:
    """One line with the score to look at first, and what has been passed over for it."""
    unit = leading.unit
    line = f"{leading.name} {amount(leading.value, unit)}"
    if leading.interval:
        line += f" (95 %: {span(leading.interval, unit)})"
    line += f", baseline {amount(leading.baseline, unit)}"
    if (passed := scores[0]) != leading:
        line += (
            f"; {passed.name} {amount(passed.value, passed.unit)} is near its end, and says less"
        )
    return line


def keypoint_rows(skeleton: Skeleton) -> Iterator[tuple[str, str, bool]]:
    """Yield (label, name, whether left and right are averaged) for each row of a table.

    The average of a pair comes before its two keypoints, whose labels are indented.
    """
    for group, places in keypoint_groups(skeleton).items():
        yield group, group, True
        if len(places) > 1:
            for place in places:
                yield f"  {skeleton.keypoints[place]}", skeleton.keypoints[place], False


def by_reason(what: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each reason, with the metrics that it applies to."""
    for reason in dict.fromkeys(reasons.values()):
        names = ", ".join(name for name, why in reasons.items() if why == reason)
        yield f"{what}: {names}: {reason}"


def _number(value: float, unit: str, sign: str = "") -> str:
    if unit == "fraction":
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.2f}" if unit == "px" else f"{value:{sign}.3f}"
