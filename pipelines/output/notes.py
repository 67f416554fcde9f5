"""Progress notes: small files that workers write, and that the driver adds up."""

import contextlib
import struct
import time
from collections.abc import Callable, Iterable
from typing import Self

_COUNTS = struct.Struct("<QQ")
_SECONDS_BETWEEN_NOTES = 0.2


class ProgressNote:
    """A worker's progress: writes (samples, bytes) of one shard into a small file or object.

    Args:
        put: replaces its content.
        seconds: the least time between two writes.
    """

    def __init__(self, put: Callable[[bytes], object], seconds: float = _SECONDS_BETWEEN_NOTES):
        self._put, self._seconds = put, seconds
        self._samples = self._bytes = 0
        self._noted = 0.0

    def advance(self, samples: int, bytes_so_far: int) -> None:
        """Count ``samples`` more, and set the bytes; written out only every ``seconds``."""
        self._samples += samples
        self._bytes = bytes_so_far
        if time.monotonic() - self._noted > self._seconds:
            self._note()

    def _note(self) -> None:
        self._noted = time.monotonic()
        self._put(_COUNTS.pack(self._samples, self._bytes))

    def __enter__(self) -> Self:
        self._note()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._note()


def add_notes(notes: Iterable[bytes]) -> tuple[int, int]:
    """(samples, bytes) of all notes together; a note that is half written counts as 0."""
    samples = size = 0
    for note in notes:
        with contextlib.suppress(struct.error):
            one = _COUNTS.unpack(note)
            samples, size = samples + one[0], size + one[1]
    return samples, size
