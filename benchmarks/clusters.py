"""What a cluster costs: ``kpdata convert`` on two workers of Dask, Flink and Spark, and without.

Each engine in turn is started on this machine, one worker of one core per host, and both it and two
worker processes without Beam convert the same copies of real COCO images, round after round. The
whole command counts: of a cluster, Java's start and handing the job over as well.

\b
    pip install '.[cluster]'
    python benchmarks/clusters.py --images train2017 \\
        --annotations person_keypoints_train2017.json \\
        --out benchmarks/clusters.md --work /var/tmp
"""

import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from _convert.contenders import kpdata
from _convert.dataset import Dataset, copy_annotations, copy_images
from _shared.machine import disk_kind, facts
from _shared.report import Ratio, Section, write

sys.path.append(str(Path(__file__).parents[1] / "tests" / "clusters"))
from engines import ENGINES

SOURCES = ("kpdata", "pipelines", "tests/clusters")
PACKAGES = ("kpdata", "apache-beam", "distributed", "apache-flink-libraries", "pyspark")
OPTIONS = ("--crop", "256", "--augment", "6", "--split", "train=100", "--shards", "32")
WORKERS = 2
TARGET = 0.8
PROCESSES = "processes"
EXPLANATION = (
    "Seconds of the whole command: with Flink and Spark, Java's start is in them. A ratio above 1 "
    "is a cluster that is faster than two processes."
)


def measure(engine: str, dataset: Dataset, rounds: int, work: Path) -> Section:
    """Plain processes and one engine, in turn."""
    seconds: dict[str, list[float]] = {PROCESSES: [], engine: []}
    with (
        tempfile.TemporaryDirectory(dir=work) as folder,
        ENGINES[engine](Path(folder) / engine) as cluster,
    ):
        remote = ("--runner", cluster.runner, "--", *cluster.options)
        contenders = {
            PROCESSES: kpdata(WORKERS, *OPTIONS),
            engine: kpdata(WORKERS, *OPTIONS, *remote),
        }
        for _ in range(rounds):
            for name, contender in contenders.items():
                with tempfile.TemporaryDirectory(dir=work) as out:
                    lap = contender(dataset, Path(out))
                seconds[name].append(lap.command)
                click.echo(f"{name}: {lap.items:,} pictures in {lap.command:.1f} s", err=True)
    rows = [
        (name, f"{statistics.median(taken):.1f}", f"{lap.items / statistics.median(taken):,.0f}")
        for name, taken in seconds.items()
    ]
    ratio = Ratio(
        f"{engine} / {PROCESSES}, {WORKERS} workers each",
        [theirs / ours for theirs, ours in zip(*seconds.values(), strict=True)],
        TARGET,
    )
    note = f"`{' '.join(OPTIONS)}` on {len(dataset.files()):,} images, median of {rounds}."
    columns = ("", "s", "pictures/s")
    return Section(engine.capitalize(), note, columns, rows, [ratio], dict(seconds))


def sections(
    engines: Iterable[str], source: Dataset, copies: int, rounds: int, work: Path
) -> Iterator[Section]:
    """One for each engine, on the same copies."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        images = Path(folder) / "images"
        copy_images(source, images, copies)
        dataset = copy_annotations(source, images, copies)
        for engine in engines:
            yield measure(engine, dataset, rounds, work)


@click.command(help=__doc__)
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--annotations", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--copies", default=200, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--engine", "engines", multiple=True, default=ENGINES, type=click.Choice([*ENGINES]))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown; and .json.")
@click.option("--work", required=True, type=click.Path(exists=True, path_type=Path))
def main(
    images: Path, annotations: Path, copies: int, rounds: int, engines: Iterable[str], out: Path,
    work: Path,
) -> None:  # fmt: skip
    """Measure, and write the report."""
    ran_on = facts(PACKAGES, SOURCES) | {"disk": disk_kind(work)}
    source = Dataset(annotations, images)
    measured = list(sections(engines, source, copies, rounds, work.resolve()))
    click.echo(write(out, "kpdata convert on clusters", EXPLANATION, measured, ran_on))


if __name__ == "__main__":
    main()
