"""Progress and tables on the console, by rich.

Names and paths may come from untrusted files. Their brackets and colons are not read as rich's
markup, and their control characters are escaped.
"""

import contextlib
import importlib.util
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from kpdata.core.errors import KpdataWarning
from kpdata.core.progress import Progress
from kpdata.view.printing import as_text, printable

_SECONDS_BETWEEN_LINES = 5.0
_LONGEST_WORD = 16
"""Characters; longer words, such as hashes, are broken in narrow columns."""


class _Screen(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


def screen(stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints escaped text without markup, and does not wrap lines."""
    return _Screen(
        stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True
    )


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Let an interrupted command print how to resume it."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        raise click.Abort("Run the same command again to go on where it stopped.") from None


class Meter(Progress):
    """Progress on standard error: a live bar on a terminal and in notebooks, else plain lines.

    Attributes:
        console: where it is printed.
        is_watched: whether that is a terminal or a notebook, and is not quiet.
        is_live: whether a moving bar can be shown.
    """

    def __init__(self, quiet: bool = False):
        self.console = screen(stderr=True, quiet=quiet)
        notebook = self.console.is_jupyter
        self.is_watched = (self.console.is_terminal or notebook) and not quiet
        widgets = not notebook or importlib.util.find_spec("ipywidgets") is not None
        self.is_live = self.is_watched and widgets  # rich draws bars in notebooks by ipywidgets
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.is_live,
        )
        self._task: TaskID | None = None
        self._step, self._unit = "", ""
        self._printed = 0.0
        self._first: tuple[int, float] | None = None
        self._total: int | None = None
        self._done = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
        """Show a step of ``total`` units instead of the step before."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(step, total=total, rate="")
        self._step, self._total, self._unit, self._done = step, total, unit, 0
        self._printed = time.monotonic()
        self._first = None

    def advance(self, count: int = 1) -> None:
        """Show ``count`` more units as done."""
        self.reach(self._done + count)

    def reach(self, done: int, note: str = "") -> None:
        """Show ``done`` units as done, and ``note`` beside the rate.

        The rate leaves out the first units: they wait for what starts once, such as a compilation.
        """
        self._done = done
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
        before, since = self._first
        rate = (done - before) / max(now - since, 1e-9)
        text = ", ".join(filter(None, [f"{rate:,.0f} {self._unit}/s" if rate else "", note]))
        if self.is_live and self._task is not None:
            self._bars.update(self._task, completed=done, rate=text)
        elif now - self._printed > _SECONDS_BETWEEN_LINES:
            self._printed = now
            of = f" of {self._total:,}" if self._total else ""
            parts = [f"{self._step}: {done:,}{of}", text, self._eta(rate)]
            self.console.print(", ".join(filter(None, parts)))

    def _eta(self, rate: float) -> str:
        if not self._total or not rate:
            return ""
        return f"{max(0.0, (self._total - self._done) / rate):,.0f} s left"

    def tell(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text)

    def warn(self, text: str) -> None:
        """Print a line above the bar, marked as a warning."""
        self.tell(f"warning: {text}")


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1
) -> Table:
    """A table whose first ``left`` columns hold text, and the others numbers.

    On a narrow terminal only the second and further text columns wrap, so that names and numbers
    stay whole.
    """
    cells = [[as_text(cell) for cell in row] for row in rows]
    made = Table(
        title=Text(printable(title), style="bold") if title else None,
        title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    for i, column in enumerate(columns):
        text = 0 < i < left
        pieces = [piece for row in cells for piece in (row[i].split() if text else [row[i]])]
        longest = max(map(cell_len, [*pieces, *column.split()]), default=0)
        made.add_column(
            Text(column),
            justify="left" if i < left else "right",
            overflow="fold",
            min_width=min(longest, _LONGEST_WORD) if text else longest,
        )
    for row in cells:
        made.add_row(*map(Text, row))
    return made


Shown = bool | Progress | None
"""Whether to show progress; None shows it on a terminal and in notebooks. A Progress gets it."""


@contextlib.contextmanager
def shown(progress: Shown) -> Iterator[Progress]:
    """The Progress for a Python call.

    Args:
        progress: True shows it and False does not; None shows it on a terminal and in notebooks. A
            Progress is used as it is. Where nothing is shown, warnings become Python warnings.
    """
    if isinstance(progress, Progress):
        yield progress
        return
    with Meter(quiet=progress is False) as meter:
        yield meter if progress or meter.is_watched else _WarningsOnly()


class _WarningsOnly(Progress):
    def warn(self, text: str) -> None:
        warnings.warn(text, KpdataWarning, stacklevel=2)
