"""``kpdata demo``."""

import json
import shlex
from pathlib import Path

import click

from kpdata.cli.main import COMMANDS, cli
from kpdata.core.errors import KpdataError
from kpdata.core.splits import TRAIN, VAL
from kpdata.shards.dataset import Dataset
from kpdata.view.console import resumable
from kpdata.view.printing import print_line

_SPLIT = "test"
FEWEST = 42
"""With fewer images, one of the splits would be empty."""
_OWN = frozenset({"synth", "shards", "run", "contact-sheet.png"})


@click.command("demo", short_help=COMMANDS["demo"])
@click.option(
    "--out", default="kpdata-demo", show_default=True, type=click.Path(path_type=Path),
    help="Folder to write.",
)  # fmt: skip
@click.option(
    "--count", default=600, show_default=True, type=click.IntRange(FEWEST), help="Images."
)
@click.option("--no-train", is_flag=True, help="End with the shards.")
def command(out: Path, count: int, no_train: bool) -> None:
    """Show the whole path on rendered data: every step is a command that you can repeat.

    Renders simulated people, converts them to crops and augmented copies, inspects and verifies
    the shards, and draws a contact sheet. Then it trains a small model, and scores it. What is
    there already is kept, and what was interrupted goes on.

    \b
    Examples:
      kpdata demo
      kpdata demo --no-train --count 50
    """
    _refuse_other_demo(out, count)
    with resumable():
        pictures = _make_shards(out, count)
        if not no_train and _can_train():
            _refuse_empty_splits(out / "shards")
            pictures |= _train_and_score(out / "shards", out / "run")
    print_line("\nLook at:")
    for path, what in pictures.items():
        print_line(f"  {path}: {what}")


def _refuse_other_demo(out: Path, count: int) -> None:
    """Raise KpdataError if ``out`` holds anything but a demo of ``count`` pictures."""
    if out.exists() and not out.is_dir():
        raise KpdataError(f"--out {out} is a file: name a new folder")
    others = sorted({path.name for path in out.glob("*")} - _OWN) if out.exists() else []
    if others:
        raise KpdataError(f"--out {out} holds {others[0]!r}: choose a new or an empty folder")
    annotations = out / "synth" / "annotations.json"
    if not annotations.is_file():
        return
    there = len(json.loads(annotations.read_bytes())["images"])
    if there != count:
        raise KpdataError(
            f"--out {out} holds a demo of {there:,} pictures: go on with --count {there}, or "
            "choose another --out"
        )


def _make_shards(out: Path, count: int) -> dict[Path, str]:
    """Make ``out/shards`` and a contact sheet; returns {sheet: its description}."""
    annotations = out / "synth" / "annotations.json"
    if annotations.is_file():
        print_line(f"{annotations.parent} is there already: kept")
    else:
        _run("synth", "--count", count, "--out", out / "synth")
    _run("convert", "coco", annotations, "--out", out / "shards", "--crop", 128, "--augment", 3)
    _run("inspect", out / "shards")
    _run("verify", out / "shards")
    sheet = out / "contact-sheet.png"
    _run("augment-preview", "coco", annotations, "--crop", 256, "--rows", 6, "--out", sheet)
    return {sheet: "crops and augmented copies, with their keypoints"}


def _can_train() -> bool:
    """Whether a training backend is installed; prints a line if not."""
    from kpdata.train.run.backend import prepare_backend

    try:
        prepare_backend()
    except KpdataError as error:
        print_line(f"\nNothing is trained: {error}")
        return False
    return True


def _refuse_empty_splits(shards: Path) -> None:
    """Raise KpdataError if train, val or test has no instances."""
    splits = Dataset.open(shards).manifest.splits
    some = [name for name, split in splits.items() if split.instances]
    empty = [name for name in (TRAIN, VAL, _SPLIT) if name not in some]
    if empty:
        raise KpdataError(
            f"{shards} shows nobody in {', '.join(empty)}: too few pictures to train and score on. "
            "Choose another --out and a larger --count, or add --no-train"
        )


def _train_and_score(shards: Path, run: Path) -> dict[Path, str]:
    """Train and evaluate ``run``; returns {picture: its description}."""
    from kpdata.train.evaluate.report import BARS, CURVE, SHEETS
    from kpdata.train.run.folder import RunFolder

    folder = RunFolder(run)
    state = folder.state()
    if state.epochs and state.done == len(folder.config().phases):
        print_line(f"\n{run} is trained already: kept")
    elif state.epochs:
        _run("train", "--out", run, "--resume")
    else:
        _run("train", shards, "--recipe", "demo", "--out", run)
    _run("evaluate", run, shards, "--split", _SPLIT)
    scores = run / f"evaluation-{_SPLIT}"
    return {
        run / "curves.png": "loss, validation score and learning rate over the epochs",
        scores / CURVE: "how many keypoints are found, by how near, beside the mean pose",
        scores / BARS: "which keypoints are found",
        **{scores / f"sheet-{which}.png": f"the {which} test pictures" for which in SHEETS},
    }


def _run(*words: object) -> None:
    arguments = [str(word) for word in words]
    print_line(f"\n$ kpdata {shlex.join(arguments)}")
    cli.main(arguments, standalone_mode=False)
