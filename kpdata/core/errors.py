"""The errors that kpdata raises for a user's input; a command prints their message and ends."""

import errno
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

_LONGEST = 2000
"""Characters of a message."""


def shortened(text: str) -> str:
    """``text`` without its middle, if it is longer than a message may be.

    Messages quote names and values, and a word in a hostile file may have millions of characters.
    """
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters …] {text[-half:]}"


def quoted(names: Collection[object], most: int = 8) -> str:
    r"""The first names, which come out of a file, as Python writes them: on one line, and cut.

    >>> quoted(["joints", "a\nb", "c"], most=2)
    "'joints', 'a\\nb', …"
    """
    shown = [f"{name!r:.40}" for name in islice(names, most)]
    return ", ".join([*shown, "…"] if len(names) > most else shown)


def either(names: Iterable[str]) -> str:
    """``a, b or c``.

    >>> either(["bbox", "keypoints", "image"])
    'bbox, keypoints or image'
    """
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


class KpdataError(Exception):
    """The base of all errors about the user's input; the message names place, value and fix.

    >>> import kpdata as kp
    >>> try:
    ...     kp.open("nowhere/")
    ... except kp.KpdataError as error:
    ...     print(error)
    nowhere is not a dataset: it has no kpdata.json. ...
    """

    def __init__(self, message: str = ""):
        super().__init__(shortened(message))


class SchemaError(KpdataError):
    """A value that no keypoint dataset can hold: a wrong shape, NaN, an unknown visibility."""


class FormatError(KpdataError):
    """Annotations, or options for them, that cannot be read or written as their format."""


class ImageError(KpdataError):
    """An image that cannot be used.

    Attributes:
        reason: a short name to count by, such as ``image missing``.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class DatasetError(KpdataError):
    """A shard folder that is missing, damaged, foreign or in use."""


class StoreError(KpdataError):
    """An object store that cannot be reached, or refuses what is asked of it."""


class JobError(KpdataError):
    """A conversion that cannot start, or that stopped; what it wrote is safe to resume."""


class TrainingError(KpdataError):
    """A training run that cannot start, or had to stop."""


class UnknownSplit(DatasetError, KeyError):
    """A split that a dataset does not have; the message lists those that it has."""

    def __str__(self) -> str:  # KeyError's own would quote the message
        return str(self.args[0])


class KpdataWarning(UserWarning):
    """Something that the user should know, but that does not stop the work.

    >>> import warnings, kpdata as kp
    >>> warnings.simplefilter("error", kp.KpdataWarning)                     # doctest: +SKIP
    """


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where`` before the message of a KpdataError that is raised in the block."""
    try:
        yield
    except KpdataError as error:
        error.args = (f"{where}: {error}", *error.args[1:])
        raise


_MEMORY_SIGNS = ("MemoryError:", "Insufficient memory", "failed to map segment")


def shortage(error: Exception) -> str | None:
    """What the system ran out of, and what to do about it; None for an error of another kind.

    Worker processes, OpenCV and the loader of libraries have only text to say so.
    """
    text, number = str(error), error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return "too many files are open: raise the limit, as with ulimit -n 4096"
    if number == errno.EAGAIN or "can't start new thread" in text:
        return "no more threads or processes can be started: raise the limit (ulimit -u)"
    memory = isinstance(error, MemoryError) or number == errno.ENOMEM
    if memory or any(sign in text for sign in _MEMORY_SIGNS):
        return (
            "memory ran out: close other programs, give less work at once, or use a larger machine"
        )
    return None


def first_line(error: Exception) -> str:
    """The first line of a library's error: Keras prints whole models after it."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
