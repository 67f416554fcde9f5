"""What ``kpdata convert`` costs above the physical work, measured in one run on one machine.

A folder of real COCO JPEGs is copied many times over, each copy told apart by a few bytes behind
its end marker. Every contender then handles these files in turn, round after round, into a fresh
folder on the same disk, which is deleted afterwards: once from a warm page cache, and once from a
cold one, as with more images than memory holds. All end with what they wrote on disk (fsync). Each
does so with a quarter of the copies too: the difference tells what further images cost, apart from
what a run costs once.

\b
    python benchmarks/convert.py --images train2017 --annotations person_keypoints_train2017.json \\
        --out benchmarks/convert.md --work /var/tmp
"""

import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from _convert.against_peers import measure_peers
from _convert.contenders import (
    CROP,
    KPDATA,
    ONE,
    PINNED,
    QUALITY,
    TENSORFLOW,
    alone,
    cat,
    convert_command,
    kpdata,
    on_one_core,
    opencv_loop,
    tensorflow_loop,
    unchecked_loop,
)
from _convert.dataset import Dataset, copy_annotations, copy_images
from _convert.memory import Peaks, peak_memory
from _convert.race import COMMAND, WORK, Sizes, race
from _convert.report import EXPLANATION, race_section, ratio_of, ratios_of
from _shared.machine import disk_kind, facts
from _shared.report import Ratio, Section, write

SOURCES = ("kpdata", "pipelines")
PACKAGES = (
    "kpdata",
    "apache-beam",
    "numpy",
    "opencv-python-headless",
    "protobuf",
    "tensorflow-cpu",
    "tensorflow-datasets",
)
PARTS = ("untouched", "crops", "peers", "memory", "start")
PART_OF_COPIES = 4
STARTS = 15

CACHE = {False: "warm page cache", True: "cold page cache"}
CAT, BARE, TWO = "cat", "OpenCV loop", "kpdata, 2 workers"


def measure_untouched(sizes: Sizes, rounds: int, work: Path, cold: bool) -> Section:
    """Whole images, their bytes untouched."""
    contenders = {
        CAT: cat,
        TENSORFLOW: alone(tensorflow_loop),
        "the same loop, kpdata's writer": alone(unchecked_loop),
        ONE: kpdata(1),
        TWO: kpdata(2),
    }
    laps = race(contenders, sizes, rounds, work, cold)
    size = sum(path.stat().st_size for path in sizes.whole.files())
    note = (
        f"{laps[CAT].items:,} JPEGs, {size / 1e6:,.0f} MB, and {laps[CAT].part[0].items:,} of "
        "them for the marginal rates. Rates are in images per second.\n\n"
        "`cat` copies bytes and no more. The loops also wrap each image and its labels in a "
        "tf.train.Example, and TFRecord asks for a CRC32C of every record. On top of that, kpdata "
        "takes the sha256 of every image and of every shard, checks each image's header and end "
        "marker, and, before its work begins, looks for identical images and splits by hash. Asked "
        "for two workers it starts none where they would save less than they cost: below 13,000 "
        "untouched images, so that they are written by one process and its threads."
    )
    ratios = [
        *ratios_of(laps, ONE, TENSORFLOW, 0.9),
        ratio_of(
            laps, (ONE, COMMAND), (TENSORFLOW, WORK), 0.9, f"{ONE}, command / {TENSORFLOW}, work"
        ),
        *ratios_of(laps, TWO, CAT, 0.8),
    ]
    return race_section(f"Untouched images, {CACHE[cold]}", note, laps, ratios)


def measure_crops(sizes: Sizes, rounds: int, work: Path, cold: bool) -> Section:
    """One crop and one augmented copy of each person."""
    options = ("--crop", str(CROP), "--augment", "1", "--split", "train=100")
    contenders = {
        BARE: alone(opencv_loop),
        ONE: kpdata(1, *options),
        PINNED: on_one_core(kpdata(1, *options)),
        TWO: kpdata(2, *options),
    }
    laps = race(contenders, sizes, rounds, work, cold)
    note = (
        f"`{shlex.join(options)}`: {laps[BARE].items:,} pictures of {CROP} × {CROP}, and "
        f"{laps[BARE].part[0].items:,} of them for the marginal rates. Rates are in pictures per "
        "second.\n\n"
        "Both open only images that show a labelled person. The loop decodes them at full size, "
        "warps a straight and a turned crop of each person, and writes JPEGs of quality "
        f"{QUALITY} one behind the other. kpdata decodes at a half, a quarter or an eighth where "
        "all of an image's crops shrink it as much; it also changes the copy's colours, blurs and "
        "covers some, encodes copies in qualities of their own, moves the labels, and writes "
        "records with all the checksums above. While cores are left over, as they are with one "
        "worker here, each worker decodes in a second thread; the CPU column counts both. Pinned "
        "to one core, a worker does all in one thread: what two workers gain is measured by that."
    )
    ratios = [
        *ratios_of(laps, ONE, BARE, 0.85),
        *ratios_of(laps, PINNED, BARE, 0.85),
        *ratios_of(laps, TWO, BARE, 1.7),
        *ratios_of(laps, TWO, PINNED, 1.8),
    ]
    return race_section(f"Crops with one augmented copy, {CACHE[cold]}", note, laps, ratios)


