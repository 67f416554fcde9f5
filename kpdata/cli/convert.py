"""``kpdata convert``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kpdata.cli.main import COMMANDS
from kpdata.cli.options import (
    BITS_APART,
    LOCATION,
    PERCENT,
    SIZE,
    as_json,
    augment_config_option,
    crop_options,
    given_options,
    quiet,
    refuse_idle_options,
    request_from,
    target_skeleton,
    workers_option,
)
from kpdata.cli.outcome import as_dict, show_outcome
from kpdata.cli.sources import reader_options, source_arguments, source_from
from kpdata.core.errors import FormatError
from kpdata.core.splits import DEFAULT_SPLIT, OFFICIAL
from kpdata.formats import FORMATS, Source, writer
from kpdata.images.perceptual import DEFAULT_DISTANCE
from kpdata.storage.stores import Location, Url, is_inside
from kpdata.view.console import Meter, resumable, screen, table
from kpdata.view.printing import say_json

if TYPE_CHECKING:
    from kpdata.pipelines.conversion import Outcome

_BEAM_OPTIONS = "kpdata.beam_options"

_SHARDS_ONLY = (
    "split", "val_from_train", "group", "group_near_duplicates", "crop", "crop_from", "margin",
    "augment", "augment_config", "seed", "exif", "validate_images", "max_pixels", "jpeg_quality",
    "shards", "shard_size", "runner", "workers", "beam_options",
)  # fmt: skip


class _WithBeamOptions(click.Command):
    """A command that keeps what stands behind ``--`` apart, in ``ctx.meta``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the Beam options away, and parse the rest."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_BEAM_OPTIONS] = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Name the Beam options last."""
        return [*super().collect_usage_pieces(ctx), "[-- BEAM OPTIONS]"]


@click.command("convert", cls=_WithBeamOptions, short_help=COMMANDS["convert"])
@source_arguments
@click.option("--out", required=True, type=LOCATION, help="Folder to write.")
@click.option(
    "--to", default="shards", show_default=True,
    type=click.Choice([f.name for f in FORMATS.values() if f.writable]), help="Target format.",
)  # fmt: skip
@reader_options
@click.option("--to-skeleton", metavar="NAME|FILE", help="Map the keypoints by name.")
@click.option(
    "--split", metavar="SPEC",
    help="train/val/test percentages, train=90,test=10, or official. "
    "Default: official for shards, yolo and several ANNOTATIONS, which are split already, else "
    f"{DEFAULT_SPLIT}.",
)  # fmt: skip
@click.option(
    "--val-from-train",
    default=0.0,
    type=PERCENT,
    metavar="PERCENT",
    help="With --split official: percentage of train to use as val.",
)
@click.option(
    "--group", metavar="REGEX",
    help="Images whose names match with the same first (…) stay in one split.",
)  # fmt: skip
@click.option(
    "--group-near-duplicates", type=BITS_APART, is_flag=False, flag_value=DEFAULT_DISTANCE,
    metavar="[BITS]",
    help="Keep images together whose perceptual hashes differ in so few of 256 bits "
    f"({DEFAULT_DISTANCE} unless given). Decodes every image once more, before the split.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of the split and of every draw.")
@crop_options
@click.option(
    "--augment", default=0, show_default=True, metavar="N", help="Copies of each train sample."
)
@augment_config_option
@click.option(
    "--validate-images", default="header", show_default=True,
    type=click.Choice(["header", "decode"]),
    help="Check untouched images by header and end marker, or decode them all.",
)  # fmt: skip
@click.option(
    "--max-quarantine", default=1.0, type=PERCENT, show_default=True, metavar="PERCENT",
    help="Samples that may go to quarantine before the job fails.",
)  # fmt: skip
@click.option(
    "--shards",
    type=click.IntRange(1, 99_999),
    help="Total number of shards, at least one per split.",
)
@click.option(
    "--shard-size",
    type=SIZE,
    default="128M",
    show_default=True,
    help="Without --shards: bytes per shard; small splits get up to 16.",
)
@workers_option
@click.option(
    "--runner", metavar="NAME",
    help="A Beam runner: FlinkRunner, SparkRunner, DataflowRunner, DaskRunner, …; processes of "
    "this machine unless given.",
)  # fmt: skip
@quiet
@as_json
@click.pass_context
def command(ctx: click.Context, /, to: str, out: Location, **options: Any) -> None:
    """Convert ANNOTATIONS of some FORMAT into the folder --out.

    ANNOTATIONS, --images and --out are local paths, or on a store: s3://, gs://, az://, hdfs://.
    Give one ANNOTATIONS, or one for each official split: train=a.json val=b.json.

    FORMAT is one of those that `kpdata formats` lists. The result is the same to the byte for any
    number of workers and on any runner; stopped anywhere, the same command goes on.

    \b
    Examples:
      kpdata convert lsp joints.mat --out shards/
      kpdata convert lsp joints.mat --out shards/ --split official --val-from-train 10
      kpdata convert mpii mpii_human_pose_v1_u12_1.mat --out shards/ --crop 256
      kpdata convert coco person_keypoints_train2017.json --images train2017/ \\
          --out shards/ --crop 256 --augment 4
      kpdata convert coco train=person_keypoints_train2017.json \\
          val=person_keypoints_val2017.json --out shards/
      kpdata convert yolo data.yaml --out shards/
      kpdata convert deeplabcut reaching-me-2026-01-31/ --out shards/
      kpdata convert json annotations/ --images images/ --skeleton boat.json --out shards/
      kpdata convert json labelme_files/ --out shards/
      kpdata convert shards shards/ --to coco --out back/
      kpdata convert shards shards/ --to yolo --out yolo/
      kpdata convert coco s3://bucket/train2017.json --images s3://bucket/train2017/ \\
          --out s3://bucket/shards/ --crop 256
      kpdata convert coco big.json --images big/ --out shards/ \\
          --runner FlinkRunner -- --flink_master=host:8081 --environment_type=EXTERNAL
    """
    given = given_options(ctx)
    options["beam_options"] = _checked_beam_options(ctx.meta[_BEAM_OPTIONS])
    given |= {"beam_options"} if options["beam_options"] else set()
    if to == "shards":
        refuse_idle_options(given, options)
        if {"shards", "shard_size"} <= given:
            raise FormatError("--shards and --shard-size exclude each other: give one of them")
        _refuse_far_shards(options)
        with source_from(options) as source:
            _refuse_inside(source, out)
            _to_shards(source, out, options)
    else:
        _refuse_shard_options(given, to)
        _refuse_stores(to, out, *(found.place for found in options["images"]))
        with source_from(options) as source:
            _refuse_inside(source, out)
            _to_annotations(source, to, Path(out), options)


