"""The conversion: plan → write → seal."""

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec

from kpdata.core.errors import DatasetError, JobError, StoreError
from kpdata.core.progress import Progress
from kpdata.core.sample import Rejected, Sample
from kpdata.core.splits import group_finder
from kpdata.formats.base import Source
from kpdata.pipelines.job import Job
from kpdata.pipelines.output.local import Workspace, holds_text, open_workspace
from kpdata.pipelines.output.remote import open_outbox
from kpdata.pipelines.plan.make import JoinNear, Plan, ShardPlan, make_plan
from kpdata.pipelines.plan.near import join_near_duplicates
from kpdata.pipelines.request import Request, asked_for, options_of, source_info
from kpdata.pipelines.run import execution
from kpdata.pipelines.run.processes import Processes
from kpdata.pipelines.run.worker_count import samples_that_pay, worker_count
from kpdata.pipelines.seal import rejected_counts, seal
from kpdata.pipelines.write.shard import ShardReport, whole_report, write_planned
from kpdata.shards.manifest import MANIFEST, QUARANTINE, Manifest, SourceInfo, read_manifest
from kpdata.shards.quarantine import check_bad
from kpdata.storage.stores import Location, Url

_POLICY_REASONS = frozenset({"no official split", "leaks into another split"})
"""Refusals that the user asked for: they are listed, but do not count as bad samples."""


@dataclass(frozen=True)
class Outcome:
    """What a conversion did.

    Attributes:
        manifest: the sealed dataset's.
        seconds: wall-clock time; ``write_seconds`` of the write step alone.
        written_samples: references read in this run, and the bytes of the shards that they gave.
        kept_samples: images in shards that were there from an earlier run.
        unchanged: the dataset was complete before, and nothing was done.
    """

    manifest: Manifest
    seconds: float
    write_seconds: float = 0.0
    written_samples: int = 0
    written_bytes: int = 0
    kept_samples: int = 0
    unchanged: bool = False
    warnings: tuple[str, ...] = field(default=())


def convert(source: Source, request: Request, out: Location, progress: Progress) -> Outcome:
    """Convert ``source`` into the shard folder ``out``, here or on a store.

    Killed at any moment, the same call made again finishes the work; the result is the same to the
    byte for any number of workers and on any runner.

    Raises:
        KpdataError: a source, an option or a folder that cannot be used; a job that stopped.
    """
    started = time.monotonic()
    origin = source_info(source, request)
    options = options_of(request)
    group_of = group_finder(request.group) if request.group else None
    with (
        open_outbox(out) if isinstance(out, Url) else open_workspace(out.absolute()) as workspace,
        Processes(workspace.log_path) as processes,
    ):
        progress.begin("planning", unit="samples")
        if request.runner is None and not any(workspace.sizes()):
            source = replace(source, samples=_starting_workers(source, request, processes))
        plan = make_plan(
            source, request.job, request.splits, request.sharding, workspace.plan_folder,
            group_of, progress.advance, _near_joiner(request, progress),
        )  # fmt: skip
        if workspace.sealed:
            existing = _same_dataset(workspace, plan, origin, options, request.job)
            listed = f"{workspace.place / QUARANTINE} lists them"
            _check_bad(Counter(existing.quarantine), plan, request, [listed])
            return Outcome(existing, time.monotonic() - started, unchanged=True)
        for warning in plan.warnings:
            progress.warn(warning)
        _check_bad(plan.rejected, plan, request, plan.rejected_details())
        _claim_for(workspace, request, origin)
        written = _write_missing(workspace, plan, request, progress, processes)
        manifest = seal(workspace, plan, written.reports, request.job, origin, options)
    return Outcome(
        manifest,
        time.monotonic() - started,
        written.seconds,
        written_samples=sum(shard.samples for shard in written.shards),
        written_bytes=sum(written.reports[shard.name].shard.bytes for shard in written.shards),
        kept_samples=sum(report.samples for report in written.kept),
        warnings=plan.warnings,
    )


def _starting_workers(
    source: Source, request: Request, processes: Processes
) -> Iterator[Sample | Rejected]:
    """The source's samples; workers start, beside the planning, once there are enough of them."""
    enough = samples_that_pay(request, request.workers)
    for number, sample in enumerate(source.samples, 1):
        if enough <= number < enough + 1:
            with contextlib.suppress(OSError):  # found again when they are needed
                processes.start(min(request.workers, execution.usable_cores()))
        yield sample


def _claim_for(workspace: Workspace, request: Request, origin: SourceInfo) -> None:
    """Refuse to go on with the shards of another conversion: they would be thrown away.

    Where annotations and images lie is left out: the same ones elsewhere are the same.
    """
    asked = asked_for(request, origin)
    if workspace.asked() not in (None, asked):
        raise DatasetError(
            f"{workspace.place} holds the unfinished conversion of other annotations or options: "
            "run that command again to finish it, or remove the folder first"
        )
    workspace.note_asked(asked)


