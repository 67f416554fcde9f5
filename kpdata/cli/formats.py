"""``kpdata formats``."""

import click

from kpdata.cli.main import COMMANDS
from kpdata.formats import FORMATS
from kpdata.view.console import screen, table


@click.command("formats", short_help=COMMANDS["formats"])
def command() -> None:
    """List what can be read and written, each with its convention.

    Every reader converts to continuous pixels from the image's corner and to COCO's visibility
    (0 not labelled, 1 occluded, 2 visible); every writer converts back.

    \b
    Example:
      kpdata formats
    """
    rows = [
        (f.name, "yes" if f.writable else "", f.summary, f.convention) for f in FORMATS.values()
    ]
    columns = ("format", "written too", "what it is", "convention")
    screen().print(table("", columns, rows, left=4))
