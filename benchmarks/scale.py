"""How the time and the memory of ``kpdata convert`` grow with the number of references.

Images of one to two kilobytes are made, no two alike, and COCO files for the first so many of
them. The plan phase runs on each in a fresh process, and so does the whole job up to a limit: the
images are small, so that what is measured is what a reference costs, and not the disk.

\b
    python benchmarks/scale.py --out benchmarks/scale.md --work /var/tmp
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
from _convert.dataset import Dataset
from _scale.dataset import annotate, link_images, make_images
from _scale.measure import JobCost, job_cost, plan_cost
from _scale.picture import Curve, draw
from _scale.plan_phase import PlanCost
from _shared.machine import disk_kind, facts
from _shared.report import Ratio, Section, write

SOURCES = ("kpdata", "pipelines")
PACKAGES = ("kpdata", "apache-beam", "msgspec", "numpy")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2)
FULL_CACHES = 10_000
FLAT = LINEAR = 1.1

EXPLANATION = """\
The images are JPEGs of one to two kilobytes, all different, with sizes that many share: so the
search for identical images has to look at every image's tail, as it has to in any real dataset
large enough. They were made just before and lie in the page cache. Annotations stand in the file in
another order than the images. Rows are medians of the rounds.

**A further reference** costs the difference between two sizes' seconds, divided by the difference
in references: what a run costs once is not in it. If time grows linearly, the cost is the same on
the way to each size: the ratio of a cost to the one before is 1, and should be at most 1.1. **Peak
memory** (VmHWM) is compared with that at 10,000 references, where all caches are full."""

Cost = TypeVar("Cost", PlanCost, JobCost)
Costs = Mapping[int, Sequence[Cost]]


def plan_section(title: str, note: str, costs: Costs[PlanCost]) -> Section:
    """What the plan phase took, by the number of references."""
    columns = (
        "references", "index, s", "receive, s", "arrange, s", "all, s", "CPU, s", "references/s",
        "peak, MiB", "plans, MB",
    )  # fmt: skip
    rows = [
        (
            f"{count:,}",
            *(f"{median(found, key):.2f}" for key in ("index", "receive", "arrange")),
            f"{median(found, 'seconds'):.2f}",
            f"{median(found, 'cpu'):.2f}",
            f"{count / median(found, 'seconds'):,.0f}",
            f"{median(found, 'peak'):.0f}",
            f"{median(found, 'plan_bytes') / 1e6:.1f}",
        )
        for count, found in costs.items()
    ]
    ratios = [*growth(costs, "seconds"), *growth(costs, "cpu"), *flatness(costs, "peak")]
    return Section(title, note, columns, rows, ratios, raw(costs))


def job_section(workers: int, costs: Costs[JobCost]) -> Section:
    """What whole jobs took, by the number of references."""
    columns = (
        "references", "command, s", "CPU, s", "images/s", "driver, MiB", "worker, MiB",
        "shards, MB",
    )  # fmt: skip
    rows = [
        (
            f"{count:,}",
            f"{median(found, 'seconds'):.2f}",
            f"{median(found, 'cpu'):.2f}",
            f"{count / median(found, 'seconds'):,.0f}",
            f"{median(found, 'driver'):.0f}",
            f"{median(found, 'worker'):.0f}",
            f"{median(found, 'shard_bytes') / 1e6:.1f}",
        )
        for count, found in costs.items()
    ]
    note = f"`kpdata convert coco --workers {workers}`, images untouched."
    ratios: list[Ratio] = []
    if workers == 1:
        ratios = [*growth(costs, "seconds"), *growth(costs, "cpu"), *flatness(costs, "driver")]
    else:
        note += (
            " Below 13,000 images it starts no workers, since they would not pay, nor does it load "
            "Beam: sizes do not compare. `convert.md` compares memory with workers at 1× and 10×."
        )
    return Section(f"Whole job, workers: {workers}", note, columns, rows, ratios, raw(costs))


def growth(costs: Costs[Cost], key: str) -> Iterator[Ratio]:
    """How the cost of a further reference compares with the cost of one before it."""
    sizes = list(costs)
    for small, middle, large in zip(sizes, sizes[1:], sizes[2:], strict=False):
        values = [
            further(costs, middle, large, key, number) / further(costs, small, middle, key, number)
            for number in range(len(costs[large]))
        ]
        name = {"cpu": "CPU seconds"}.get(key, key)
        what = f"{name} of a further reference, {middle:,} → {large:,} / {small:,} → {middle:,}"
        yield Ratio(what, values, LINEAR, at_least=False)


def further(costs: Costs[Cost], small: int, large: int, key: str, number: int) -> float:
    """What a further reference costs between two sizes, in one round."""
    less, more = (getattr(costs[size][number], key) for size in (small, large))
    return (more - less) / (large - small)


def flatness(costs: Costs[Cost], key: str) -> Iterator[Ratio]:
    """How a process's peak memory compares with that at FULL_CACHES references."""
    base, *larger = [size for size in costs if size >= FULL_CACHES]
    for size in larger:
        pairs = zip(costs[size], costs[base], strict=True)
        values = [getattr(more, key) / getattr(less, key) for more, less in pairs]
        yield Ratio(f"{key} memory, {size:,} / {base:,}", values, FLAT, at_least=False)


