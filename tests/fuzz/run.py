"""Fuzz everything that reads untrusted files.

    python tests/fuzz/run.py --inputs 20000 --seed 0
    python tests/fuzz/run.py --target record --inputs 100000 --guided
    python tests/fuzz/run.py --replay

The contract: an input is accepted, or refused with a KpdataError, within 5 s of processor time and
with the process below 1 GiB. Each target runs in a process of its own, so that a crash, a hang or a
memory hog is found, blamed on its input, and saved. Ends with 1 if anything was found.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_POLL = 0.05
_PATIENCE = 4
"""A hang takes so many times the limit by the clock: other processes may have the processor."""


@dataclass
class Row:
    """What became of one target.

    Attributes:
        inputs: tried; of them ``accepted``, ``refused``, and ``findings`` that broke the contract.
        kinds: how many distinct findings were saved.
        seconds: wall-clock time; ``worst_seconds`` of a single input.
        peak_mib: of the process's resident memory.
    """

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    findings: int = 0
    kinds: int = 0
    seconds: float = 0.0
    worst_seconds: float = 0.0
    peak_mib: float = 0.0
    guided: bool = False
    crashes: int = field(default=0, repr=False)


def fuzz(name: str, count: int, options: argparse.Namespace, guided: bool = False) -> Row:
    """Try ``count`` inputs on a target, restarting it after each that it does not survive."""
    from child import Board, Task

    row = Row(name, guided=guided)
    started = time.monotonic()
    with _folders() as (folder, scratch):
        board = Board(folder / "board")
        first = 0
        while first < count:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            limits = options.seconds, options.mebibytes
            task = Task(
                name, options.seed, first, count, *limits, str(folder), str(scratch), guided
            )
            before = board.read()
            before.number, before.started = first, 0.0
            board.write(before)
            died = _one_life(task, board)
            status = board.read()
            if died and status.number == first and not status.started:
                raise SystemExit(f"{name}: could not start: {died}")
            first = count if not died else status.number + (died != "memory")
            row.crashes += bool(died) and died != "memory"
            if died and died != "memory":
                _blame(folder, name, died, board)
        status = board.read()
        row.accepted, row.refused = status.accepted, status.refused
        row.findings = status.failed + row.crashes
        row.inputs = count
        row.worst_seconds = max(status.worst_seconds, options.seconds if row.crashes else 0)
        row.peak_mib = status.peak_kib / 1024
        row.kinds = _keep(folder, options.found)
    row.seconds = time.monotonic() - started
    return row


def _one_life(task: Any, board: Any) -> str:
    """Run a child to its end; says how it died, or nothing."""
    arguments = [sys.executable, str(HERE / "run.py"), "--child", json.dumps(asdict(task))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENCV_LOG_LEVEL": "SILENT"}
    log = Path(task.folder) / "log"
    with open(log, "wb") as out:
        child = subprocess.Popen(arguments, stdout=out, stderr=out, env=environment)
    try:
        while child.poll() is None:
            time.sleep(_POLL)
            status = board.read()
            busy = time.monotonic() - status.started if status.started else 0.0
            if busy > _PATIENCE * task.seconds and status.number == board.read().number:
                return "hang"
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if log.stat().st_size > 1 << 20:
            os.truncate(log, 1 << 20)
    from child import MEMORY_EXIT

    if child.returncode == MEMORY_EXIT:
        return "memory"
    if child.returncode < 0:
        return f"crash by {signal.Signals(-child.returncode).name}"
    return "" if child.returncode == 0 else f"crash with exit code {child.returncode}"


def _blame(folder: Path, name: str, died: str, board: Any) -> None:
    from child import save_finding

    log = (folder / "log").read_text(errors="replace")[-3000:]
    number = board.read().number
    save_finding(folder, name, died.split()[0], f"{died}, input {number}", board.input(), log)


@contextmanager
def _folders() -> Iterator[tuple[Path, Path]]:
    """Where a target's status and findings go, and where its files lie: in memory if possible."""
    memory = Path("/dev/shm")
    root = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kpdata-fuzz-", dir=root) as folder:
        yield Path(folder), Path(folder) / "scratch"


