"""``kpdata inspect``."""

import click
import msgspec

import kpdata
from kpdata.cli.main import COMMANDS
from kpdata.cli.options import LOCATION, as_json
from kpdata.core.mapping import MappedKeypoint
from kpdata.dataset import SPLIT_COLUMNS, split_rows
from kpdata.shards.manifest import Manifest
from kpdata.storage.stores import Location
from kpdata.view.console import screen, table
from kpdata.view.printing import print_json

_DEEPEST = 10
_MOST_FILES = 3
_SIZES = ("min_width", "max_width", "min_height", "max_height")


@click.command("inspect", short_help=COMMANDS["inspect"])
@click.argument("shards", type=LOCATION, metavar="SHARDS")
@as_json
def command(shards: Location, as_json: bool) -> None:
    """Show what the dataset SHARDS holds: splits, skeleton, visibility, sizes, provenance.

    \b
    Examples:
      kpdata inspect shards/
      kpdata inspect shards/ --json
    """
    manifest = kpdata.open(shards).manifest
    if as_json:
        print_json(msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode())
    else:
        show(manifest, shards)


def show(manifest: Manifest, shards: Location) -> None:
    """Print the manifest for a person."""
    console = screen()
    console.print(table(f"{shards}", SPLIT_COLUMNS, split_rows(manifest)))
    columns, rows = _keypoints(manifest)
    console.print(table(_skeleton_title(manifest), columns, rows, left=len(columns) - 4))
    for reason, names in _reasons(manifest).items():
        console.print(f"{', '.join(names)}: {reason}")
    if manifest.counts or manifest.quarantine:
        notes = [*manifest.counts.items()]
        notes += [(f"quarantined: {why}", count) for why, count in manifest.quarantine.items()]
        console.print(table("\nnoted", ("what", "count"), notes))
    console.print(table("\nprovenance", ("", ""), _provenance(manifest), left=2))


def _skeleton_title(manifest: Manifest) -> str:
    skeleton = manifest.skeleton
    known = [f"{len(skeleton)} keypoints", f"{len(skeleton.flip_pairs or ())} flip pairs"]
    known.append("OKS sigmas" if skeleton.sigmas else "no OKS sigmas")
    return f"\nskeleton {skeleton.name}: {', '.join(known)}; originals' keypoints"


def _keypoints(manifest: Manifest) -> tuple[list[str], list[list[object]]]:
    """Columns and rows; if the skeleton was mapped, the second column says from what."""
    names = manifest.skeleton.keypoints
    counts = [
        [sum(split.visibility[k][v] for split in manifest.splits.values()) for v in range(3)]
        for k in range(len(names))
    ]
    columns = ["keypoint", "not labelled", "occluded", "visible", "occluded %"]
    counts.append([sum(column) for column in zip(*counts, strict=True)])
    rows: list[list[object]] = [
        [name, *row, _percent(row[1], row[1] + row[2])]
        for name, row in zip([*names, "all"], counts, strict=True)
    ]
    if manifest.mapping:
        columns.insert(1, "mapped from")
        origins = {keypoint.name: _origin(keypoint) for keypoint in manifest.mapping}
        for name, row in zip([*names, ""], rows, strict=True):
            row.insert(1, origins.get(name, ""))
    return columns, rows


def _origin(keypoint: MappedKeypoint) -> str:
    if keypoint.how != "derived":
        return keypoint.how
    mean = "mean of " if len(keypoint.sources) > 1 else ""
    return mean + ", ".join(keypoint.sources)


def _reasons(manifest: Manifest) -> dict[str, list[str]]:
    """Reason → names of the keypoints that were derived for it."""
    reasons: dict[str, list[str]] = {}
    for keypoint in manifest.mapping:
        if keypoint.reason:
            reasons.setdefault(keypoint.reason, []).append(keypoint.name)
    return reasons


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"


def _provenance(manifest: Manifest) -> list[tuple[str, str]]:
    source, sizes = manifest.source, manifest.sizes
    rows = [("format", source.format), ("convention", source.convention)]
    listed = [("annotations", f"{name} sha256 {digest}") for name, digest in source.files.items()]
    rows += listed[:_MOST_FILES]
    if len(listed) > _MOST_FILES:
        more = len(listed) - _MOST_FILES
        rows.append(("annotations", f"and {more:,} more: --json lists them"))
    rows += list(source.options.items())
    if all(name in sizes for name in _SIZES):
        low, high, lowest, highest = (sizes[name] for name in _SIZES)
        rows.append(("picture sizes", f"{low}–{high} × {lowest}–{highest} px"))
    for key, value in manifest.options.items():
        rows.append((key, _splits(value) if key == "splits" else _plain(value)))
    rows.append(("made with", ", ".join(f"{k} {v}" for k, v in manifest.software.items())))
    rows.append(("root hash", manifest.root_hash))
    return rows


def _splits(splits: object) -> str:
    """The --split option; without shares, the source's own splits were kept."""
    if not isinstance(splits, dict) or splits.get("shares"):
        return _plain(splits)
    val = splits.get("val_share")
    return f"official, val_share {val}, seed {splits.get('seed')}" if val else "official"


def _plain(value: object, level: int = 0) -> str:
    if isinstance(value, dict) and level < _DEEPEST:
        return ", ".join(f"{key} {_plain(item, level + 1)}" for key, item in value.items())
    return "-" if value is None else str(value)
