"""``kpdata demo``."""

import shlex
from pathlib import Path

import click

from kpdata.cli.main import COMMANDS, cli


@click.command("demo", short_help=COMMANDS["demo"])
@click.option(
    "--out", default="kpdata-demo", show_default=True, type=click.Path(path_type=Path),
    help="Folder to write.",
)  # fmt: skip
@click.option("--count", default=300, show_default=True, type=click.IntRange(10), help="Images.")
def command(out: Path, count: int) -> None:
    """Show the whole path on rendered data: every step is a command that you can repeat.

    Renders simulated people, converts them to crops and augmented copies, inspects and verifies
    the shards, and draws a contact sheet.

    \b
    Example:
      kpdata demo
    """
    annotations = out / "synth" / "annotations.json"
    if annotations.is_file():
        click.echo(f"{annotations.parent} is there already: kept")
    else:
        _run("synth", "--count", count, "--out", out / "synth")
    _run("convert", "coco", annotations, "--out", out / "shards", "--crop", 128, "--augment", 3)
    _run("inspect", out / "shards")
    _run("verify", out / "shards")
    sheet = out / "contact-sheet.png"
    _run("augment-preview", "coco", annotations, "--crop", 256, "--rows", 6, "--out", sheet)
    click.echo(f"\nLook at {sheet}: crops and augmented copies, with their keypoints.")


def _run(*words: object) -> None:
    arguments = [str(word) for word in words]
    click.echo(f"\n$ kpdata {shlex.join(arguments)}")
    cli.main(arguments, standalone_mode=False)
