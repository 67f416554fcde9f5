"""The most memory that a command's processes held."""

import shlex
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import click
import psutil

SECONDS_BETWEEN_LOOKS = 0.02


class Peaks(NamedTuple):
    """MiB at the peak of the first process, and of the largest of those below it."""

    driver: float
    worker: float


def peak_memory(command: list[str]) -> Peaks:
    """Run a command, and look at its processes all the while."""
    peaks: dict[int, float] = {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        for pid in [driver.pid, *children_of(driver)]:
            peaks[pid] = high_water(pid) or peaks.get(pid, 0.0)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise click.ClickException(f"{shlex.join(command)} failed")
    return Peaks(peaks.pop(process.pid), max(peaks.values(), default=0.0))


def children_of(process: psutil.Process) -> list[int]:
    """The ids of all processes below this one."""
    try:
        return [child.pid for child in process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def high_water(pid: int) -> float:
    """MiB that a process has held at most; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
