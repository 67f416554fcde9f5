"""Options that several commands share, and their types."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kpdata.core.defaults import JPEG_QUALITY, MAX_PIXELS
from kpdata.core.sizes import parse_size
from kpdata.images.perceptual import MAX_DISTANCE
from kpdata.storage.stores import Location, as_location

F = TypeVar("F", bound=Callable[..., Any])


class _Size(click.ParamType):  # type: ignore[type-arg]
    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class _Percent(click.FloatRange):
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r}: expected a percentage", param, ctx)
        return number


class _LocationType(click.ParamType):  # type: ignore[type-arg]
    name = "PATH|URL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Location:
        return value if isinstance(value, Path) else as_location(value)


SIZE = _Size()
LOCATION = _LocationType()
PERCENT = _Percent(0, 100)
BITS_APART = click.IntRange(0, MAX_DISTANCE)

quiet = click.option("--quiet", is_flag=True, help="Print errors only.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
flip_option = click.option(
    "--flip/--no-flip", default=None, show_default="on for runs that were trained on mirror images",
    help="Average the keypoints with those found in the picture's mirror image. This takes twice "
    "as long. It makes a run worse that was trained with augment.flip=0 and saw no mirror image.",
)  # fmt: skip
decode_option = click.option(
    "--decode", default="dark", show_default=True,
    type=click.Choice(["dark", "udp", "quadratic", "argmax"]),
    help="How to find a keypoint in its heatmap: at the peak of a fitted Gaussian (dark) or a "
    "fitted parabola (quadratic), at the highest cell (argmax), or where the offset maps point to "
    "from there (udp, for runs with offsets=true).",
)  # fmt: skip
workers_option = click.option(
    "--workers", type=click.IntRange(1, 1024),
    help="Number of worker processes. Default: one for each core that kpdata may use."
)  # fmt: skip
augment_config_option = click.option(
    "--augment-config", type=click.Path(path_type=Path), metavar="FILE",
    help="TOML file with the ranges that copies are sampled from; see docs/augmentation.md.",
)  # fmt: skip


def crop_options(function: F) -> F:
    """Add the options that say how samples become pictures."""
    for option in reversed(
        (
            click.option(
                "--crop", type=int, metavar="PX",
                help="Write a square crop of PX pixels for each instance, not whole images.",
            ),
            click.option(
                "--crop-from", type=click.Choice(["bbox", "keypoints", "image"]),
                help="What the crop is cut around. Default: bbox.",
            ),
            click.option(
                "--margin", type=float,
                help="Side of the crop, in units of the box's longer side. Default: 1.25, and 1 "
                "around the whole image.",
            ),
            click.option(
                "--exif", default="applied", show_default=True,
                type=click.Choice(["applied", "ignored"]),
                help="Whether the annotator saw images with their EXIF orientation applied.",
            ),
            click.option(
                "--max-pixels", type=int, default=MAX_PIXELS, show_default=True,
                help="Refuse images of more pixels.",
            ),
            click.option(
                "--jpeg-quality", type=int, default=JPEG_QUALITY, show_default=True,
                help="Quality of crops, and of images that must be encoded anew.",
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def given_options(ctx: click.Context) -> set[str]:
    """The names of the parameters that were given on the command line."""
    return {n for n in ctx.params if ctx.get_parameter_source(n) == ParameterSource.COMMANDLINE}
