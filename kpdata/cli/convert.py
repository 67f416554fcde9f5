"""``kpdata convert``."""

import json
from typing import Any

import click

from kpdata.cli.flags import CommandMeter
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
    workers_option,
)
from kpdata.cli.outcome import as_dict, show_outcome
from kpdata.cli.sources import ReadsAnnotations, labels_from
from kpdata.core.defaults import MAX_QUARANTINE, SHARD_SIZE
from kpdata.core.errors import FormatError
from kpdata.core.splits import DEFAULT_SPLIT
from kpdata.door import CONVERSION_OPTIONS, refuse_idle, run_conversion, run_writing
from kpdata.formats import FORMATS
from kpdata.images.perceptual import DEFAULT_DISTANCE
from kpdata.storage.stores import Location
from kpdata.view.console import resumable, screen, table
from kpdata.view.printing import print_json

_BEAM_OPTIONS = "kpdata.beam_options"

_ANNOTATIONS_TOO = frozenset({"to_skeleton", "max_quarantine"})
"""Options that also apply when converting to annotations."""


class _WithBeamOptions(ReadsAnnotations):
    """A command that puts all arguments after ``--`` into ``ctx.meta``, as Beam options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Separate the Beam options, and parse the rest."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_BEAM_OPTIONS] = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Add the Beam options to the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- BEAM OPTIONS]"]


@click.command("convert", cls=_WithBeamOptions, short_help=COMMANDS["convert"])
@click.option("--out", required=True, type=LOCATION, help="Folder to write.")
@click.option(
    "--to", default="shards", show_default=True,
    type=click.Choice([f.name for f in FORMATS.values() if f.writable]), help="Target format.",
)  # fmt: skip
@click.option(
    "--to-skeleton", metavar="NAME|FILE", help="Map the keypoints to this skeleton, by name."
)
@click.option(
    "--split", metavar="SPEC",
    help="Percentages of train, val and test, such as 80/10/10 or train=90,test=10; or official, "
    "the split that the source has. Default: official if the source is split (shards, yolo, "
    f"several ANNOTATIONS), else {DEFAULT_SPLIT}.",
)  # fmt: skip
@click.option(
    "--val-from-train",
    default=0.0,
    type=PERCENT,
    metavar="PERCENT",
    help="With --split official: the percentage of train to use as val.",
)
@click.option(
    "--group", metavar="REGEX",
    help="Images stay in one split if the first (…) matches the same text in their names.",
)  # fmt: skip
@click.option(
    "--group-near-duplicates", type=BITS_APART, is_flag=False, flag_value=DEFAULT_DISTANCE,
    metavar="[BITS]",
    help="Images stay in one split if their pixels are the same, or their perceptual hashes differ "
    f"in at most BITS of 256 bits ({DEFAULT_DISTANCE} unless given). This decodes every image once "
    "more, before the split.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Decides the split and the copies.")
@crop_options
@click.option(
    "--augment", default=0, show_default=True, metavar="N",
    help="Number of augmented copies of each train sample.",
)  # fmt: skip
@augment_config_option
@click.option(
    "--validate-images", default="header", show_default=True,
    type=click.Choice(["header", "decode"]),
    help="How to check images that are stored as they are: by header and end "
    "marker, or by decoding them.",
)  # fmt: skip
@click.option(
    "--max-quarantine", default=MAX_QUARANTINE, type=PERCENT, show_default=True, metavar="PERCENT",
    help="Percentage of samples that may be refused before the conversion fails.",
)  # fmt: skip
@click.option(
    "--shards",
    type=click.IntRange(1, 99_999),
    help="Number of shards in all, at least one for each split.",
)
@click.option(
    "--shard-size",
    type=SIZE,
    default=f"{SHARD_SIZE // 1_000_000}M",
    show_default=True,
    help="Bytes of a shard, roughly, if --shards is not given. Small splits get up to 16 shards.",
)
@workers_option
@click.option(
    "--runner", metavar="NAME",
    help="A Beam runner: FlinkRunner, SparkRunner, DataflowRunner, DaskRunner, …. Default: "
    "processes on this machine, without Beam.",
)  # fmt: skip
@quiet
@as_json
@click.pass_context
def command(ctx: click.Context, /, to: str, out: Location, **options: Any) -> None:
    """Convert ANNOTATIONS into the folder --out.

    ANNOTATIONS, --images and --out are local paths, or on a store: s3://, gs://, az://,
    hdfs://. Give one ANNOTATIONS, or one for each official split: train=a.json val=b.json.

    FORMAT is a name that `kpdata formats` lists. Without it, kpdata recognises the format by what
    the annotations hold. Any number of workers and any runner write the same bytes. If the command
    is stopped, run it again: it goes on from there.

    \b
    Examples:
      kpdata convert joints.mat --out shards/
      kpdata convert lsp joints.mat --out shards/ --split official --val-from-train 10
      kpdata convert mpii mpii_human_pose_v1_u12_1.mat --out shards/ --crop 256
      kpdata convert coco person_keypoints_train2017.json --images train2017/ \\
          --out shards/ --crop 256 --augment 4
      kpdata convert coco train=person_keypoints_train2017.json \\
          val=person_keypoints_val2017.json --out shards/
      kpdata convert yolo data.yaml --out shards/
      kpdata convert deeplabcut reaching-me-2026-01-31/ --out shards/
      kpdata convert labelme labelme_files/ --out shards/
      kpdata convert json annotations/ --images images/ --skeleton boat.json --out shards/
      kpdata convert shards/ --to coco --out back/
      kpdata convert shards/ --to yolo --out yolo/
      kpdata convert coco s3://bucket/train2017.json --images s3://bucket/train2017/ \\
          --out s3://bucket/shards/ --crop 256
      kpdata convert coco big.json --images big/ --out shards/ \\
          --runner FlinkRunner -- --flink_master=host:8081 --environment_type=EXTERNAL
    """
    given = given_options(ctx)
    options["beam_options"] = _checked_beam_options(ctx.meta[_BEAM_OPTIONS])
    given |= {"beam_options"} if options["beam_options"] else set()
    silent = options["quiet"] or options["as_json"]
    if to == "shards":
        refuse_idle(given, options)
        with resumable(), CommandMeter(silent) as meter:
            chosen = {name: options[name] for name in CONVERSION_OPTIONS}
            outcome = run_conversion(labels_from(options, meter), out, chosen, meter)
        if options["as_json"]:
            print_json(json.dumps(as_dict(outcome), indent=1))
        elif not silent:
            show_outcome(outcome, out)
        return
    _refuse_shard_options(given, to)
    skeleton, most = options["to_skeleton"], options["max_quarantine"]
    with CommandMeter(silent) as meter:
        counts = run_writing(labels_from(options, meter), out, to, skeleton, most, meter)
    if options["as_json"]:
        print_json(json.dumps(counts, indent=1))
    elif not silent:
        screen().print(table(f"{out}", ("what", "count"), sorted(counts.items())))


def _refuse_shard_options(given: set[str], to: str) -> None:
    for name in CONVERSION_OPTIONS - _ANNOTATIONS_TOO:
        if name in given:
            flag = "-- BEAM OPTIONS" if name == "beam_options" else f"`{name}`"
            raise FormatError(
                f"{flag} is for `to` shards: convert to shards with it first, "
                f"then convert those `to` {to}"
            )


def _checked_beam_options(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not words[0].startswith("-"):
        raise FormatError(f"-- {words[0]}: Beam options begin with --, as in --parallelism=4")
    if any(word.partition("=")[0] == "--runner" for word in words):
        raise FormatError("--runner belongs before the --, where kpdata reads it")
    return words
