"""Targets that misbehave on purpose, so that a test can see whether the harness notices."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from mutate import plain
from targets import Check, Target

from kpdata.core.errors import KpdataError


def _target(misbehave: Callable[[], object]) -> Target:
    """Of eight inputs, the seeds themselves: one is refused, one misbehaves."""

    def prepare(folder: Path) -> Check:
        def check(data: bytes) -> None:
            if data == b"2":
                raise KpdataError("refused")
            if data == b"5":
                misbehave()

        return check

    return Target(lambda: [b"%d" % n for n in range(8)], plain, prepare, 1)


def _spin() -> None:
    while True:
        pass


crash = _target(os.abort)
hang = _target(_spin)
sleep = _target(lambda: time.sleep(3600))
memory = _target(lambda: bytearray(b"x") * (400 << 20))
foreign = _target(lambda: {}["no such key"])
sound = _target(lambda: None)
