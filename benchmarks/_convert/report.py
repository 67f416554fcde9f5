"""The report: sections of tables, in Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .race import CLOCKS, COMMAND, JOB, WORK, Laps

EXPLANATION = """\
Three clocks: **command** is the whole process from its start to its end; **job** leaves out its
start-up (imports); **work** is the images alone: for kpdata the write phase with the start and the
end of its workers, for a loop the loop. All stop when the output is synced; **unsynced** is
**work** without that.

A **whole** ratio is one of rates on all images, within one round; given are the median of the
rounds and their range. A **marginal** rate is that of further images: every contender also handles
a quarter of the images, and the further images are divided by the further seconds, by the same
clock, between the medians of the rounds. What a run costs once, whatever its size, is not in it.

With a **warm page cache** every image is in memory before each lap. With a **cold** one none is,
which mincore(2) confirms: every contender reads from the disk that it also writes to, as with a
dataset larger than memory. (A virtual machine's host may still hold the files.)"""


@dataclass(frozen=True)
class Ratio:
    """A ratio in every round, and where it should be.

    Attributes:
        what: is divided by what.
        values: by round.
        target: of the median, and of ``marginal``.
        at_least: the target is a lower bound, else an upper one.
        marginal: the ratio of the marginal rates, where there are any.
    """

    what: str
    values: list[float]
    target: float
    at_least: bool = True
    marginal: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The ratio's line of the table."""
        low, high = min(self.values), max(self.values)
        return (
            self.what,
            f"{'≥' if self.at_least else '≤'} {self.target:g}",
            self._judged(statistics.median(self.values)),
            f"{low:.2f} – {high:.2f}",
            "–" if self.marginal is None else self._judged(self.marginal),
        )

    def _judged(self, value: float) -> str:
        reached = value >= self.target if self.at_least else value <= self.target
        return f"**{value:.2f}** {'✓' if reached else '✗'}"


@dataclass(frozen=True)
class Section:
    """One part's results: a table of what was measured, and the ratios."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    ratios: list[Ratio]
    raw: dict[str, Any] = field(default_factory=dict)


def ratios_of(laps: dict[str, Laps], ours: str, theirs: str, target: float) -> list[Ratio]:
    """How one contender's rates compare with another's, by every clock."""
    return [
        ratio_of(laps, (ours, clock), (theirs, clock), target, f"{ours} / {theirs}, {clock}")
        for clock in (WORK, JOB, COMMAND)
    ]


def ratio_of(
    laps: dict[str, Laps], ours: tuple[str, str], theirs: tuple[str, str], target: float, what: str
) -> Ratio:
    """How one contender's rate compares with another's; each is named with its clock."""
    seconds = [[getattr(lap, clock) for lap in laps[name].whole] for name, clock in (ours, theirs)]
    values = [their / our for our, their in zip(*seconds, strict=True)]
    our_rate, their_rate = (laps[name].marginal_rate(clock) for name, clock in (ours, theirs))
    marginal = our_rate / their_rate if our_rate and their_rate else None
    return Ratio(what, values, target, marginal=marginal)


def race_section(title: str, note: str, laps: dict[str, Laps], ratios: list[Ratio]) -> Section:
    """A race's results: median rates by every clock."""
    clocks = (*CLOCKS, "unsynced")
    columns = (
        "", "command, s", "CPU, s", "command, /s", "job, /s", "work, /s", "unsynced, /s",
        "marginal work, /s",
    )  # fmt: skip
    rows = [
        (
            name,
            *(f"{found.seconds(key):.2f}" for key in (COMMAND, "cpu")),
            *(per_second(found.rate(clock)) for clock in clocks),
            per_second(found.marginal_rate(WORK)),
        )
        for name, found in laps.items()
    ]
    return Section(title, note, columns, rows, ratios, {n: asdict(x) for n, x in laps.items()})


def per_second(rate: float | None) -> str:
    """A rate as a table shows it."""
    return "–" if rate is None else f"{rate:,.0f}"


def as_markdown(sections: list[Section], facts: dict[str, str]) -> str:
    """The whole report."""
    ran_on = "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
    parts = ["# kpdata convert: what it costs", ran_on, EXPLANATION]
    for section in sections:
        parts += [f"## {section.title}", section.note]
        parts += [table(section.columns, section.rows), ratio_table(section.ratios)]
    return "\n\n".join(parts) + "\n"


def ratio_table(ratios: list[Ratio]) -> str:
    """The ratios against their targets; without marginal ones where none was measured."""
    if any(ratio.marginal is not None for ratio in ratios):
        columns = ("ratio", "target", "whole", "range", "marginal")
        return table(columns, (ratio.cells() for ratio in ratios))
    return table(("ratio", "target", "median", "range"), (ratio.cells()[:-1] for ratio in ratios))


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and the others numbers, aligned in the source too."""
    head, *body = [list(line) for line in (columns, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(head, *body, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
        for line in (head, rule, *body)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
