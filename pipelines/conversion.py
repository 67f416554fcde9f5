"""A conversion, top to bottom: plan the shards, write them, and seal them with a manifest."""

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kpdata.core.errors import DatasetError, JobError, StoreError, shortage
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import Rejected, Sample
from kpdata.formats.base import Source
from kpdata.pipelines.output.local import Workspace, holds_text, open_workspace
from kpdata.pipelines.output.remote import open_remote_workspace
from kpdata.pipelines.plan.make import Plan, ShardPlan, join_groups, make_plan
from kpdata.pipelines.provenance import Provenance
from kpdata.pipelines.request import Request
from kpdata.pipelines.run import execution
from kpdata.pipelines.run.processes import Processes
from kpdata.pipelines.run.worker_count import samples_that_pay, usable_cores
from kpdata.pipelines.seal import rejected_counts, seal
from kpdata.pipelines.write.shard import ShardReport, whole_report, write_planned
from kpdata.shards.manifest import MANIFEST, QUARANTINE, Manifest, read_manifest
from kpdata.shards.quarantine import check_quarantine
from kpdata.storage.stores import Location, Url, as_location

_POLICY_REASONS = frozenset({"no official split", "leaks into another split"})
"""Reasons that follow from the split asked for; they are listed, but not counted as bad samples."""


@dataclass(frozen=True)
class Outcome:
    """What a conversion did.

    Attributes:
        manifest: of the sealed dataset.
        seconds: wall-clock time in all.
        write_seconds: wall-clock time of the write step alone.
        written_samples: samples of the shards that this run wrote.
        written_bytes: size of those shards.
        kept_samples: images in shards that an earlier run wrote.
        unchanged: whether the dataset was complete already, so that nothing was done.
        warnings: what may make the split unfit for use, such as an empty val.
    """

    manifest: Manifest
    seconds: float
    write_seconds: float = 0.0
    written_samples: int = 0
    written_bytes: int = 0
    kept_samples: int = 0
    unchanged: bool = False
    warnings: tuple[str, ...] = ()


def convert(
    source: Source, request: Request, out: Location | str, progress: Progress = SILENT
) -> Outcome:
    """Convert ``source`` into the shard folder ``out``, here or on a store.

    If it is killed at any moment, the same call finishes the work. The shards are the same, byte
    for byte, for any number of workers and on any runner.

    Raises:
        KpdataError: a source, an option or a folder that cannot be used; a job that stopped.
    """
    with _opened(out) as workspace, Processes(workspace.log_path) as processes:
        source = _starting_workers(source, request, workspace, processes)
        conversion = Conversion.planned(source, request, workspace, progress)
        conversion.write(processes, progress)
        outcome = conversion.seal(lambda again: again.write(processes, progress))
        for warning in outcome.warnings[len(conversion.shard_plan.warnings) :]:
            progress.warn(warning)
        return outcome


def _opened(out: Location | str) -> AbstractContextManager[Workspace]:
    where = as_location(out)
    return (
        open_remote_workspace(where) if isinstance(where, Url) else open_workspace(where.absolute())
    )


def _starting_workers(
    source: Source, request: Request, workspace: Workspace, processes: Processes
) -> Source:
    """Wrap ``source``: reading its samples starts worker processes once there are enough of them.

    The processes import their libraries while the rest is planned.
    """
    workers = request.workers or usable_cores()
    if request.runner or any(workspace.sizes()):  # a resumed run may have little left to write
        return source
    enough = samples_that_pay(request, workers)

    def samples() -> Iterator[Sample | Rejected]:
        for number, sample in enumerate(source.samples, 1):
            if enough <= number < enough + 1:
                with contextlib.suppress(OSError):  # it is raised again when the workers are needed
                    processes.start(min(workers, usable_cores()))
            yield sample

    return replace(source, samples=samples())


