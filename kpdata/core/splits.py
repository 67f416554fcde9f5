"""Which split a sample belongs to: by a stable hash of its group, so nothing ever leaks.

A group's position on [0, 1) depends on the seed and its own name alone. Adding images to a dataset
never moves an old one to another split, but in two cases. A new image may join groups: then all of
them go where the smallest name goes. And a split that was reached by no position was given the
nearest group: that may go back once the split has one of its own.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise

import msgspec

from kpdata.core.errors import FormatError

DEFAULT_NAMES = ("train", "val", "test")
DEFAULT_SPLIT = "80/10/10"
TRAIN, VAL = "train", "val"
OFFICIAL = "official"
"""What ``split`` calls the source's own split."""

SPLIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Splits(msgspec.Struct, frozen=True):
    """What the user asked for with ``split``, ``val_from_train`` and ``seed``.

    Attributes:
        shares: split name → share of the groups, adding up to 1; empty for the official split.
        val_share: share of the official train set that becomes val.
        seed: a different seed splits differently.
    """

    shares: dict[str, float] = {}
    val_share: float = 0.0
    seed: int = 0

    @property
    def official(self) -> bool:
        """Whether the source's own split is kept."""
        return not self.shares

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Split name → the part of [0, 1) that is its own."""
        ends = list(accumulate(self.shares.values()))
        return dict(zip(self.shares, pairwise([0.0, *ends]), strict=True))

    def assign(self, group: str, official: str | None) -> str | None:
        """The split of a group; None where the official split is asked for and unknown.

        Args:
            group: the name that decides.
            official: the source's own split.
        """
        point = position(group, self.seed)
        if self.official:
            return "val" if official == TRAIN and point < self.val_share else official
        for name, (_, high) in self.ranges.items():
            if point < high:
                return name
        return list(self.shares)[-1]


def stable_hash(text: str, seed: int = 0) -> int:
    """64 bits that depend on nothing but the arguments (BLAKE2b, keyed by the seed)."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big")


def position(group: str, seed: int) -> float:
    """Where a group falls on [0, 1)."""
    return (stable_hash(group, seed) >> 11) / 2**53


def display_order(split: str) -> tuple[int, str]:
    """Sorts split names: train, val, test, then the others."""
    known = split in DEFAULT_NAMES
    return (DEFAULT_NAMES.index(split) if known else len(DEFAULT_NAMES), split)


def parse_splits(text: str, val_percent: float = 0, seed: int = 0) -> Splits:
    """Read ``80/10/10``, ``train=90,test=10`` or ``official``.

    Raises:
        FormatError: the text is none of these, or its parts do not add up to 100.
    """
    if text == OFFICIAL:
        if not 0 <= val_percent < 100:
            raise FormatError(f"val_from_train is {val_percent:g}: expected 0 to below 100 percent")
        return Splits(val_share=val_percent / 100, seed=seed)
    if val_percent:
        raise FormatError("`val_from_train` goes with `split` official: else name val in `split`")
    try:
        parts = _named_parts(text) if "=" in text else _numbered_parts(text)
        percents = {name: float(number) for name, number in parts}
    except ValueError:
        raise FormatError(
            f"split is {text!r}: expected percentages such as 80/10/10 or train=90,test=10, "
            "or official"
        ) from None
    _check_names(text, [name for name, _ in parts])
    total = sum(percents.values())
    if min(percents.values()) < 0:
        raise FormatError(f"split is {text!r}: a part is negative")
    if not abs(total - 100) <= 1e-6:  # NaN fails it too
        raise FormatError(f"split is {text!r}: the parts must add up to 100, not {total:g}")
    return Splits({name: p / 100 for name, p in percents.items() if p > 0}, seed=seed)


def _named_parts(text: str) -> list[tuple[str, str]]:
    return [(name.strip(), number) for name, number in (p.split("=") for p in text.split(","))]


def _numbered_parts(text: str) -> list[tuple[str, str]]:
    numbers = text.split("/")
    if len(numbers) > len(DEFAULT_NAMES):
        raise ValueError(text)
    return list(zip(DEFAULT_NAMES, numbers, strict=False))


def _check_names(text: str, names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if not SPLIT_NAME.fullmatch(name):
            raise FormatError(
                f"split is {text!r}: {name!r} is no split name (lower-case letters, digits and _)"
            )
        if name in seen:
            raise FormatError(f"split is {text!r}: {name!r} is given twice")
        seen.add(name)


def group_finder(pattern: str) -> Callable[[str], str | None]:
    """A function from an image's name to its group: what ``pattern``'s first group captures.

    In a pattern of alternatives, ``^(cam1)_|^(cam2)_``, that is the group of the one that matches.

    Raises:
        FormatError: not a regular expression, or one without a group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise FormatError(f"group is {pattern!r}, not a regular expression: {error}") from None
    if not compiled.groups:
        raise FormatError(
            f"group is {pattern!r}, which captures nothing: put the part of the file name that "
            r"names the video or person in brackets, such as '(.+)_\d+\.jpg'"
        )

    def find(name: str) -> str | None:
        match = compiled.search(name)
        return next(filter(None, match.groups()), None) if match else None

    return find
