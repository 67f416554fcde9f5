"""Curves of time and memory over the number of references."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Curve(NamedTuple):
    """One kind of run: seconds and MiB by the number of references."""

    seconds: Mapping[int, float]
    memory: Mapping[int, float]


def draw(curves: Mapping[str, Curve], path: Path) -> None:
    """Write a PNG: time on the left, with what linear growth would be; memory on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    times, memories = figure.subplots(1, 2)
    for name, curve in curves.items():
        (line,) = times.loglog(*_points(curve.seconds), "o-", label=name)
        count, seconds = max(curve.seconds.items())
        first = min(curve.seconds)
        linear = [seconds * first / count, seconds]
        times.loglog([first, count], linear, ":", color=line.get_color(), alpha=0.6)
        memories.semilogx(*_points(curve.memory), "o-", label=name)
    times.set(xlabel="references", ylabel="seconds", title="Time (dotted: linear)")
    memories.set(xlabel="references", ylabel="MiB", title="Peak memory of a process")
    memories.set_ylim(bottom=0)
    for axes in (times, memories):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _points(values: Mapping[int, float]) -> tuple[Iterable[int], Iterable[float]]:
    counts = sorted(values)
    return counts, [values[count] for count in counts]