@dataclass(frozen=True)
class Conversion:
    """A planned conversion. Use it to write the shards in a Beam pipeline of your own.

    >>> with Conversion.plan(source, request, "shards/") as conversion:    # doctest: +SKIP
    ...     with beam.Pipeline() as pipeline:
    ...         reports = pipeline | WriteShards(conversion)
    ...     outcome = conversion.seal()

    Attributes:
        request: the options.
        workspace: the output folder.
        shard_plan: all shards, including those that an earlier run wrote.
        provenance: what the manifest will record of the source and the options.
        existing: the manifest, where the output holds this very dataset already; else None.
        pending: the shards that are still to be written.
        written: the shards that this run wrote before it planned again.
        started: when the work began, by ``time.monotonic()``.
        planned_at: when planning ended, likewise.
    """

    request: Request
    workspace: Workspace
    shard_plan: Plan
    provenance: Provenance
    existing: Manifest | None
    pending: tuple[ShardPlan, ...]
    started: float
    planned_at: float
    written: tuple[str, ...] = ()

    @classmethod
    @contextmanager
    def plan(
        cls, source: Source, request: Request, out: Location | str, progress: Progress = SILENT
    ) -> Iterator["Conversion"]:
        """Plan the conversion of ``source`` into ``out``, and lock ``out`` until the block ends.

        If the block ends before :meth:`seal`, finished shards stay: the same conversion, planned
        again, does not write them again.

        Raises:
            KpdataError: a source, an option or a folder that cannot be used.
        """
        with _opened(out) as workspace:
            yield cls.planned(source, request, workspace, progress)

    @classmethod
    def planned(
        cls, source: Source, request: Request, workspace: Workspace, progress: Progress
    ) -> "Conversion":
        """Plan the conversion of ``source`` into a workspace that the caller has opened."""
        started = time.monotonic()
        provenance = Provenance.of(source, request)
        plan = make_plan(source, request, workspace.plan_folder, progress)
        if workspace.sealed:
            existing = _same_dataset(workspace, plan, provenance)
            listed = f"{workspace.location / QUARANTINE} lists them"
            _check_quarantine(Counter(existing.quarantine), plan, request, [listed])
            now = time.monotonic()
            return cls(request, workspace, plan, provenance, existing, (), started, now)
        for warning in plan.warnings:
            progress.warn(warning)
        _check_quarantine(plan.rejected, plan, request, plan.rejected_details())
        _refuse_another_conversion(workspace, provenance)
        now = time.monotonic()
        pending = tuple(_pending(workspace, plan))
        workspace.prepare([shard.name for shard in pending])
        return cls(request, workspace, plan, provenance, None, pending, started, now)

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the pending shards."""
        return tuple(shard.name for shard in self.pending)

    def write_function(self, spare_cores: bool = False) -> Callable[[str], ShardReport]:
        """A function that writes a pending shard, given its name. Workers get it pickled.

        Args:
            spare_cores: whether each worker may use a second core.
        """
        return functools.partial(write_planned, self.workspace, spare_cores)

    def write(self, processes: Processes, progress: Progress = SILENT) -> None:
        """Write the pending shards on this machine or, if the request names one, on a Beam runner.

        Raises:
            JobError: a disk, a store, a worker or the runner failed; finished shards are kept.
        """
        if self.existing:
            return
        progress.begin("writing", sum(shard.samples for shard in self.pending))
        if not self.pending:
            return
        where = execution.Execution.of(self.request, self.pending)
        asked = min(self.request.workers or 0, len(self.pending))
        if 0 < where.workers < asked:
            progress.warn(
                f"{where.workers} workers for the {asked} that were asked for: more would not find "
                "memory here"
            )
        try:
            execution.run(
                self, where, processes, on_tick=lambda: _show_written(self.workspace, progress)
            )
        except (JobError, StoreError, RuntimeError, OSError, MemoryError) as error:
            raise JobError(_why(self.workspace, error)) from error

    def _settled(self, write: Callable[["Conversion"], None]) -> "Conversion":
        """The conversion once no picture lies in two splits.

        Two images with different bytes can be stored as the same picture: grey ones with other
        metadata, a GIF and a BMP, two black crops. Only the written shards show it. Their groups
        are joined, and the shards that so change are written again.
        """
        conversion = self
        while twins := conversion._twins():
            plan = join_groups(conversion.shard_plan, twins, self.request)
            pending = tuple(_pending(self.workspace, plan))
            self.workspace.prepare([shard.name for shard in pending])
            written = {*conversion.written, *conversion.shards} - {shard.name for shard in pending}
            conversion = replace(
                conversion, shard_plan=plan, pending=pending, written=tuple(sorted(written))
            )
            write(conversion)
        return conversion

    def _twins(self) -> list[tuple[int, int]]:
        """Pairs of groups, by their hashes, that have a picture in common across two splits."""
        reports = _reports(self.workspace, self.shard_plan)
        shards = [shard for shard in self.shard_plan.shards if shard.name in reports]
        columns = [
            np.frombuffer(reports[shard.name].pictures, "<u8").reshape(-1, 2) for shard in shards
        ]
        if not columns:
            return []
        pictures, groups = np.concatenate(columns).T  # (N,) each
        ranks = {split: rank for rank, split in enumerate(dict.fromkeys(s.split for s in shards))}
        splits = np.repeat([ranks[s.split] for s in shards], [len(column) for column in columns])
        order = np.lexsort((groups, splits, pictures))
        pictures, groups, splits = pictures[order], groups[order], splits[order]
        across = (pictures[1:] == pictures[:-1]) & (splits[1:] != splits[:-1])
        pairs = np.column_stack([groups[:-1], groups[1:]])[across]
        return sorted({(first, second) for first, second in pairs.tolist()})

    def seal(self, write: Callable[["Conversion"], None] | None = None) -> Outcome:
        """Write the manifest, which makes a dataset of the shards. All must be written.

        Where a picture would lie in two splits, shards are written again first.

        Args:
            write: writes the pending shards of the conversion that it gets; None writes them in
                this process.

        Raises:
            JobError: a shard is missing, or more samples are bad than the request allows.
        """
        if self.existing:
            return Outcome(self.existing, time.monotonic() - self.started, unchanged=True)
        return self._settled(write or _write_here)._sealed()

    def _sealed(self) -> Outcome:
        reports = _reports(self.workspace, self.shard_plan)
        rejected = rejected_counts(self.shard_plan, reports.values())
        _check_quarantine(
            rejected, self.shard_plan, self.request, _details(self.shard_plan, reports)
        )
        records = sum(report.shard.records for report in reports.values())
        if len(reports) == len(self.shard_plan.shards) and not records:
            counts = sum((Counter(one.counts) for one in reports.values()), Counter(rejected))
            noted = "".join(f"; {count:,} {what}" for what, count in counts.items())
            raise JobError(f"there is nothing to write into {self.workspace.location}{noted}")
        written_at = time.monotonic()
        manifest = seal(self.workspace, self.shard_plan, reports, self.provenance)
        written = {*self.written, *self.shards} & reports.keys()
        kept = reports.keys() - written
        return Outcome(
            manifest,
            time.monotonic() - self.started,
            written_at - self.planned_at,
            written_samples=sum(s.samples for s in self.shard_plan.shards if s.name in written),
            written_bytes=sum(reports[name].shard.bytes for name in written),
            kept_samples=sum(reports[name].samples for name in kept),
            warnings=self.shard_plan.warnings,
        )


def _refuse_another_conversion(workspace: Workspace, provenance: Provenance) -> None:
    """Raise DatasetError if ``out`` holds another unfinished conversion: its shards would be lost.

    Paths are not compared: the same files in another folder are the same source.
    """
    if workspace.fingerprint() not in (None, provenance.fingerprint):
        raise DatasetError(
            f"{workspace.location} holds the unfinished conversion of other annotations or "
            "options: run that command again to finish it, or remove the folder first"
        )
    workspace.keep_fingerprint(provenance.fingerprint)


def _write_here(conversion: Conversion) -> None:
    for shard in conversion.shards:
        conversion.write_function(spare_cores=True)(shard)


def _pending(workspace: Workspace, plan: Plan) -> list[ShardPlan]:
    """The shards to write, including those that refused samples: these may be corrected by now.

    What an earlier run wrote is kept only if its bytes still have the hash of its report.
    """
    whole = {
        name
        for name, report in _reports(workspace, plan).items()
        if not report.rejected and workspace.blake3_of(name) == report.shard.blake3
    }
    return [shard for shard in plan.shards if shard.name not in whole]


def _reports(workspace: Workspace, plan: Plan) -> dict[str, ShardReport]:
    """The reports of shards that are whole and were written from exactly this plan."""
    sizes = workspace.sizes()
    planned = {shard.name: shard.blake3 for shard in plan.shards}
    reports = {}
    for name, data in workspace.reports(planned):
        if report := whole_report(data, planned[name], sizes.get(name)):
            reports[name] = report
    return reports


def _show_written(workspace: Workspace, progress: Progress) -> None:
    samples, size = workspace.progress_so_far()
    progress.reach(samples, f"{size / 1e6:,.0f} MB")


def _why(workspace: Workspace, error: Exception) -> str:
    """The message for a stopped write: a worker's own note if there is one, else ``error``."""
    if isinstance(workspace.location, Path) and not workspace.location.is_dir():
        return (
            f"writing stopped: {workspace.location} is no longer there. Put it back and run the "
            "same command again, or choose another `out`"
        )
    if lacking := shortage(error):
        return (
            f"writing stopped: {lacking}. Fewer `workers` need less. Finished shards are kept: run "
            "the same command again."
        )
    if notes := workspace.failures():
        return (
            f"writing stopped: {notes[0]}. Finished shards are kept: "
            "put this right and run the same command again."
        )
    logged = not isinstance(workspace.location, Url) and holds_text(workspace.log_path)
    printed = f" {workspace.log_path} has what workers printed." if logged else ""
    if isinstance(error, JobError | StoreError):
        return f"{error}{printed}"
    last_line = (str(error).strip() or repr(error)).splitlines()[-1]
    return f"writing stopped: {last_line}.{printed}"


