"""The report: sections of tables, in Markdown, and what they were made of in JSON."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


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


def per_second(rate: float | None) -> str:
    """A rate as a table shows it."""
    return "–" if rate is None else f"{rate:,.0f}"


def write(
    out: Path, title: str, explanation: str, sections: Sequence[Section], facts: dict[str, str]
) -> str:
    """Write the report to ``out``, the numbers beside it as JSON; the report."""
    ran_on = "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
    parts = [f"# {title}", ran_on, explanation]
    for section in sections:
        parts += [f"## {section.title}", section.note]
        parts.append(table(section.columns, section.rows))
        if section.ratios:
            parts.append(ratio_table(section.ratios))
    text = "\n\n".join(part for part in parts if part) + "\n"
    out.write_text(text)
    raw = {"facts": facts, "sections": [asdict(section) for section in sections]}
    out.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    return text


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
