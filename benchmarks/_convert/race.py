"""A race: contenders handle the same files in turn, round after round, in two sizes."""

import ctypes
import mmap
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import click

from .dataset import Dataset

COMMAND, JOB, WORK = CLOCKS = ("command", "job", "work")


@dataclass(frozen=True)
class Lap:
    """How long one contender took once, in seconds.

    Attributes:
        items: images, or pictures made of them.
        command: the whole process, from its start to its end.
        job: without its start-up: the annotations are read, the items written and synced.
        work: the items alone.
        unsynced: ``work`` without the last fsync, where that is known.
        cpu: of all processes together.
    """

    items: int
    command: float
    job: float
    work: float
    unsynced: float | None = None
    cpu: float = 0.0


Contender = Callable[[Dataset, Path], Lap]


class Sizes(NamedTuple):
    """A dataset, and a part of it."""

    part: Dataset
    whole: Dataset


@dataclass(frozen=True)
class Laps:
    """One contender's laps in every round, on a part of the dataset and on the whole of it."""

    part: list[Lap] = field(default_factory=list)
    whole: list[Lap] = field(default_factory=list)

    @property
    def items(self) -> int:
        """Items of the whole dataset."""
        return self.whole[0].items

    def seconds(self, key: str) -> float:
        """The median of the whole dataset's laps by one of their attributes."""
        return median_of(self.whole, key)

    def rate(self, clock: str) -> float | None:
        """Items per second of the whole dataset; None where the clock was not read."""
        unread = any(getattr(lap, clock) is None for lap in self.whole)
        return None if unread else self.items / self.seconds(clock)

    def marginal_rate(self, clock: str) -> float | None:
        """Further items per further second, from the part to the whole.

        None where the whole took no longer than the part: it is too small to tell.
        """
        seconds = self.seconds(clock) - median_of(self.part, clock)
        return (self.items - self.part[0].items) / seconds if seconds > 0 else None


def median_of(laps: list[Lap], key: str) -> float:
    """The median of an attribute."""
    values: list[float] = [getattr(lap, key) for lap in laps]
    return statistics.median(values)


def race(
    contenders: dict[str, Contender], sizes: Sizes, rounds: int, work: Path, cold: bool = False
) -> dict[str, Laps]:
    """Let every contender run in both sizes once a round, each round beginning with another one.

    The images are in the page cache before every lap, or, if ``cold``, none of them.
    """
    laps = {name: Laps() for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            laps[name].part.append(run_once(contenders[name], sizes.part, work, cold))
            laps[name].whole.append(run_once(contenders[name], sizes.whole, work, cold))
            seconds = laps[name].part[-1].command, laps[name].whole[-1].command
            click.echo(f"round {number + 1}: {name}: %.2f s, %.2f s" % seconds, err=True)
    check_items(laps)
    return laps


def run_once(contender: Contender, dataset: Dataset, work: Path, cold: bool) -> Lap:
    """One contender's lap, into a folder that is deleted afterwards."""
    (cool_down if cold else warm_up)(dataset)
    before = cpu_of_children()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        lap = contender(dataset, Path(folder))
    return replace(lap, cpu=cpu_of_children() - before)


def warm_up(dataset: Dataset) -> None:
    """Let the disk come to rest, and read every file into the page cache."""
    os.sync()
    for path in dataset.files():
        path.read_bytes()


def cool_down(dataset: Dataset) -> None:
    """Let the disk come to rest, and drop every file from the page cache.

    Raises:
        ClickException: the system kept more than a hundredth of the bytes.
    """
    os.sync()  # only clean pages can be dropped
    files = dataset.files()
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    kept, size = sum(map(cached_bytes, files)), sum(path.stat().st_size for path in files)
    if kept > size / 100:
        raise click.ClickException(f"{kept:,} of {size:,} bytes stay in the page cache")


def cached_bytes(path: Path) -> int:
    """How much of a file is in the page cache, in whole pages, by mincore(2)."""
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped,
    ):
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.byref(first), ctypes.c_size_t(len(mapped)), pages
        )
        del first  # it holds the mapping
    if failed:
        raise OSError(ctypes.get_errno(), "mincore", str(path))
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def cpu_of_children() -> float:
    """Seconds of CPU time in all processes that this one has started and seen end."""
    times = os.times()
    return times.children_user + times.children_system


def check_items(laps: dict[str, Laps]) -> None:
    """Refuse to compare contenders that did not do the same amount of work."""
    items = {
        name: {(part.items, whole.items) for part, whole in zip(all_.part, all_.whole, strict=True)}
        for name, all_ in laps.items()
    }
    if len(set.union(*items.values())) > 1:
        raise click.ClickException(f"unequal numbers of items: {items}")
