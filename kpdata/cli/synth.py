"""``kpdata synth``."""

from collections.abc import Iterator
from pathlib import Path

import click

from kpdata.cli.main import COMMANDS
from kpdata.cli.options import quiet
from kpdata.core.sample import Sample
from kpdata.view.console import Meter
from kpdata.view.printing import print_line


@click.command("synth", short_help=COMMANDS["synth"])
@click.option(
    "--count", default=500, show_default=True, type=click.IntRange(1), help="Number of images."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Another seed gives other pictures.",
)
@click.option(
    "--size", default=(320, 240), show_default=True, nargs=2, type=click.IntRange(64, 2048),
    metavar="W H", help="Width and height of the images in pixels.",
)  # fmt: skip
@quiet
def command(count: int, out: Path, seed: int, size: tuple[int, int], quiet: bool) -> None:
    """Render a dataset of simulated people with exact labels, as COCO JSON and images.

    Articulated figures over varied backgrounds, behind occluders, in changing light. The same seed
    gives the same pictures. Use it to try a pipeline or a model before real data is at hand.

    \b
    Example:
      kpdata synth --count 500 --out synth/
      kpdata convert coco synth/annotations.json --out shards/
    """
    with Meter(quiet) as meter:
        render_dataset(count, out, seed, size, meter)
    if not quiet:
        print_line(f"{out}: {count:,} images and annotations.json")


def render_dataset(count: int, out: Path, seed: int, size: tuple[int, int], meter: Meter) -> None:
    """Write ``count`` pictures and their annotations into ``out``."""
    from kpdata import synth
    from kpdata.core.skeletons import COCO17
    from kpdata.formats.coco import write

    meter.begin("rendering", count)

    def counted() -> Iterator[Sample]:
        for sample in synth.samples(count, seed, size):
            yield sample
            meter.advance(1)

    write.write(counted(), COCO17, out)
