"""``kpdata predict``."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kpdata.cli.main import COMMANDS
from kpdata.cli.options import as_json, flip_option, quiet
from kpdata.view.console import Meter
from kpdata.view.printing import complain, say, say_json

if TYPE_CHECKING:
    from kpdata.train.infer.boxes import Boxes
    from kpdata.train.infer.files import CocoResults
    from kpdata.train.infer.frames import Tally
    from kpdata.train.infer.predictor import Predictor

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
    help="JSON file that says where the objects are: each box is looked into. Without it, each "
    "picture is taken for one object that fills it.",
)
@click.option(
    "--category",
    type=int,
    metavar="ID",
    help="Look into boxes of this category_id alone; needed where --boxes holds several.",
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
    help="How large to cut the square that the model sees, in units of the box's longer side.",
)
@click.option(
    "--coco",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the keypoints to FILE, as COCO's results JSON.",
)
@click.option(
    "--coco-images",
    type=click.Path(path_type=Path),
    metavar="FILE",
    show_default="the file of --boxes, if it is a COCO file",
    help="COCO file that numbers the images, by file name, for --coco and for detections.",
)
@click.option(
    "--min-score",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Keypoints that were found with a lower score are not drawn, save where the score is "
    "the visibility: what is hidden is drawn as a ring. The files hold them all.",
)
@flip_option
@quiet
@as_json
def command(**options: Any) -> None:
    """Find the keypoints in INPUTS (images, folders of images, videos) with the model in RUN.

    Writes to --out: overlays/, a picture or video for each input; predictions.jsonl, a line per
    instance with its keypoints as [x, y, score]; skeleton.json, their names. x and y are continuous
    pixels of the upright picture: (0, 0) is its left upper corner.

    --boxes takes a COCO file, a list of COCO detections (with --coco-images), or
    {"photo.jpg": [[x0, y0, x1, y1], ...]}. Files and boxes that cannot be used are skipped and
    listed.

    \b
    Examples:
      kpdata predict runs/a photo.jpg folder/ clip.mp4 --out out/
      kpdata predict runs/a val2017/ --boxes person_keypoints_val2017.json \\
          --coco results.json --out out/
    """  # fmt: skip
    from kpdata.cli.training import need_trainer

    need_trainer()
    from kpdata.train.infer.frames import Skipped, Tally
    from kpdata.train.infer.media import find
    from kpdata.train.infer.predictor import Predictor

    items = find(options["inputs"], besides=options["out"])
    boxes, results = _boxes_and_results(options)
    tally = Tally(boxes_left_out=boxes.left_out if boxes else {})
    for fault in boxes.unusable if boxes else ():
        tally.skipped.append(Skipped(options["boxes"], "not a box", f"{options['boxes']}: {fault}"))
    with Meter(options["quiet"] or options["as_json"]) as meter:
        predictor = Predictor.open(options["run"])
        _predict(predictor, items, boxes, results, tally, meter, options)
    if options["coco"]:
        results.write(options["coco"])
    _report(tally, results, options)
    if not tally.frames:
        sys.exit(1)


def _boxes_and_results(
    options: dict[str, Any],
) -> "tuple[Boxes | None, CocoResults]":
    from kpdata.core.errors import FormatError
    from kpdata.train.infer.boxes import ANY, ByName, Wanted, read_boxes, read_image_ids
    from kpdata.train.infer.files import CocoResults

    wanted = Wanted(options["category"], options["min_box_score"])
    if wanted != ANY and not options["boxes"]:
        raise FormatError("--category and --min-box-score change nothing without --boxes")
    ids = options["coco_images"] and read_image_ids(options["coco_images"])
    boxes = options["boxes"] and read_boxes(options["boxes"], ids, wanted)
    if options["coco"] and ids is None and options["boxes"]:
        try:
            ids = read_image_ids(options["boxes"])
        except FormatError:
            ids = None  # a plain list of boxes numbers no images
    return boxes, CocoResults(None if ids is None else ByName(ids))


def _predict(
    predictor: "Predictor",
    items: list[Any],
    boxes: "Boxes | None",
    results: "CocoResults",
    tally: "Tally",
    meter: Meter,
    options: dict[str, Any],
) -> None:
    from kpdata.train.infer.files import Answers
    from kpdata.train.infer.frames import predict_frames, read_frames
    from kpdata.train.infer.media import count_frames

    margin = options["margin"] or predictor.crop_rule.margin
    flip = predictor.saw_mirrored if options["flip"] is None else options["flip"]
    for text in _what_it_sees(predictor, boxes, margin, flip):
        meter.tell(text)
    meter.begin("predicting", count_frames(items), "frames")
    frames = read_frames(items, boxes, tally)
    with Answers(options["out"], predictor.skeleton, options["min_score"]) as answers:
        for found in predict_frames(predictor, frames, margin, flip):
            answers.add(found)
            results.add(found)
            meter.advance()


def _what_it_sees(
    predictor: "Predictor", boxes: "Boxes | None", margin: float, flip: bool
) -> Iterator[str]:
    """What to know of the answers, before there are any."""
    from kpdata.train.infer.predictions import UNSEEN_MIRROR

    if boxes is not None and predictor.crop_rule.crop_from != "bbox":
        yield (
            f"warning: the model is shown squares around the boxes, × {margin:g}, and was taught "
            f"to see {predictor.crop_rule.words}"
        )
    if boxes is None:
        yield (
            f"no --boxes: each picture counts as one instance that fills it, and is seen as a "
            f"square around its centre, × {margin:g}. In training: {predictor.crop_rule.words}"
        )
    if predictor.score_note:
        yield f"note: {predictor.score_note}"
    if flip and not predictor.saw_mirrored:
        yield f"warning: {UNSEEN_MIRROR}"
    else:
        yield f"{'with' if flip else 'without'} flip test"


def _report(tally: "Tally", results: "CocoResults", options: dict[str, Any]) -> None:
    out = options["out"]
    left_out = results.left_out if options["coco"] else 0
    if options["as_json"]:
        skipped = [
            {"file": str(path), "reason": reason, "detail": detail}
            for path, reason, detail in tally.skipped
        ]
        counts = {name: value for name, value in vars(tally).items() if name != "skipped"}
        summary = {"out": str(out), **counts, "not_in_coco": left_out, "skipped": skipped}
        say_json(json.dumps(summary, indent=1))
        return
    for path, _, detail in tally.skipped[:_SHOWN]:
        named = detail if str(path) in detail else f"{path}: {detail}"
        complain(f"SKIPPED {named}")
    if len(tally.skipped) > _SHOWN:
        complain(f"… and {len(tally.skipped) - _SHOWN:,} more")
    reasons = Counter(reason for _, reason, _ in tally.skipped)
    notes = [f"{count:,} skipped: {reason}" for reason, count in reasons.items()]
    notes += [f"{count:,} boxes left out: {why}" for why, count in tally.boxes_left_out.items()]
    notes += [f"{tally.without_box:,} without a box left out"] * bool(tally.without_box)
    notes += [f"{left_out:,} frames unknown to the COCO file left out of it"] * bool(left_out)
    if not options["quiet"]:
        what = f"{tally.images:,} images, {tally.videos:,} videos, {tally.instances:,} instances"
        say(f"{out}: {'; '.join([what, *notes])}")