def median(costs: Sequence[Cost], key: str) -> float:
    """The median of an attribute over the rounds."""
    return statistics.median(getattr(cost, key) for cost in costs)


def raw(costs: Costs[Cost]) -> dict[str, list[dict[str, float]]]:
    """Every single number."""
    return {str(count): [cost._asdict() for cost in found] for count, found in costs.items()}


def repeat(
    measure: Callable[[Dataset, int], Cost], datasets: Mapping[int, Dataset], rounds: int
) -> Costs[Cost]:
    """Measure every dataset once a round."""
    costs: dict[int, list[Cost]] = {count: [] for count in datasets}
    for number in range(rounds):
        for count, dataset in datasets.items():
            costs[count].append(measure(dataset, count))
            click.echo(f"round {number + 1}: {costs[count][-1]}", err=True)
    return costs


def curves(
    plans: Mapping[str, Costs[PlanCost]], jobs: Mapping[int, Costs[JobCost]]
) -> Iterator[tuple[str, Curve]]:
    """Names and curves for the picture."""
    for what, costs in plans.items():
        yield what, curve(costs, "peak")
    for workers, found in jobs.items():
        yield f"whole job, {workers} worker{'s' * (workers > 1)}", curve(found, "driver", "worker")


def curve(costs: Costs[Cost], *memory: str) -> Curve:
    """Median seconds, and the larger of the median peaks."""
    return Curve(
        {count: median(found, "seconds") for count, found in costs.items()},
        {count: max(median(found, key) for key in memory) for count, found in costs.items()},
    )


def measure(
    sizes: Sequence[int], full_up_to: int, rounds: int, work: Path, picture: Path
) -> list[Section]:
    """All sections; the picture is drawn on the way."""
    make_images(work / "images", max(sizes))
    datasets = {count: annotate(work / "images", count) for count in sizes}
    plans = repeat(lambda dataset, _: plan_cost(dataset, work), datasets, rounds)
    some = {count: dataset for count, dataset in datasets.items() if count <= full_up_to}
    jobs = {
        workers: repeat(partial(job_cost, workers=workers, work=work), some, rounds)
        for workers in WORKERS
    }
    link_images(work / "linked", max(sizes))
    linked = {count: annotate(work / "linked", count) for count in sizes[1:]}
    twins = repeat(lambda dataset, _: plan_cost(dataset, work), linked, rounds)
    phases = {"plan phase": plans, "plan phase, hard links": twins}
    draw(dict(curves(phases, jobs)), picture)
    return [
        plan_section("Plan phase", "", plans),
        *(job_section(workers, costs) for workers, costs in jobs.items()),
        plan_section(
            "Plan phase over hard links",
            "The worst case of the search for identical images: every image has one of 2,000 "
            "pictures, by a hard link, so that all are read in full and joined into 2,000 groups.",
            twins,
        ),
    ]


@click.command(help=__doc__)
@click.option(
    "--size", "sizes", multiple=True, default=SIZES, show_default=True,
    type=click.IntRange(1000), help="References; once for each of at least three sizes.",
)  # fmt: skip
@click.option(
    "--full-up-to", default=100_000, show_default=True, type=click.IntRange(FULL_CACHES),
    help="The largest whole job.",
)  # fmt: skip
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown; .json, .png")
@click.option("--work", required=True, type=click.Path(exists=True, path_type=Path))
def main(sizes: Sequence[int], full_up_to: int, rounds: int, out: Path, work: Path) -> None:
    """Measure, write the report and draw the picture."""
    if len(sizes) < 3 or list(sizes) != sorted(sizes) or FULL_CACHES not in sizes:
        raise click.ClickException("give three sizes or more, in rising order, 10,000 among them")
    ran_on = facts(PACKAGES, SOURCES) | {"disk": disk_kind(work), "rounds": str(rounds)}
    picture = out.with_suffix(".png")
    with tempfile.TemporaryDirectory(dir=work.resolve()) as folder:
        sections = measure(sizes, full_up_to, rounds, Path(folder), picture)
    shown = f"![Time and memory over the number of references]({picture.name})"
    explanation = f"{EXPLANATION}\n\n{shown}"
    click.echo(write(out, "kpdata convert: how it scales", explanation, sections, ran_on))


if __name__ == "__main__":
    main()
