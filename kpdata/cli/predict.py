"""``kpdata predict``."""

import json
import sys
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kpdata.cli.flags import CommandMeter
from kpdata.cli.main import COMMANDS
from kpdata.cli.options import as_json, flip_option, quiet
from kpdata.shards.quarantine import escaped
from kpdata.view.printing import print_error, print_json, print_line

if TYPE_CHECKING:
    from kpdata.train.api import PredictionStream

_SHOWN = 20


@click.command("predict", short_help=COMMANDS["predict"])
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Write overlays, keypoints and their names to this folder.",
)
@click.option(
    "--boxes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON file that says where the objects are: each box is one object. Without it, each "
    "image counts as one object that fills it.",
)
@click.option(
    "--category",
    type=int,
    metavar="ID",
    help="Use only boxes of this category_id. Needed if --boxes holds several.",
)
@click.option(
    "--min-box-score",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Leave out boxes to which the detector gave a lower score.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0.1, 10),
    show_default="as in training",
    help="Side of the model's crops, in units of the box's longer side.",
)
@click.option(
    "--coco-out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the keypoints to FILE, as COCO's results JSON.",
)
@click.option(
    "--coco-images",
    type=click.Path(path_type=Path),
    metavar="FILE",
    show_default="the file of --boxes, if it is a COCO file",
    help="COCO file that numbers the images, by file name, for --coco-out and for detections.",
)
@click.option(
    "--min-score",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Do not draw keypoints with a lower score. Where the score is the visibility, draw them "
    "as rings. The files hold all keypoints.",
)
@flip_option
@quiet
@as_json
def command(
    run: Path, inputs: tuple[Path, ...], out: Path, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Find the keypoints in INPUTS (images, videos, folders of both) with the model in RUN.

    Writes to --out: overlays/, a picture or video for each input, named after it;
    predictions.jsonl, a line per instance with its overlay and its keypoints as [x, y, score];
    skeleton.json, their names. x and y are continuous
    pixels of the upright image: (0, 0) is its left upper corner.

    --boxes takes a COCO file, a list of COCO detections (with --coco-images), or
    {"photo.jpg": [[x0, y0, x1, y1], ...], "clip.mp4": {"0": [[x0, y0, x1, y1], ...], ...}}, where a
    video has boxes by frame, from 0, or one list for all its frames. Files and boxes that cannot be
    used are skipped and listed.

    \b
    Examples:
      kpdata predict runs/a photo.jpg folder/ clip.mp4 --out out/
      kpdata predict runs/a val2017/ --boxes person_keypoints_val2017.json \\
          --coco-out results.json --out out/
    """  # fmt: skip
    from kpdata.train.api import Run

    with CommandMeter(quiet or as_json) as meter:
        # the other options are the method's keyword arguments, which has their types
        stream = Run(run).iter_predictions(inputs, out=out, progress=meter, **options)
        deque(stream, maxlen=0)  # the command wants the files that it writes, not the predictions
    if as_json:
        print_json(json.dumps(_summary(stream, out), indent=1))
    else:
        _report(stream, out, options["min_score"], quiet)
    if not stream.tally.instances:
        why = "; ".join(_notes(stream, options["min_score"])) or "there is nothing to look at"
        print_error(f"kpdata: nothing was predicted: {why}")
        sys.exit(1)


def _summary(stream: "PredictionStream", out: Path) -> dict[str, Any]:
    """The result as JSON values."""
    tally = stream.tally
    skipped = [
        {"file": escaped(str(path)), "reason": reason, "detail": escaped(detail)}
        for path, reason, detail in tally.skipped
    ]
    counts = {name: value for name, value in vars(tally).items() if name != "skipped"}
    not_in_coco = stream.not_in_coco
    return {"out": str(out), **counts, "not_in_coco": not_in_coco, "skipped": skipped}


def _report(stream: "PredictionStream", out: Path, min_score: float, quiet: bool) -> None:
    from kpdata.train.infer.media import CUT_SHORT

    tally = stream.tally
    for path, reason, detail in tally.skipped[:_SHOWN]:
        named = detail if str(path) in detail else f"{path}: {detail}"
        print_error(f"{'CUT SHORT' if reason == CUT_SHORT else 'SKIPPED'} {named}")
    if len(tally.skipped) > _SHOWN:
        print_error(f"… and {len(tally.skipped) - _SHOWN:,} more")
    if not quiet:
        what = f"{tally.images:,} images, {tally.videos:,} videos, {tally.instances:,} instances"
        print_line(f"{out}: {'; '.join([what, *_notes(stream, min_score)])}")


def _notes(stream: "PredictionStream", min_score: float) -> list[str]:
    """What was left out, and why."""
    from kpdata.train.infer.media import CUT_SHORT

    tally = stream.tally
    reasons = Counter(reason for _, reason, _ in tally.skipped)
    cut = reasons.pop(CUT_SHORT, 0)
    notes = [f"{count:,} skipped: {reason}" for reason, count in reasons.items()]
    notes += [f"{cut:,} videos cut short"] * bool(cut)
    notes += [f"{count:,} boxes left out: {why}" for why, count in tally.boxes_left_out.items()]
    if tally.without_box:
        notes.append(f"{tally.without_box:,} files without a box left out")
    if tally.frames_without_box:
        notes.append(f"{tally.frames_without_box:,} frames of videos without a box")
    if tally.below_min_score:
        count = tally.below_min_score
        notes.append(f"{count:,} keypoints below --min-score {min_score:g} not drawn")
    if stream.not_in_coco:
        notes.append(f"{stream.not_in_coco:,} frames unknown to the COCO file left out of it")
    return notes
