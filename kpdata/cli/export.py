"""``kpdata export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from kpdata.cli.flags import CommandMeter
from kpdata.cli.main import COMMANDS
from kpdata.cli.model_options import DeclaredCommand, head_option
from kpdata.cli.options import LOCATION, as_json, decode_option, quiet
from kpdata.train.export.formats import FORMATS, Precision
from kpdata.view.console import screen, table
from kpdata.view.printing import print_json

if TYPE_CHECKING:
    from kpdata.train.export.export import Card


@click.command("export", cls=DeclaredCommand, declared=head_option, short_help=COMMANDS["export"])
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to", "formats", multiple=True, required=True,
    type=click.Choice(list(FORMATS)),
    help="What to write: TensorFlow Lite (LiteRT) for phones and small devices, ONNX for almost "
    "any runtime, or a TensorFlow SavedModel. May be given several times.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(path_type=Path),
    help="New folder for the models, and for model.json, which describes them.",
)  # fmt: skip
@click.option(
    "--flip", is_flag=True,
    help="Put the flip test inside, which takes twice as long. To score what you export without "
    "it, use kpdata evaluate --no-flip.",
)  # fmt: skip
@click.option(
    "--precision", default="float32", show_default=True, type=click.Choice(get_args(Precision)),
    help="Of the weights of a TFLite file. float16 halves it; int8 quarters it, and computes in "
    "int8 where the head is coordinates. Such a file is scored on the shards beside the Keras "
    "model, and refused if it loses more than 2 points of PCK or a tenth of EPE.",
)  # fmt: skip
@click.option(
    "--dataset", type=LOCATION, metavar="SHARDS", show_default="where they lay in training",
    help="The run's shards, to calibrate and score a file of less than float32.",
)  # fmt: skip
@decode_option
@quiet
@as_json
def command(run: Path, formats: tuple[str, ...], out: Path, **options: Any) -> None:
    """Write the trained model in RUN as files for other programs.

    An exported model takes crops of images, squares of uint8 RGB, and answers with keypoints: x, y
    in pixels of the crop, and a score. Scaling the pixels and decoding the heatmaps is inside.
    Each file is run by its own runtime: unless all find what the Keras model finds, none is kept.

    \b
    Examples:
      kpdata export runs/a --to tflite --out exported/
      kpdata export runs/a --to tflite --precision int8 --head coordinates --out phone/
      kpdata export runs/a --to onnx --to saved_model --head coordinates --out exported/
    """  # fmt: skip
    from kpdata.train.api import Run

    with CommandMeter(options["quiet"] or options["as_json"]) as meter:
        card = Run(run).export(
            out,
            to=formats,
            head=options["head"],
            flip=options["flip"],
            decode=options["decode"],
            precision=options["precision"],
            dataset=options["dataset"],
            progress=meter,
        )
    if options["as_json"]:
        print_json(card.json().decode())
    elif not options["quiet"]:
        _show(card, out)


def _show(card: "Card", out: Path) -> None:
    columns = ["file", "MB", "crops at a time", "median px off", "max px off", "max score off"]
    rows = [
        [
            file.name,
            f"{file.bytes / 1e6:,.1f}",
            "any number" if file.batch is None else str(file.batch),
            f"{file.agreement.median_px:.2g}",
            f"{file.agreement.max_px:.2g}",
            f"{file.agreement.max_score:.2g}",
        ]
        for file in card.files.values()
    ]
    console = screen()
    console.print(table("", columns, rows))
    for file in card.files.values():
        if file.accuracy:
            console.print(f"{file.name} of {file.precision}: {file.accuracy}")
    (side, *_), flip = card.inputs["image"].shape, "with" if card.flip_test else "without"
    console.print(
        f"{out}: in: crops of {side} × {side} pixels; out: {len(card.skeleton)} keypoints of the "
        f"{card.head} head, {flip} flip test. model.json says more"
    )
