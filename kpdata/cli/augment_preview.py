"""``kpdata augment-preview``."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kpdata.cli.main import COMMANDS
from kpdata.cli.options import (
    augment_config_option,
    crop_options,
    given_options,
)
from kpdata.cli.sources import ReadsAnnotations, labels_from
from kpdata.core.errors import DatasetError, FormatError
from kpdata.core.sample import Sample
from kpdata.door import CONVERSION_DEFAULTS, refuse_idle, request_for
from kpdata.formats import Source
from kpdata.storage.atomic import as_write_error
from kpdata.view.printing import print_error, print_line

if TYPE_CHECKING:
    from kpdata.pipelines.request import Request

_MOST_TILES = 2000
_TILE = 256


@click.command("augment-preview", cls=ReadsAnnotations, short_help=COMMANDS["augment-preview"])
@click.option(
    "--out", default="preview.png", show_default=True, type=click.Path(path_type=Path),
    help="The PNG to write.",
)  # fmt: skip
@click.option(
    "--rows", default=4, show_default=True, type=click.IntRange(1, 100), help="Number of originals."
)
@click.option(
    "--to-skeleton", metavar="NAME|FILE", help="Map the keypoints to this skeleton, by name."
)
@click.option("--seed", default=0, show_default=True, help="Decides every copy.")
@crop_options
@click.option(
    "--augment", default=5, show_default=True, type=click.IntRange(1, 1000), metavar="N",
    help="Number of copies of each original.",
)  # fmt: skip
@augment_config_option
@click.pass_context
def command(ctx: click.Context, /, out: Path, rows: int, **options: Any) -> None:
    """Draw augmented copies of ANNOTATIONS, with their keypoints, on a contact sheet.

    Each row is an original and its copies, drawn exactly as `kpdata convert` would with the same
    options and seed. Left is orange, right is blue, and the legend names the others; a hollow ring
    is an occluded keypoint.

    \b
    Examples:
      kpdata augment-preview person_keypoints_train2017.json --images train2017/
      kpdata augment-preview lsp joints.mat --crop 256 --crop-from image \\
          --augment 7 --augment-config strong.toml --out strong.png
    """
    from kpdata.view import draw
    from kpdata.view.sheet import contact_sheet

    if out.suffix.lower() != ".png":
        raise FormatError(
            f"out is {out}: the contact sheet is a PNG: give a name that ends in .png"
        )
    refuse_idle(given_options(ctx), options)
    labels = labels_from(options)
    with labels.source() as source:
        request = request_for(labels, source, _conversion(options))
        shown = rows * (request.augment + 1)
        if shown > _MOST_TILES:
            raise FormatError(
                f"rows is {rows} and augment {request.augment}, which are {shown:,} pictures: a "
                f"sheet holds at most {_MOST_TILES:,}"
            )
        tiles = [  # only one sample's full pictures are held at a time
            (draw.draw_sample(sample, request.skeleton, _TILE), _caption(sample))
            for sample in islice(_pictures(source, request), shown)
        ]
    if not tiles:
        raise FormatError(f"{labels.locations[0]}: no sample could be drawn")
    sheet = contact_sheet(tiles, columns=request.augment + 1, tile=_TILE, skeleton=request.skeleton)
    with as_write_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        draw.write_png(out, sheet)
    print_line(f"{out}: {len(tiles)} pictures")


def _pictures(source: Source, request: "Request") -> Iterator[Sample]:
    from kpdata.core.errors import ImageError
    from kpdata.core.mapping import map_sample
    from kpdata.core.splits import TRAIN
    from kpdata.pipelines.plan.make import locate
    from kpdata.pipelines.write.render import render
    from kpdata.shards.fetch import fetch

    for sample in source.samples:
        if not isinstance(sample, Sample) or not any(i.num_labelled for i in sample.instances):
            continue
        if request.mapping:
            sample = map_sample(sample, request.mapping)
        try:
            located, _ = locate(sample, request)
            data = fetch(located.image, request.max_bytes)
            yield from render(located, data, TRAIN, request).records
        except ImageError as error:
            print_error(f"left out: {error}")
        except OSError as error:
            raise DatasetError(
                f"{sample.image.uri}: cannot be read: {error.strerror}: check its disk, or give "
                "`images` another folder"
            ) from error


def _conversion(options: dict[str, Any]) -> dict[str, Any]:
    """All options of a conversion, by name: this command's, and defaults for the rest."""
    given = {name: value for name, value in options.items() if name in CONVERSION_DEFAULTS}
    return CONVERSION_DEFAULTS | given


def _caption(sample: Sample) -> str:
    copy = sample.view.copy if sample.view else 0
    return f"copy {copy}" if copy else sample.image.name
