"""``kpdata evaluate``."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from kpdata.cli.flags import CommandMeter
from kpdata.cli.main import COMMANDS
from kpdata.cli.options import LOCATION, as_json, decode_option, flip_option, quiet
from kpdata.cli.score_tables import amount, by_reason, keypoint_rows, span
from kpdata.core.crop import CropFrom
from kpdata.metrics import Score
from kpdata.storage.stores import Location
from kpdata.view.console import screen, table
from kpdata.view.printing import print_json, print_line

if TYPE_CHECKING:
    from kpdata.train.evaluate.report import Report


@click.command("evaluate", short_help=COMMANDS["evaluate"])
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("shards", type=LOCATION)
@click.option(
    "--split", default="test", show_default=True, metavar="NAME",
    help="Which split of SHARDS to score.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), show_default="RUN/evaluation-SPLIT",
    help="Write scores, predictions and pictures to this folder.",
)  # fmt: skip
@flip_option
@decode_option
@click.option(
    "--crop-from", type=click.Choice(get_args(CropFrom)), show_default="as in training",
    help="What to cut the model's crops around, where SHARDS hold whole images: the annotated "
    "box, the true keypoints (an oracle crop, which leaks the labels), or the whole image.",
)  # fmt: skip
@quiet
@as_json
def command(run: Path, shards: Location, out: Path | None, **options: Any) -> None:
    """Score the trained model RUN on a split of the dataset SHARDS.

    Every score is in pixels of the source images, and comes with its definition, a bootstrap 95 %
    interval, and its baseline: the score of the mean training pose placed in the same crops. The
    folder --out gets metrics.json, predictions.jsonl and truth.jsonl, from which every score can be
    computed again, a PCK curve, bars per keypoint, and sheets of the best, median and worst
    examples.

    \b
    Examples:
      kpdata evaluate runs/a shards/
      kpdata evaluate runs/a shards/ --split val --no-flip --out scores/
      kpdata evaluate runs/a shards/ --crop-from image --json
    """
    from kpdata.train.api import Run

    opened = Run(run)
    with CommandMeter(options["quiet"] or options["as_json"]) as meter:
        evaluation = opened.evaluate(
            shards,
            split=options["split"],
            out=out,
            flip=options["flip"],
            decode=options["decode"],
            crop_from=options["crop_from"],
            progress=meter,
        )
    if options["as_json"]:
        print_json(evaluation.report.json().decode())
    elif not options["quiet"]:
        show(evaluation.report, f"{run} on {shards}")
        written = out or opened.evaluation_folder(options["split"])
        print_line(f"{written}: metrics.json, predictions.jsonl, truth.jsonl and pictures")


def show(report: "Report", title: str) -> None:
    """Print the scores for a person."""
    console = screen()
    for line in _conditions(report, title):
        console.print(line)
    heads = list(report.heads)
    columns = ["metric", *(column for head in heads for column in (head, "95 %")), "baseline", "n"]
    console.print(table("", columns, _score_rows(report)))
    if report.visibility:
        visibility = [
            [score.name, *_value_and_span(score), *_baseline_and_count(score)]
            for score in report.visibility
        ]
        console.print(
            table("\nvisibility", ["metric", "value", "95 %", "baseline", "n"], visibility)
        )
    by_keypoint = report.by_keypoint
    name = by_keypoint[report.primary].name
    rows = [
        [label, *(_part(score, key, averaged) for score in by_keypoint.values())]
        for label, key, averaged in keypoint_rows(report.skeleton)
    ]
    console.print(table(f"\n{name} by keypoint", ["keypoint", *by_keypoint], rows))
    console.print("")
    for line in _remarks(report):
        console.print(line)


def _conditions(report: "Report", title: str) -> list[str]:
    from kpdata.train.models.parts import HEATMAP_HEAD

    settings = report.settings
    how = [f"{'with' if settings.flip_test else 'without'} flip test"]
    if HEATMAP_HEAD.name in report.heads:
        how.append(f"heatmaps decoded by {settings.decode}")
    if len(report.heads) > 1:
        how.append(f"the model's answer is that of its {report.primary} head")
    return [
        f"{title}, split {settings.split}: {report.instances:,} instances of {report.images:,} "
        f"images; kpdata {report.kpdata}",
        f"crop: {report.crop}; {report.input_size} × {report.input_size} pixels",
        f"weights of epoch {report.epoch}, {', '.join(how)}",
        f"split {report.split_sha256}, dataset {report.root_hash}",
        "",
    ]


def _score_rows(report: "Report") -> list[list[str]]:
    rows = []
    for scores in zip(*report.heads.values(), strict=True):
        cells = [cell for score in scores for cell in _value_and_span(score)]
        rows.append([scores[0].name, *cells, *_baseline_and_count(scores[0])])
    return rows


def _value_and_span(score: Score) -> tuple[str, str]:
    return amount(score.value, score.unit), span(score.interval, score.unit)


def _baseline_and_count(score: Score) -> tuple[str, str]:
    return amount(score.baseline, score.unit), f"{score.n:,} {score.counted}"


def _part(score: Score, name: str, averaged: bool) -> str:
    return amount((score.averaged if averaged else score.parts)[name], score.unit)


def _remarks(report: "Report") -> Iterable[str]:
    scores = [*report.heads[report.primary], *report.visibility]
    for score in scores:
        left_out = "; ".join(f"{n:,} {what}" for what, n in score.left_out.items() if n)
        yield f"{score.name}: {score.definition}" + (f". Left out: {left_out}" if left_out else "")
    yield f"baseline: {report.baseline_definition}"
    yield from by_reason("not computed", report.not_computed)
    for what, count in report.left_out.items():
        yield f"left out: {count:,} {what}"
    for text in report.notes:
        yield text if text.startswith("WARNING") else f"note: {text}"
