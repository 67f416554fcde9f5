"""Seal a conversion: add up the shards' reports, and write the manifest, last of all files."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from kpdata.core.errors import JobError
from kpdata.pipelines.output.local import Workspace
from kpdata.pipelines.plan.make import REJECTED, Plan
from kpdata.pipelines.provenance import Provenance
from kpdata.pipelines.write.shard import ShardReport
from kpdata.shards import tfds
from kpdata.shards.manifest import (
    MANIFEST,
    QUARANTINE,
    Manifest,
    ShardInfo,
    SplitInfo,
    software,
    write_manifest,
)
from kpdata.shards.quarantine import as_line, digest
from kpdata.shards.records import SCHEMA_VERSION
from kpdata.storage.atomic import write_atomically


def seal(
    workspace: Workspace,
    plan: Plan,
    reports: dict[str, ShardReport],
    provenance: Provenance,
) -> Manifest:
    """Make a dataset of a folder whose shards are all written.

    Args:
        workspace: the output folder.
        plan: all shards that should be there.
        reports: shard → report.
        provenance: what the manifest records of the source and the options.

    Raises:
        JobError: a shard has no report, or its report is of another plan or size.
    """
    _refuse_missing(workspace, plan, reports)
    workspace.remove(name for name in workspace.sizes() if name not in reports)
    quarantine_sha256 = _write_quarantine(workspace, plan, reports.values())
    counts = sum((Counter(report.counts) for report in reports.values()), plan.counts)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        skeleton=provenance.skeleton,
        mapping=provenance.mapping,
        source=provenance.source,
        options=provenance.options,
        splits=_splits(plan, reports),
        counts=dict(sorted(counts.items())),
        quarantine=dict(sorted(rejected_counts(plan, reports.values()).items())),
        quarantine_sha256=quarantine_sha256,
        references=plan.references,
        sizes=_sizes(reports.values()),
        software=software(),
    )
    described = tfds.metadata(manifest)
    for name, content in described.items():
        write_atomically(workspace.out / name, content)
    sealed = write_manifest(workspace.out, manifest)
    workspace.publish([QUARANTINE, *described, MANIFEST])
    return sealed


def _refuse_missing(workspace: Workspace, plan: Plan, reports: dict[str, ShardReport]) -> None:
    missing = [shard.name for shard in plan.shards if shard.name not in reports]
    if not missing:
        return
    unusable = [name for name, _ in workspace.reports(missing)]
    if unusable:
        raise JobError(
            f"the report of {unusable[0]} does not fit its plan and its shard: make sure that all "
            "workers run this kpdata and see the same folder, then run the same command again"
        )
    raise JobError(
        f"{len(missing)} of {len(plan.shards)} shards were not written ({missing[0]}, …): "
        "run the same command again to finish them"
    )


def rejected_counts(plan: Plan, reports: Iterable[ShardReport]) -> Counter[str]:
    """Reason → samples that were refused for it, while planning or while writing."""
    found = Counter(item.reason for report in reports for item in report.rejected)
    return plan.rejected + found


def _write_quarantine(workspace: Workspace, plan: Plan, reports: Iterable[ShardReport]) -> str:
    lines = (plan.folder / REJECTED).read_bytes()
    found = sorted(item for report in reports for item in report.rejected)
    lines += b"".join(map(as_line, found))
    write_atomically(workspace.out / QUARANTINE, lines)
    return digest(lines.splitlines())


def _splits(plan: Plan, reports: dict[str, ShardReport]) -> dict[str, SplitInfo]:
    names = dict.fromkeys(shard.split for shard in plan.shards)
    return {
        name: _split_info([reports[shard.name] for shard in plan.shards if shard.split == name])
        for name in names
    }


def _split_info(reports: list[ShardReport]) -> SplitInfo:
    visibility = np.sum([report.visibility for report in reports], axis=0)
    shards: tuple[ShardInfo, ...] = tuple(report.shard for report in reports)
    return SplitInfo(
        samples=sum(report.samples for report in reports),
        records=sum(shard.records for shard in shards),
        copies=sum(report.copies for report in reports),
        instances=sum(report.instances for report in reports),
        visibility=tuple(tuple(row) for row in visibility.tolist()),
        shards=shards,
    )


def _sizes(reports: Iterable[ShardReport]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for report in reports:
        for name, value in report.sizes.items():
            pick = min if name.startswith("min") else max
            sizes[name] = pick(sizes.get(name, value), value)
    return sizes
