"""``kpdata compare``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from kpdata.cli.main import COMMANDS
from kpdata.cli.options import as_json
from kpdata.cli.score_tables import amount, by_reason, change, keypoint_rows, span
from kpdata.metrics import Delta, Difference
from kpdata.view.console import screen, table
from kpdata.view.printing import print_json

if TYPE_CHECKING:
    from kpdata.train.evaluate.compare import Comparison

_COLUMNS = ("first", "second", "second − first", "95 %")


@click.command("compare", short_help=COMMANDS["compare"])
@click.argument("first", metavar="RUN_A", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN_B", type=click.Path(path_type=Path))
@click.option(
    "--split", default="test", show_default=True, metavar="NAME",
    help="Which split's scores to compare.",
)  # fmt: skip
@as_json
def command(first: Path, second: Path, split: str, as_json: bool) -> None:
    """Compare the scores of two runs on the same instances.

    Both must have been evaluated on the split; a folder that `kpdata evaluate --out` wrote may
    stand for its run. Differences are RUN_B less RUN_A. Their 95 % intervals are from a paired
    bootstrap: each resample holds the same instances for both, so that an interval without 0 says
    that the runs differ by more than the choice of instances.

    \b
    Examples:
      kpdata compare runs/a runs/b
      kpdata compare runs/a runs/b --split val --json
    """
    from kpdata.train.api import compare

    comparison = compare(first, second, split=split)
    if as_json:
        print_json(msgspec.json.format(msgspec.json.encode(comparison), indent=1).decode())
    else:
        show(comparison)


def show(comparison: "Comparison") -> None:
    """Print the comparison for a person."""
    console = screen()
    for name, run in (("first", comparison.first), ("second", comparison.second)):
        console.print(f"{name}: {run.folder}, {run.head}")
    console.print(f"{comparison.instances:,} instances of {comparison.images:,} images\n")
    rows = [
        [each.name, *_cells(each.overall, each.unit), f"{each.n:,} {each.counted}"]
        for each in comparison.differences
    ]
    console.print(table("", ["metric", *_COLUMNS, "n"], rows))
    by_keypoint = _by_keypoint(comparison)
    parts = [
        [label, *_cells(_delta(by_keypoint, name, averaged), by_keypoint.unit)]
        for label, name, averaged in keypoint_rows(comparison.skeleton)
    ]
    console.print(table(f"\n{by_keypoint.name} by keypoint", ["keypoint", *_COLUMNS], parts))
    console.print("")
    for each in comparison.differences:
        console.print(f"{each.name}: {each.definition}")
    for line in by_reason("not compared", comparison.not_compared):
        console.print(line)
    for note in comparison.notes:
        console.print(f"note: {note}")


def _cells(delta: Delta, unit: str) -> list[str]:
    values = [amount(delta.first, unit), amount(delta.second, unit)]
    return [*values, change(delta.difference, unit), span(delta.interval, unit, True)]


def _by_keypoint(comparison: "Comparison") -> Difference:
    names = comparison.skeleton.keypoints
    return next(each for each in comparison.differences if tuple(each.parts) == names)


def _delta(difference: Difference, name: str, averaged: bool) -> Delta:
    return (difference.averaged if averaged else difference.parts)[name]
