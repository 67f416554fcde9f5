"""``kpdata evaluate``."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.table import Table

from kpdata.cli.flags import CommandMeter
from kpdata.cli.main import COMMANDS
from kpdata.cli.options import LOCATION, as_json, decode_option, flip_option, quiet
from kpdata.cli.score_tables import amount, by_reason, headline, keypoint_rows, span
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
@click.option("--explain", is_flag=True, help="Also print how each metric is defined.")
@quiet
@as_json
def command(run: Path, shards: Location, out: Path | None, **options: Any) -> None:
    """Score the trained model RUN on a split of the dataset SHARDS.

    Every score is in pixels of the source images, and comes with a bootstrap 95 % interval, and its
    baseline: the score of the mean training pose placed in the same crops. --explain prints the
    definitions. The first score is PCK, or the mean error (EPE) where PCK is above 97 %, and hardly
    tells models apart. The folder --out gets metrics.json, predictions.jsonl and truth.jsonl, from
    which every score can be computed again, a PCK curve, bars per keypoint, and sheets of the best,
    median and worst examples.

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
        show(evaluation.report, f"{run} on {shards}", options["explain"])
        written = out or opened.evaluation_folder(options["split"])
        print_line(f"{written}: metrics.json, predictions.jsonl, truth.jsonl and pictures")


def show(report: "Report", title: str, explain: bool) -> None:
    """Print the scores for a person."""
    console = screen()
    for line in _conditions(report, title):
        console.print(line)
    console.print(headline(report.heads[report.primary], report.leading))
    console.print("")
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
    console.print(_keypoint_table(report))
    console.print("")
    for line in _remarks(report, explain):
        console.print(line)


def _keypoint_table(report: "Report") -> Table:
    """The leading metric of all heads by keypoint, and PCK and EPE of the model's answer."""
    leading, *others = report.by_keypoint
    also = [each[report.primary] for each in others
            if each[report.primary].name.startswith(("PCK@", "EPE"))]  # fmt: skip
    scores = [*leading.values(), *also]
    rows = [
        [label, *(_part(score, key, averaged) for score in scores)]
        for label, key, averaged in keypoint_rows(report.skeleton)
    ]
    name = leading[report.primary].name
    named = f"{name} by keypoint" + "".join(
        f", and {score.name} of the {report.primary} head" for score in also
    )
    columns = ["keypoint", *leading, *(score.name.partition(" (")[0] for score in also)]
    return table(f"\n{named}", columns, rows)


def _conditions(report: "Report", title: str) -> list[str]:
    from kpdata.train.models.parts import HEATMAP_HEAD

    settings = report.settings
    how = [f"{'with' if settings.flip_test else 'without'} flip test"]
    if HEATMAP_HEAD.name in report.heads:
        how.append(f"heatmaps decoded by {settings.decode}")
    how.append(f"the model's answer is that of its {report.primary} head")
    weights = f"weights of epoch {report.epoch}"
    if report.phase:
        weights += f" (phase {report.phase}, {report.trains})"
    for head, epoch in report.earlier.items():
        weights += f", of its {head} head of epoch {epoch}"
    return [
        f"{title}, split {settings.split}: {report.instances:,} instances of {report.images:,} "
        f"images; kpdata {report.kpdata}",
        f"crop: {report.crop}; {report.input_size} × {report.input_size} pixels",
        f"{weights}, {', '.join(how)}",
        f"split {report.split_sha256}, dataset {report.root_hash}",
        "",
    ]


def _score_rows(report: "Report") -> list[list[str]]:
    rows = []
    leading = report.leading.name
    metrics = zip(*report.heads.values(), strict=True)
    for scores in sorted(metrics, key=lambda scores: scores[0].name != leading):
        cells = [cell for score in scores for cell in _value_and_span(score)]
        rows.append([scores[0].name, *cells, *_baseline_and_count(scores[0])])
    return rows


def _value_and_span(score: Score) -> tuple[str, str]:
    return amount(score.value, score.unit), span(score.interval, score.unit)


def _baseline_and_count(score: Score) -> tuple[str, str]:
    return amount(score.baseline, score.unit), f"{score.n:,} {score.counted}"


def _part(score: Score, name: str, averaged: bool) -> str:
    return amount((score.averaged if averaged else score.parts)[name], score.unit)


def _remarks(report: "Report", explain: bool) -> Iterable[str]:
    scores = [*report.heads[report.primary], *report.visibility]
    if explain:
        for score in scores:
            yield f"{score.name}: {score.definition}"
        yield f"baseline: {report.baseline_definition}"
    left_out = {
        score.name: "; ".join(f"{n:,} {what}" for what, n in score.left_out.items() if n)
        for score in scores
    }
    yield from by_reason("left out of", {name: what for name, what in left_out.items() if what})
    yield from by_reason("not computed", report.not_computed)
    for what, count in report.left_out.items():
        yield f"left out: {count:,} {what}"
    for text in report.notes:
        yield text if text.startswith("WARNING") else f"note: {text}"
    if not explain:
        yield "definitions: with --explain, and in metrics.json"
