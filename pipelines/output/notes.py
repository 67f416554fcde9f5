"""How far workers are: small notes that they write and the driver adds up."""

import contextlib
import struct
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

_COUNTS = struct.Struct("<QQ")
_SECONDS_BETWEEN_NOTES = 0.2


class ProgressNote:
    """A worker's side of the progress bar: keeps (samples, bytes) in a small file.

    Args:
        put: replaces the file's content.
        seconds: between two notes, at least.
    """

    def __init__(self, put: Callable[[bytes], object], seconds: float = _SECONDS_BETWEEN_NOTES):
        self._put, self._seconds = put, seconds
        self._samples = self._bytes = 0
        self._noted = 0.0

    def advance(self, samples: int, bytes_so_far: int) -> None:
        """Count ``samples`` more; the file is written a few times a second at most."""
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._note()


def add_notes(notes: Iterable[bytes]) -> tuple[int, int]:
    """Samples and bytes of several notes; one half written counts for nothing."""
    samples = size = 0
    for note in notes:
        with contextlib.suppress(struct.error):
            one = _COUNTS.unpack(note)
            samples, size = samples + one[0], size + one[1]
    return samples, size
