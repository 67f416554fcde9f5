"""``kpdata inspect``."""

from pathlib import Path

import click
import msgspec
from rich.console import Console

from kpdata.cli.console import table
from kpdata.cli.main import COMMANDS
from kpdata.cli.options import as_json
from kpdata.manifest import Manifest, read_manifest


@click.command("inspect", short_help=COMMANDS["inspect"])
@click.argument("shards", type=click.Path(path_type=Path))
@as_json
def command(shards: Path, as_json: bool) -> None:
    """Show what the dataset SHARDS holds: splits, skeleton, visibility, sizes, provenance.

    \b
    Examples:
      kpdata inspect shards/
      kpdata inspect shards/ --json
    """
    manifest = read_manifest(shards)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode())
    else:
        show(manifest, shards)


def show(manifest: Manifest, shards: Path) -> None:
    """Print the manifest for a person."""
    console = Console(highlight=False, soft_wrap=True)
    splits = [
        (name, s.samples, s.records, s.copies, s.instances, len(s.shards),
         f"{sum(shard.bytes for shard in s.shards) / 1e6:.1f}")
        for name, s in manifest.splits.items()
    ]  # fmt: skip
    columns = ("split", "images", "records", "copies", "instances", "shards", "MB")
    console.print(table(f"{shards}", columns, splits))
    console.print(table(_skeleton_title(manifest), *_keypoints(manifest)))
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
    columns = ["keypoint", "not labelled", "occluded", "visible", "occluded %"]
    rows: list[list[object]] = []
    for k, name in enumerate(manifest.skeleton.keypoints):
        per_split = [split.visibility[k] for split in manifest.splits.values()]
        absent, occluded, visible = (sum(counts) for counts in zip(*per_split, strict=True))
        rows.append([name, absent, occluded, visible, _percent(occluded, occluded + visible)])
    totals = [sum(row[i] for row in rows) for i in (1, 2, 3)]  # type: ignore[misc]
    rows.append(["all", *totals, _percent(totals[1], totals[1] + totals[2])])
    if manifest.mapping:
        columns.append("mapped from")
        for row, keypoint in zip(rows, manifest.mapping, strict=False):
            sources = " + ".join(keypoint.sources)
            row.append(f"{keypoint.how} {sources} {keypoint.reason}".strip())
        rows[-1].append("")
    return columns, rows


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"


def _provenance(manifest: Manifest) -> list[tuple[str, str]]:
    source, sizes = manifest.source, manifest.sizes
    rows = [("format", source.format), ("convention", source.convention)]
    rows += [("annotations", f"{name} sha256 {digest}") for name, digest in source.files.items()]
    rows += list(source.options.items())
    if sizes:
        rows.append(
            ("picture sizes", f"{sizes['min_width']}–{sizes['max_width']} × "
                              f"{sizes['min_height']}–{sizes['max_height']} px")
        )  # fmt: skip
    rows += [(key, _plain(value)) for key, value in manifest.options.items()]
    rows.append(("made with", ", ".join(f"{k} {v}" for k, v in manifest.software.items())))
    rows.append(("root hash", manifest.root_hash))
    return rows


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return "-" if value is None else str(value)
