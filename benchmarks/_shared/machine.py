"""What a benchmark ran on."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil


def facts(packages: Iterable[str], sources: Iterable[str]) -> dict[str, str]:
    """The command, the commit, the time, the machine and its software, by name.

    Args:
        packages: distributions whose versions are told.
        sources: folders of the repository that are measured.
    """
    memory = psutil.virtual_memory().total / 2**30
    return {
        "command": f"`{shown_command()}`",
        "commit": commit(sources),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def shown_command() -> str:
    """The command line, without the folders that its files lie in."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def commit(sources: Iterable[str]) -> str:
    """The commit that is checked out, and whether one of these folders differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", *(f":/{source}" for source in sources))
    return (git("rev-parse", "HEAD") or "unknown") + (", with changes" if changed else "")


def cpu_model() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def disk_kind(folder: Path) -> str:
    """The file system of ``folder``, its device, and whether that spins."""
    mounts = psutil.disk_partitions(all=True)
    holding = [m for m in mounts if folder.resolve().is_relative_to(m.mountpoint)]
    mount = max(holding, key=lambda m: len(m.mountpoint))
    device = os.stat(folder).st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for queue in (block / "queue", block.parent / "queue"):
        if queue.is_dir():
            spins = (queue / "rotational").read_text().strip() == "1"
            kind = "reported as rotational" if spins else "not rotational"
            return f"{mount.fstype} on {block.name}, {kind}"
    return f"{mount.fstype}"
