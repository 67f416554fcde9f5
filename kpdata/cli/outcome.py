"""The result of a conversion, as tables or as JSON."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from kpdata.dataset import SPLIT_COLUMNS, VISIBILITY_SHARES, split_rows, visibility_shares
from kpdata.shards.manifest import QUARANTINE
from kpdata.storage.stores import Location
from kpdata.view.console import screen, table

if TYPE_CHECKING:
    from kpdata.pipelines.conversion import Outcome


def show_outcome(outcome: "Outcome", out: Location) -> None:
    """Print the tables at the end of a conversion."""
    console = screen()
    manifest = outcome.manifest
    if outcome.unchanged:
        console.print(
            f"{out} already holds the dataset of these annotations and options: nothing to do. "
            "Images were compared by name and size in bytes, not by content."
        )
        if manifest.quarantine:
            console.print(
                "Samples in quarantine were not tried again: to convert those that you have "
                "mended, remove the folder first, or choose another."
            )
    console.print(table(f"{out}", SPLIT_COLUMNS, split_rows(manifest)))
    skeleton = manifest.skeleton
    title = f"\nkeypoints of skeleton {skeleton.name} ({len(skeleton)}), by visibility"
    shares = [(name, *visibility_shares(split)) for name, split in manifest.splits.items()]
    console.print(table(title, ("split", *VISIBILITY_SHARES), shares))
    notes = Counter(manifest.counts) + Counter(
        {f"quarantined: {reason}": count for reason, count in manifest.quarantine.items()}
    )
    if notes:
        console.print(table("\nnoted", ("what", "count"), sorted(notes.items())))
    if manifest.quarantine:
        console.print(f"{out / QUARANTINE} says which were quarantined, and why")
    console.print(f"\nroot hash {manifest.root_hash}")
    if not outcome.unchanged:
        console.print(_speed(outcome))


def _speed(outcome: "Outcome") -> str:
    said = f"{outcome.seconds:.1f} s in all"
    if outcome.written_samples:
        seconds = max(outcome.write_seconds, 1e-9)
        said += (
            f"; writing at {outcome.written_samples / seconds:,.0f} images/s, "
            f"{outcome.written_bytes / 1e6 / seconds:,.0f} MB/s"
        )
    kept = f" ({outcome.kept_samples:,} images were there already)" if outcome.kept_samples else ""
    return said + kept


def as_dict(outcome: "Outcome") -> dict[str, Any]:
    """The result as JSON values; the rate is None if nothing was written."""
    manifest = msgspec.to_builtins(outcome.manifest)
    for split in manifest["splits"].values():
        split["shards"] = len(split["shards"])
    keys = ("root_hash", "splits", "counts", "quarantine")
    written = outcome.written_samples
    return {
        **{key: manifest[key] for key in keys},
        "seconds": round(outcome.seconds, 3),
        "images_per_second": round(written / outcome.write_seconds, 1) if written else None,
        "written_samples": written,
        "kept_samples": outcome.kept_samples,
        "unchanged": outcome.unchanged,
        "warnings": list(outcome.warnings),
    }
