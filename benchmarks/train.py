"""What the input costs a training, measured in one run on one machine.

For each model ``model.fit`` trains on real batches, drawn, mixed and handed over as ``kpdata
train`` does, and then on one batch over and over, with the same compiled step; and again, round
after round, in changing order. Their ratio is what is left of the step's speed. The shards are
read, decoded and kept in memory before the clocks run, as they are in a training.

\b
    kpdata convert lsp joints.mat --out shards/
    python benchmarks/train.py --shards shards/ --out benchmarks/results/train.md
"""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from _shared.machine import facts
from _shared.report import Ratio, Section, per_second, write

from kpdata.shards.dataset import Dataset
from kpdata.train.run.backend import prepare_backend

if TYPE_CHECKING:
    from _train.race import Case, Lap, Laps

SOURCES = ("kpdata", "train")
PACKAGES = ("kpdata", "keras", "numpy")
TARGET = 0.95
TITLES = {True: "With augmentation", False: "Without augmentation"}

EXPLANATION = """\
Rates are in pictures per second, medians of the rounds. **constant batch** is the compiled step
with an input that costs nothing; **fit** is the same step with the trainer's input; **input alone**
is that input without a model. **waiting** is the part of fit's time that the constant batch does
not take: on a GPU, how long it stands idle for its input. Ratios are of both in one round; given
are their median and range. **CPU** is the time of all threads, per picture: other programs on the
machine slow both contenders down by turns, but hardly change it.

Crops and their random changes are made in threads, a few batches ahead; rotation, scale, flip,
colours and occluders are applied to the pixels inside the compiled step. Without augmentation all
of them change nothing, and no occluder is painted. JAX on a GPU trains whole epochs in one call."""


def measure(
    dataset: Dataset, cases: Iterable["Case"], batch_size: int, rounds: int, seconds: float
) -> Iterator[Section]:
    """A section with augmentation, and one without."""
    from _train.race import crops_of, race

    found: dict[bool, dict[str, Laps]] = {True: {}, False: {}}
    for case in cases:
        crops = crops_of(dataset, case.config(dataset, True, batch_size))
        for augmented, laps in found.items():
            config = case.config(dataset, augmented, batch_size)
            click.echo(f"compiling: {case.name}, {TITLES[augmented].lower()}", err=True)
            laps[case.name] = race(config, crops, rounds, seconds)
            click.echo(f"fit / constant batch: {laps[case.name].ratios}", err=True)
    for augmented, laps in found.items():
        yield section(TITLES[augmented], laps)


def section(title: str, found: dict[str, "Laps"]) -> Section:
    """The rates of all cases, and their ratios."""
    columns = (
        "", "constant batch, /s", "fit, /s", "input alone, /s", "waiting",
        "constant batch, CPU ms", "fit, CPU ms",
    )  # fmt: skip
    rows = [
        (
            name,
            *(per_second(statistics.median(lap.rate for lap in of)) for of in both(laps)),
            per_second(laps.input_alone),
            f"{max(0.0, 1 - statistics.median(laps.ratios)):.1%}",
            *(f"{1000 * statistics.median(lap.cpu for lap in of):.2f}" for of in both(laps)),
        )
        for name, laps in found.items()
    ]
    ratios = [
        ratio
        for name, laps in found.items()
        for ratio in (
            Ratio(name, laps.ratios, TARGET),
            Ratio(f"{name}, by CPU time", laps.cpu_ratios, TARGET),
        )
    ]
    return Section(title, "", columns, rows, ratios, {n: asdict(x) for n, x in found.items()})


def both(laps: "Laps") -> tuple[list["Lap"], list["Lap"]]:
    """Of the constant batch, and of fit."""
    return laps.constant, laps.fit


@click.command(help=__doc__)
@click.option("--shards", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--case", "names", multiple=True, help="Only these; all unless given.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option(
    "--seconds", default=5.0, show_default=True, type=click.FloatRange(0.1), help="A turn."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown; and .json.")
def main(
    shards: Path, names: tuple[str, ...], batch_size: int, rounds: int, seconds: float, out: Path
) -> None:
    """Measure, and write the report."""
    prepare_backend()
    from _train.race import CASES, backend, device

    cases = [case for case in CASES if case.name in names or not names]
    if not cases:
        raise click.BadParameter(f"--case: known are {'; '.join(case.name for case in CASES)}")
    dataset = Dataset.open(shards)
    ran_on = facts(PACKAGES, SOURCES) | {
        "backend": backend(),
        "device": device(),
        "batch": f"{batch_size} pictures",
        "pictures": f"{dataset.manifest.splits['train'].records:,}, {dataset.skeleton.name}",
    }
    sections = list(measure(dataset, cases, batch_size, rounds, seconds))
    click.echo(write(out, "kpdata train: what the input costs", EXPLANATION, sections, ran_on))


if __name__ == "__main__":
    main()