def _to_shards(source: Source, out: Location, options: dict[str, Any]) -> None:
    with resumable(), Meter(options["quiet"] or options["as_json"]) as meter:
        outcome = run_conversion(source, out, options, meter)
    if options["as_json"]:
        say_json(json.dumps(as_dict(outcome), indent=1))
    elif not options["quiet"]:
        show_outcome(outcome, out)


def run_conversion(
    source: Source, out: Location, options: dict[str, Any], meter: Meter
) -> "Outcome":
    """Convert ``source`` into shards as the command line's options say."""
    meter.begin("starting")
    from kpdata.pipelines import convert

    is_split = FORMATS[options["format_name"]].has_splits or options["annotations"][0].split
    split = options["split"] or (OFFICIAL if is_split else DEFAULT_SPLIT)
    return convert(source, request_from(source, {**options, "split": split}), out, meter)


def _to_annotations(source: Source, to: str, out: Path, options: dict[str, Any]) -> None:
    from kpdata.core.mapping import map_sample
    from kpdata.core.sample import Sample

    skeleton, mapping = target_skeleton(source, options)

    def mapped(meter: Meter) -> Any:
        for sample in source.samples:
            meter.advance(1)
            yield map_sample(sample, mapping) if mapping and isinstance(sample, Sample) else sample

    with Meter(options["quiet"] or options["as_json"]) as meter:
        meter.begin("writing")
        written = writer(to)(
            mapped(meter), skeleton, out, source.images_root, options["max_quarantine"]
        )
    counts = source.counts + written
    if options["as_json"]:
        say_json(json.dumps(counts, indent=1))
    elif not options["quiet"]:
        screen().print(table(f"{out}", ("what", "count"), sorted(counts.items())))


def _refuse_shard_options(given: set[str], to: str) -> None:
    for name in _SHARDS_ONLY:
        if name in given:
            flag = "-- BEAM OPTIONS" if name == "beam_options" else f"--{name.replace('_', '-')}"
            raise FormatError(
                f"{flag} is for --to shards: convert to shards with it first, "
                f"then convert those --to {to}"
            )


def _refuse_far_shards(options: dict[str, Any]) -> None:
    if options["format_name"] != "shards" or options["runner"] is None:
        return
    for _, shards in options["annotations"]:
        if isinstance(shards, Url):
            raise FormatError(
                f"{shards}: shards on a store are copied to this machine, where the workers of "
                "another runner cannot read them: copy them to a folder that all workers share"
            )


def _checked_beam_options(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not words[0].startswith("-"):
        raise FormatError(f"-- {words[0]}: Beam options begin with --, as in --parallelism=4")
    if any(word.partition("=")[0] == "--runner" for word in words):
        raise FormatError("--runner belongs before the --, where kpdata reads it")
    return words


def _refuse_inside(source: Source, out: Location) -> None:
    """Refuse an output inside a folder that is read whole: the next run would read it, too."""
    for folder in source.folders:
        if is_inside(out, folder):
            raise FormatError(
                f"--out {out} lies in {folder}, which is read as a whole: the next run would take "
                "what is written there for a part of the source: choose an --out outside of it"
            )


def _refuse_stores(to: str, *places: Location | None) -> None:
    for where in places:
        if isinstance(where, Url):
            raise FormatError(f"{where}: --to {to} copies images from folder to folder, on disks")