def measure_memory(once: Dataset, tenfold: Dataset, rounds: int, work: Path) -> Section:
    """Peak resident memory on some images, and on ten times as many."""
    peaks: dict[str, list[Peaks]] = {}
    for _ in range(rounds):
        for dataset in (once, tenfold):
            with tempfile.TemporaryDirectory(dir=work) as folder:
                command = convert_command(
                    dataset, Path(folder) / "shards", 2, "--crop", "64", "--augment", "1"
                )
                found = peak_memory(command)
            name = f"{len(dataset.files()):,} images"
            peaks.setdefault(name, []).append(found)
            click.echo(f"{name}: {found}", err=True)
    columns = ("", *(f"{process}, MiB" for process in Peaks._fields))
    rows = [
        (name, *(f"{statistics.median(values):.0f}" for values in zip(*found, strict=True)))
        for name, found in peaks.items()
    ]
    ratios = [
        Ratio(
            f"{process}, 10× / 1×",
            [ten[i] / one[i] for one, ten in zip(*peaks.values(), strict=True)],
            1.2,
            at_least=False,
        )
        for i, process in enumerate(Peaks._fields)
    ]
    note = (
        "`kpdata convert --crop 64 --augment 1` of small JPEGs by 2 workers: the most that a "
        "process ever held (VmHWM)."
    )
    return Section("Peak memory", note, columns, rows, ratios, dict(peaks))


def measure_start() -> Section:
    """Start-up of the command line against that of the library it stands on."""
    commands = {
        "kpdata --help": [KPDATA, "--help"],
        'python -c "import click"': [sys.executable, "-c", "import click"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - started)
    rows = [(f"`{name}`", f"{statistics.median(s) * 1000:.0f}") for name, s in seconds.items()]
    ratio = Ratio(
        "`kpdata --help` / `import click`",
        [ours / theirs for ours, theirs in zip(*seconds.values(), strict=True)],
        3,
        at_least=False,
    )
    note = f"Median of {STARTS} runs each, in turn."
    return Section("Start-up", note, ("", "ms"), rows, [ratio], dict(seconds))


def measure(
    parts: Iterable[str],
    source: Dataset,
    copies: int,
    rounds: int,
    work: Path,
    environments: Path,
) -> Iterator[Section]:
    """The sections of the parts asked for, in their order."""
    if {"untouched", "crops", "peers"} & set(parts):
        with tempfile.TemporaryDirectory(dir=work) as folder:
            images = Path(folder) / "images"
            copy_images(source, images, copies)
            few = copies // PART_OF_COPIES
            sizes = Sizes(*(copy_annotations(source, images, count) for count in (few, copies)))
            for part, measure_part in (("untouched", measure_untouched), ("crops", measure_crops)):
                for cold in (False, True) if part in parts else ():
                    yield measure_part(sizes, rounds, work, cold)
            if "peers" in parts:
                yield from measure_peers(sizes, rounds, work, environments)
    if "memory" in parts:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            images = Path(folder) / "images"
            copy_images(source, images, 10 * copies, small=True)
            both = [copy_annotations(source, images, count) for count in (copies, 10 * copies)]
            yield measure_memory(both[0], both[1], rounds, work)
    if "start" in parts:
        yield measure_start()


@click.command(help=__doc__)
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--annotations", required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--copies", default=80, show_default=True, type=click.IntRange(PART_OF_COPIES),
    help="Of every image.",
)  # fmt: skip
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--part", "parts", multiple=True, default=PARTS, type=click.Choice(PARTS))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown; and .json.")
@click.option("--work", required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--environments", type=click.Path(path_type=Path),
    help="Where the peers' environments are, or are made and stay. [default: peers/ below --work]",
)  # fmt: skip
def main(
    images: Path, annotations: Path, copies: int, rounds: int, parts: Iterable[str], out: Path,
    work: Path, environments: Path | None,
) -> None:  # fmt: skip
    """Measure, and write the report."""
    ran_on = facts(PACKAGES, SOURCES) | {"disk": disk_kind(work)}
    source = Dataset(annotations, images)
    environments = (environments or work / "peers").resolve()
    sections = list(measure(parts, source, copies, rounds, work.resolve(), environments))
    click.echo(write(out, "kpdata convert: what it costs", EXPLANATION, sections, ran_on))


if __name__ == "__main__":
    main()
