"""``kpdata audit``."""

import errno
import os
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from kpdata.checks.audit import MAX_LEAKS, audit
from kpdata.checks.certificate import KINDS, Certificate, Picture, leak_sheet, write_certificate
from kpdata.cli.flags import CommandMeter
from kpdata.cli.main import COMMANDS
from kpdata.cli.options import BITS_APART, as_json, quiet
from kpdata.core.errors import FormatError
from kpdata.core.sample import WHOLE_IMAGE
from kpdata.images.perceptual import BITS, DEFAULT_DISTANCE
from kpdata.storage.atomic import as_write_error
from kpdata.view.console import screen, table
from kpdata.view.draw import write_png
from kpdata.view.printing import print_error, print_json

_SHOWN = 5


@click.command("audit", short_help=COMMANDS["audit"])
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="JSON certificate to write.")
@click.option(
    "--distance", default=DEFAULT_DISTANCE, show_default=True, type=BITS_APART, metavar="BITS",
    help=f"Pictures are near duplicates if their hashes differ in at most BITS of {BITS} bits.",
)  # fmt: skip
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path),
    help="PNG to write, with pairs that leak.",
)
@click.option(
    "--shared-ids", is_flag=True,
    help="Names of images and groups mean the same in all folders, not only in those made of the "
    "same annotations.",
)  # fmt: skip
@quiet
@as_json
def command(
    shards: tuple[Path, ...],
    out: Path | None,
    distance: int,
    contact_sheet: Path | None,
    shared_ids: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Look for leaks across the splits of the datasets SHARDS, taken together.

    A leak lies in two splits of different names, such as one dataset's train and another's test:
    identical pictures; crops of one source image; images of one group; or near duplicates, such as
    resized, re-encoded or brightened copies. Augmented copies are not compared. Exits with 1 on a
    leak of any kind, and with 2 if the audit could not be made.

    \b
    Examples:
      kpdata audit shards/
      kpdata audit shards/ --out audit.json --contact-sheet leaks.png
      kpdata audit mine/ public/ --distance 40
    """
    if contact_sheet and contact_sheet.suffix.lower() != ".png":
        raise FormatError(f"contact_sheet is {contact_sheet}: expected a name that ends in .png")
    _check_targets(out, contact_sheet)
    with CommandMeter(quiet or as_json) as meter:
        certificate = audit(shards, distance, shared_ids, meter)
    _write(certificate, out, contact_sheet)
    if contact_sheet and not (certificate.leaks or quiet):
        print_error(f"no leak to draw: {contact_sheet} was not written")
    if as_json:
        print_json(msgspec.json.format(msgspec.json.encode(certificate), indent=1).decode())
    elif not quiet:
        _show(certificate)
    if certificate.leaks:
        print_error(f"kpdata: {len(certificate.leaks):,} leaks across splits")
        sys.exit(1)


def _check_targets(*targets: Path | None) -> None:
    """Raise DatasetError if a file cannot be written, before hours of work are done for it."""
    for path in filter(None, targets):
        with as_write_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            tempfile.TemporaryFile(dir=path.parent).close()


def _write(certificate: Certificate, out: Path | None, contact_sheet: Path | None) -> None:
    if out:
        with as_write_error(out):
            write_certificate(out, certificate)
    if contact_sheet and certificate.leaks:
        with as_write_error(contact_sheet):
            write_png(contact_sheet, leak_sheet(certificate))


def _show(certificate: Certificate) -> None:
    console = screen()
    counted = [
        (d.folder, split, n) for d in certificate.datasets for split, n in d.pictures.items()
    ]
    console.print(table("audited", ("dataset", "split", "pictures"), counted, left=2))
    console.print(table("\nleaks across splits", ("kind", "count"), [*certificate.counts.items()]))
    several = len(certificate.datasets) > 1
    rows = [
        (leak.kind, _name(leak.first, several), _name(leak.second, several), leak.distance)
        for kind in KINDS
        for leak in [leak for leak in certificate.leaks if leak.kind == kind][:_SHOWN]
    ]
    if rows:
        columns = ("kind", "first", "second", "bits apart")
        console.print(table(f"\nthe first {_SHOWN} of each kind", columns, rows, left=3))
    if not certificate.complete:
        console.print(f"More than {MAX_LEAKS:,} leaks of one kind: the search for it was ended.")
    roots = ", ".join(dataset.root_hash for dataset in certificate.datasets)
    console.print(
        f"\nnear duplicates: {certificate.method['name']}, "
        f"up to {certificate.distance} apart\nroot hash {roots}"
    )


def _name(picture: Picture, several: bool) -> str:
    crop = "" if picture.instance == WHOLE_IMAGE else f" #{picture.instance}"
    dataset = f"{picture.dataset} " if several else ""
    return f"{dataset}{picture.split} {picture.file}{crop}"
