"""What tests have worker processes do: functions that a fresh process imports by name."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def touch(folder: Path, name: str) -> None:
    """Make an empty file."""
    (folder / name).touch()


def look(folder: Path, name: str) -> None:
    """Write down what a worker sees of its surroundings."""
    beam = any(module.startswith("apache_beam") for module in sys.modules)
    seen = {"group": os.getpgrp(), "path": sys.path, "beam": beam}
    (folder / name).write_text(json.dumps(seen))
    time.sleep(0.3)  # so that the other worker gets the other name


def die(_: str) -> None:
    """End as a crash in native code does, or the kernel's out-of-memory killer."""
    os.write(2, b"Segmentation fault")
    os.kill(os.getpid(), signal.SIGKILL)


def fail(_: str) -> None:
    """Raise."""
    raise ValueError("no such shard")


def work(_: str) -> None:
    """Use 1.5 s of processor time."""
    end = time.process_time() + 1.5
    while time.process_time() < end:
        pass


def note_and_sleep(folder: Path, name: str) -> None:
    """Say that the work has begun, and take long."""
    (folder / name).write_text(str(os.getpid()))
    time.sleep(60)