def _details(plan: Plan, reports: dict[str, ShardReport]) -> Iterator[str]:
    """The details of each refused sample."""
    yield from plan.rejected_details()
    yield from (item.detail for report in reports.values() for item in report.rejected)


def _check_quarantine(
    reasons: Counter[str], plan: Plan, request: Request, details: Iterable[str]
) -> None:
    bad = Counter({why: count for why, count in reasons.items() if why not in _POLICY_REASONS})
    total = plan.samples + plan.rejected.total()
    check_quarantine(bad, total, request.max_quarantine, details)


def _same_dataset(workspace: Workspace, plan: Plan, provenance: Provenance) -> Manifest:
    """The existing dataset's manifest; raises DatasetError if this conversion makes another one."""
    found = read_manifest(workspace.location)
    same = provenance.same(Provenance.recorded(found))
    if not same or found.references != plan.references:
        raise DatasetError(
            f"{workspace.location} already holds another dataset, made of other annotations, "
            "images or options: choose another `out`, or remove that folder first"
        )
    sizes = workspace.sizes()
    for shard in (shard for split in found.splits.values() for shard in split.shards):
        if sizes.get(shard.name) != shard.bytes:
            raise DatasetError(
                f"{workspace.location / shard.name} is missing or damaged, though {MANIFEST} lists "
                "it: remove the folder and convert again"
            )
    return found