def _keep(folder: Path, found: Path) -> int:
    findings = folder / "findings"
    if findings.is_dir():
        shutil.copytree(findings, found, dirs_exist_ok=True)
    return len(list(findings.rglob("*.bin")))


def replay(options: argparse.Namespace) -> list[Row]:
    """Try every input of the corpus: what was once found, and must not come back."""
    from corpus_targets import CORPUS

    names = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
    return [
        fuzz(
            f"corpus_targets:{name.replace('-', '_')}",
            len(list((CORPUS / name).glob("*.bin"))),
            options,
        )
        for name in names
        if not options.target or name in options.target
    ]


def campaign(options: argparse.Namespace) -> list[Row]:
    """Fuzz the targets asked for, each with its share of the inputs."""
    from child import find_target
    from targets import TARGETS

    names = options.target or list(TARGETS)
    total = sum(find_target(name).share for name in names)
    rows = []
    for name in names:
        count = max(1, round(options.inputs * find_target(name).share / total))
        rows.append(fuzz(name, count, options, options.guided))
        print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Row) -> str:
    rate = row.inputs / max(row.seconds, 1e-9)
    return (
        f"{row.target:18} {row.inputs:>9,} inputs {rate:>8,.0f}/s  accepted {row.accepted:>8,}  "
        f"refused {row.refused:>8,}  findings {row.findings:>5,} ({row.kinds})  "
        f"worst {row.worst_seconds * 1000:>6,.0f} ms  peak {row.peak_mib:>5,.0f} MiB"
    )


def markdown(rows: list[Row], options: argparse.Namespace) -> str:
    """The table, with what it takes to make it again."""
    lines = [
        "# Fuzzing",
        "",
        f"`{' '.join(['python', *sys.argv])}`, commit {_commit()}, Python "
        f"{platform.python_version()}. Each input: at most {options.seconds:g} s of processor "
        f"time, and the process at most {options.mebibytes:,} MiB.",
        "",
        "| target | inputs | per second | accepted | refused | findings | worst | peak memory |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        name = f"{row.target} (guided)" if row.guided else row.target
        lines.append(
            f"| {name} | {row.inputs:,} | {row.inputs / max(row.seconds, 1e-9):,.0f} | "
            f"{row.accepted:,} | {row.refused:,} | {row.findings:,} | "
            f"{row.worst_seconds * 1000:,.0f} ms | {row.peak_mib:,.0f} MiB |"
        )
    total = [sum(getattr(row, name) for row in rows) for name in _SUMS]
    worst = max((row.worst_seconds for row in rows), default=0)
    peak = max((row.peak_mib for row in rows), default=0)
    seconds = sum(row.seconds for row in rows)
    lines.append(
        f"| **all** | {total[0]:,} | {total[0] / max(seconds, 1e-9):,.0f} | {total[1]:,} | "
        f"{total[2]:,} | {total[3]:,} | {worst * 1000:,.0f} ms | {peak:,.0f} MiB |"
    )
    return "\n".join(lines) + "\n"


_SUMS = ("inputs", "accepted", "refused", "findings")


def _commit() -> str:
    ask = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", help="one of them; may be repeated")
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    parser.add_argument("--replay", action="store_true", help="the corpus instead")
    parser.add_argument("--seconds", type=float, default=5.0, help="that one input may take")
    parser.add_argument("--mebibytes", type=int, default=1024, help="that the process may take")
    parser.add_argument("--found", type=Path, default=Path("fuzz-findings"), help="where they go")
    parser.add_argument("--out", type=Path, help="a Markdown table of the results")
    parser.add_argument("--json", action="store_true", help="the results on standard output")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return _as_child(options.child)
    rows = replay(options) if options.replay else campaign(options)
    if options.out:
        options.out.write_text(markdown(rows, options), encoding="utf-8")
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    tried = sum(row.inputs for row in rows)
    findings = sum(row.findings for row in rows)
    print(f"{tried:,} inputs, {findings:,} findings", file=sys.stderr)
    sys.exit(1 if findings else 0)


def _as_child(request: str) -> None:
    if json.loads(request)["guided"]:
        import atheris

        with atheris.instrument_imports(include=["kpdata"], enable_loader_override=False):
            import child
    else:
        import child
    child.main(request)


if __name__ == "__main__":
    main()
