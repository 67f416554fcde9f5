"""The errors kpdata raises for a user's input; the command line turns each into one message."""

from collections.abc import Iterator
from contextlib import contextmanager


class KpdataError(Exception):
    """Anything wrong with what the user gave; the message names place, value and fix.

    >>> import kpdata as kp
    >>> try:
    ...     kp.open("nowhere/")
    ... except kp.KpdataError as error:
    ...     print(error)
    nowhere is not a dataset: it has no kpdata.json. ...
    """


class SchemaError(KpdataError):
    """A value that no keypoint dataset may hold: a wrong shape, NaN, an unknown visibility."""


class FormatError(KpdataError):
    """An annotation file that is not what its format says."""


class ImageError(KpdataError):
    """An image that cannot be used; ``reason`` is the short name it is counted under."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class DatasetError(KpdataError):
    """A shard folder that is missing, damaged, foreign or in use."""


class StoreError(KpdataError):
    """An object store that cannot be reached, or refuses what is asked of it."""


class JobError(KpdataError):
    """A conversion that stopped: what it left behind is safe to resume."""


class TrainingError(KpdataError):
    """A training run that cannot start, or had to stop."""


class UnknownSplit(DatasetError, KeyError):
    """A split that a dataset does not have; the message lists those that it has."""

    def __str__(self) -> str:
        return str(self.args[0])


class KpdataWarning(UserWarning):
    """Something that the user should know, though the work goes on.

    >>> import warnings, kpdata as kp
    >>> warnings.simplefilter("error", kp.KpdataWarning)                     # doctest: +SKIP
    """


@contextmanager
def located(where: str) -> Iterator[None]:
    """Prefix the message of any KpdataError raised inside with ``where``."""
    try:
        yield
    except KpdataError as error:
        error.args = (f"{where}: {error}", *error.args[1:])
        raise


def first_line(error: Exception) -> str:
    """What a library's error says first: Keras goes on with whole models."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
