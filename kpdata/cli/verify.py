"""``kpdata verify``."""

import json
import sys

import click

from kpdata.checks.verify import verify
from kpdata.cli.flags import CommandMeter
from kpdata.cli.main import COMMANDS
from kpdata.cli.options import LOCATION, as_json, quiet
from kpdata.shards.manifest import read_manifest
from kpdata.storage.stores import Location
from kpdata.view.printing import print_error, print_json, print_line

_SHOWN = 50


@click.command("verify", short_help=COMMANDS["verify"])
@click.argument("shards", type=LOCATION, metavar="SHARDS")
@quiet
@as_json
def command(shards: Location, quiet: bool, as_json: bool) -> None:
    """Check every byte of the dataset SHARDS, and that nothing leaks across splits.

    It checks every CRC and hash, every record and its image, all counts and the root hash, and that
    no group, source image or picture lies in two splits. Exits with 1 on any fault, and with 2 if
    nothing could be checked, for example because there is no manifest.

    \b
    Example:
      kpdata verify shards/
    """
    splits = read_manifest(shards).splits.values()
    with CommandMeter(quiet or as_json) as meter:
        meter.begin("verifying", sum(len(split.shards) for split in splits), "shards")
        manifest, faults = verify(shards, meter)
    records = sum(split.records for split in manifest.splits.values())
    if as_json:
        result = {"root_hash": manifest.root_hash, "records": records, "faults": faults}
        print_json(json.dumps(result, indent=1))
    else:
        for fault in faults[:_SHOWN]:
            print_error(f"FAULT {fault}")
        if len(faults) > _SHOWN:
            print_error(f"… and {len(faults) - _SHOWN:,} more")
    if faults:
        if not as_json:
            print_error(f"{shards}: {len(faults):,} faults: do not trust it")
        sys.exit(1)
    if not (quiet or as_json):
        print_line(
            f"{shards}: sound: {records:,} records, no leak across "
            f"{', '.join(manifest.splits)}; root hash {manifest.root_hash}"
        )
