"""One process that tries inputs on one target, and leaves word of each before it begins.

The parent reads that word when the process dies or does not get on: see run.py.
"""

import hashlib
import json
import logging
import mmap
import os
import resource
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from mutate import LARGEST
from targets import TARGETS, Check, Target

from kpdata.core.errors import KpdataError

_HEAD = struct.Struct("<QdQQQdQQ")
_ROOM = 8 * LARGEST
MEMORY_EXIT = 86
"""A process's peak memory cannot be forgotten: it ends once it is too high."""


@dataclass(frozen=True)
class Task:
    """What a child is to do.

    Attributes:
        target: a name in TARGETS, or of a module and its attribute, as ``module:name``.
        seed, first, stop: inputs number ``first`` to ``stop`` of this seed.
        seconds, mebibytes: what one input may take: of processor time, and all the process.
        folder: where the status and the findings go.
        scratch: where the target's files lie.
        guided: whether atheris guides it by coverage.
    """

    target: str
    seed: int
    first: int
    stop: int
    seconds: float
    mebibytes: int
    folder: str
    scratch: str
    guided: bool = False


@dataclass
class Status:
    """How far a child is; ``number`` is under way since ``started`` (monotonic seconds)."""

    number: int = 0
    started: float = 0.0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    worst_seconds: float = 0.0
    peak_kib: int = 0
    size: int = 0


class Board:
    """A file that holds a Status and the input under way; parent and child both map it."""

    def __init__(self, path: Path):
        if not path.exists():
            path.write_bytes(_HEAD.pack(*asdict(Status()).values()) + bytes(_ROOM))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _HEAD.size + _ROOM)

    def read(self) -> Status:
        return Status(*_HEAD.unpack_from(self._map))

    def write(self, status: Status) -> None:
        _HEAD.pack_into(self._map, 0, *status.__dict__.values())

    def put_input(self, data: bytes) -> None:
        self._map[_HEAD.size : _HEAD.size + len(data)] = data

    def input(self) -> bytes:
        return self._map[_HEAD.size : _HEAD.size + self.read().size]


def find_target(name: str) -> Target:
    """By its name in TARGETS, or ``module:attribute``."""
    module, _, attribute = name.rpartition(":")
    return getattr(__import__(module), attribute) if module else TARGETS[name]


def make_input(target: Target, name: str, seed: int, number: int) -> bytes:
    """The input of this number: always the same. The first ones are the seeds themselves."""
    starts = target.seeds()
    if number < len(starts):
        return starts[number]
    rng = Random(f"{name}/{seed}/{number}")
    return target.mutate(rng, rng.choice(starts), starts)[:_ROOM]


def peak_kib() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Trial:
    """Tries inputs, counts outcomes, and saves what breaks the contract, once of each kind."""

    def __init__(self, task: Task, check: Check, board: Board):
        self._task, self._check, self._board = task, check, board
        self._status = board.read()
        self._seen: Counter[str] = Counter()
        self._parent = os.getppid()

    def __call__(self, number: int, data: bytes) -> None:
        status = self._status
        status.number, status.size, status.started = number, len(data), time.monotonic()
        self._board.put_input(data)
        self._board.write(status)
        before = time.process_time()
        try:
            self._check(data)
            status.accepted += 1
        except KpdataError:
            status.refused += 1
        except Exception as error:
            status.failed += 1
            self._save("exception", _signature(error), data, traceback.format_exc())
        seconds = time.process_time() - before
        status.worst_seconds = max(status.worst_seconds, seconds)
        status.peak_kib = max(status.peak_kib, peak_kib())
        too_much = peak_kib() > self._task.mebibytes << 10
        if too_much:
            self._save("memory", f"{number}", data, f"{status.peak_kib >> 10} MiB")
            status.failed += 1
        elif seconds > self._task.seconds:
            self._save("slow", f"{number}", data, f"{seconds:.1f} s")
            status.failed += 1
        status.number += 1
        self._board.write(status)
        if too_much:
            os._exit(MEMORY_EXIT)
        if os.getppid() != self._parent:  # nobody looks after this process any more
            os._exit(1)

    def _save(self, kind: str, signature: str, data: bytes, text: str) -> None:
        self._seen[signature] += 1
        if self._seen[signature] == 1:
            save_finding(Path(self._task.folder), self._task.target, kind, signature, data, text)


def _signature(error: Exception) -> str:
    """Tells findings apart: the kind of error, and where in kpdata it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "kpdata" in frame.filename or "/train/" in frame.filename]
    last = ours[-1] if ours else frames[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} {last.name}"


def save_finding(
    folder: Path, target: str, kind: str, signature: str, data: bytes, text: str
) -> None:
    """Keep an input and what it did."""
    name = hashlib.sha256(f"{kind} {signature}".encode()).hexdigest()[:12]
    place = folder / "findings" / target.replace(":", "-")
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{kind}-{name}.bin").write_bytes(data)
    (place / f"{kind}-{name}.txt").write_text(f"{kind}: {signature}\n{text}\n")


def main(request: str) -> None:
    """Do a Task given as JSON."""
    task = Task(**json.loads(request))
    warnings.simplefilter("ignore")
    logging.disable()
    target = find_target(task.target)
    scratch = Path(task.scratch)
    trial = Trial(task, target.prepare(scratch), Board(Path(task.folder) / "board"))
    loop: Callable[[Task, Target, Trial], None] = _guided if task.guided else _plain
    loop(task, target, trial)


def _plain(task: Task, target: Target, trial: Trial) -> None:
    for number in range(task.first, task.stop):
        trial(number, make_input(target, task.target, task.seed, number))


def _guided(task: Task, target: Target, trial: Trial) -> None:
    """As libFuzzer leads, by what each input reaches in kpdata's own code."""
    import atheris  # run.py has had it instrument kpdata

    corpus = Path(task.scratch).with_name("corpus")
    corpus.mkdir(exist_ok=True)
    starts = target.seeds()
    for place, data in enumerate(starts):
        (corpus / f"seed{place}").write_bytes(data)
    numbers = iter(range(task.first, task.stop + len(starts) + 8))

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        try:
            return target.mutate(rng, data, starts)[:most]
        except Exception:  # no longer of its format
            return target.mutate(rng, rng.choice(starts), starts)[:most]

    def one(data: bytes) -> None:
        number = next(numbers, None)
        if number is not None:
            trial(number, data)

    options = (
        f"-runs={task.stop - task.first}", f"-seed={task.seed + 1}", f"-max_len={1 << 16}",
        "-timeout=3600", "-rss_limit_mb=0", "-malloc_limit_mb=0", "-verbosity=0", "-len_control=0",
    )  # fmt: skip
    atheris.Setup([sys.argv[0], str(corpus), *options], one, custom_mutator=mutated)
    atheris.Fuzz()