class _Written(NamedTuple):
    """All reports, and which shards this run wrote, in how many seconds."""

    reports: dict[str, ShardReport]
    shards: list[ShardPlan]
    seconds: float

    @property
    def kept(self) -> list[ShardReport]:
        """Of shards that an earlier run wrote."""
        names = self.reports.keys() - {shard.name for shard in self.shards}
        return [self.reports[name] for name in names]


def _write_missing(
    workspace: Workspace, plan: Plan, request: Request, progress: Progress, processes: Processes
) -> _Written:
    started = time.monotonic()
    pending = _pending(workspace, plan)
    workspace.ask_for([shard.name for shard in pending])
    _write(pending, workspace, request, progress, processes)
    reports = _reports(workspace, plan)
    rejected = rejected_counts(plan, reports.values())
    _check_bad(rejected, plan, request, _rejected_details(plan, reports))
    return _Written(reports, pending, time.monotonic() - started)


def _near_joiner(request: Request, progress: Progress) -> JoinNear:
    distance = request.group_near_duplicates
    if distance is None:
        return lambda _: 0
    return functools.partial(
        join_near_duplicates, job=request.job, distance=distance, progress=progress
    )


def _pending(workspace: Workspace, plan: Plan) -> list[ShardPlan]:
    """Shards to write: a shard that refused samples too, since they may be mended by now."""
    whole = {name for name, report in _reports(workspace, plan).items() if not report.rejected}
    return [shard for shard in plan.shards if shard.name not in whole]


def _reports(workspace: Workspace, plan: Plan) -> dict[str, ShardReport]:
    """The reports of shards that are whole and were made from this very plan."""
    sizes = workspace.sizes()
    planned = {shard.name: shard.blake3 for shard in plan.shards}
    reports = {}
    for name, data in workspace.reports(planned):
        if report := whole_report(data, planned[name], sizes.get(name)):
            reports[name] = report
    return reports


def _write(
    pending: Sequence[ShardPlan],
    workspace: Workspace,
    request: Request,
    progress: Progress,
    processes: Processes,
) -> None:
    progress.begin("writing", sum(shard.samples for shard in pending))
    if not pending:
        return
    where = execution.Execution(
        worker_count(request, pending), request.runner, request.beam_options
    )
    try:
        execution.run(
            [shard.name for shard in pending],
            functools.partial(write_planned, workspace, where.spare_cores),
            where,
            processes,
            on_tick=lambda: _tell_written(workspace, progress),
        )
    except (JobError, StoreError, RuntimeError, OSError) as error:
        raise JobError(_why(workspace, error)) from error


def _tell_written(workspace: Workspace, progress: Progress) -> None:
    samples, size = workspace.progress_so_far()
    progress.reach(samples, f"{size / 1e6:,.0f} MB")


def _why(workspace: Workspace, error: Exception) -> str:
    told = workspace.failures()
    if told:
        return (
            f"writing stopped: {told[0]}. Finished shards are kept: "
            "put this right and run the same command again."
        )
    if isinstance(error, JobError | StoreError):
        kept = not isinstance(workspace.place, Url) and holds_text(workspace.log_path)
        return f"{error} {workspace.log_path} has what workers printed." if kept else str(error)
    last_line = (str(error).strip() or repr(error)).splitlines()[-1]
    return f"writing stopped: {last_line}. {workspace.log_path} has what workers printed."


def _rejected_details(plan: Plan, reports: dict[str, ShardReport]) -> Iterator[str]:
    yield from plan.rejected_details()
    yield from (item.detail for report in reports.values() for item in report.rejected)


def _check_bad(reasons: Counter[str], plan: Plan, request: Request, details: Iterable[str]) -> None:
    bad = Counter({why: count for why, count in reasons.items() if why not in _POLICY_REASONS})
    check_bad(bad, plan.samples + plan.rejected.total(), request.max_bad, details)


def _same_dataset(
    workspace: Workspace, plan: Plan, origin: SourceInfo, options: dict[str, Any], job: Job
) -> Manifest:
    """The manifest of the dataset that is there, if it is what this conversion would make."""
    found = read_manifest(workspace.place)
    mapping = job.mapping.keypoints if job.mapping else ()
    there = (found.source, found.skeleton, found.mapping, found.references, _text(found.options))
    asked = (origin, job.skeleton, mapping, plan.references, _text(options))
    if there != asked:
        raise DatasetError(
            f"{workspace.place} already holds another dataset, made of other annotations, images "
            "or options: choose another --out, or remove that folder first"
        )
    sizes = workspace.sizes()
    for shard in (shard for split in found.splits.values() for shard in split.shards):
        if sizes.get(shard.name) != shard.bytes:
            raise DatasetError(
                f"{workspace.place / shard.name} is missing or damaged, though {MANIFEST} lists "
                "it: remove the folder and convert again"
            )
    return found


def _text(options: dict[str, Any]) -> bytes:
    return msgspec.json.encode(options)  # unlike a dict's, its equality heeds the order of splits
