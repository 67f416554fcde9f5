"""What the report says of a race."""

from dataclasses import asdict

from _shared.report import Ratio, Section, per_second

from .race import CLOCKS, COMMAND, JOB, WORK, Laps

EXPLANATION = """\
Three clocks: **command** is the whole process from its start to its end; **job** leaves out its
start-up (imports); **work** is the images alone: for kpdata the write phase with the start and the
end of its workers, for a loop the loop. All stop when the output is synced; **unsynced** is
**work** without that.

A **whole** ratio is one of rates on all images, within one round; given are the median of the
rounds and their range. A **marginal** rate is that of further images: every contender also handles
a quarter of the images, and the further images are divided by the further seconds, by the same
clock, between the medians of the rounds. What a run costs once, whatever its size, is not in it.

With a **warm page cache** every image is in memory before each lap. With a **cold** one none is,
which mincore(2) confirms: every contender reads from the disk that it also writes to, as with a
dataset larger than memory. (A virtual machine's host may still hold the files.)"""


def ratios_of(laps: dict[str, Laps], ours: str, theirs: str, target: float) -> list[Ratio]:
    """How one contender's rates compare with another's, by every clock."""
    return [
        ratio_of(laps, (ours, clock), (theirs, clock), target, f"{ours} / {theirs}, {clock}")
        for clock in (WORK, JOB, COMMAND)
    ]


def ratio_of(
    laps: dict[str, Laps], ours: tuple[str, str], theirs: tuple[str, str], target: float, what: str
) -> Ratio:
    """How one contender's rate compares with another's; each is named with its clock."""
    seconds = [[getattr(lap, clock) for lap in laps[name].whole] for name, clock in (ours, theirs)]
    values = [their / our for our, their in zip(*seconds, strict=True)]
    our_rate, their_rate = (laps[name].marginal_rate(clock) for name, clock in (ours, theirs))
    marginal = our_rate / their_rate if our_rate and their_rate else None
    return Ratio(what, values, target, marginal=marginal)


def race_section(title: str, note: str, laps: dict[str, Laps], ratios: list[Ratio]) -> Section:
    """A race's results: median rates by every clock."""
    clocks = (*CLOCKS, "unsynced")
    columns = (
        "", "command, s", "CPU, s", "command, /s", "job, /s", "work, /s", "unsynced, /s",
        "marginal work, /s",
    )  # fmt: skip
    rows = [
        (
            name,
            *(f"{found.seconds(key):.2f}" for key in (COMMAND, "cpu")),
            *(per_second(found.rate(clock)) for clock in clocks),
            per_second(found.marginal_rate(WORK)),
        )
        for name, found in laps.items()
    ]
    return Section(title, note, columns, rows, ratios, {n: asdict(x) for n, x in laps.items()})
