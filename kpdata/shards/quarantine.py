"""The quarantine: samples that cannot be used are listed, counted, and limited in number."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import islice

import msgspec

from kpdata.core.errors import JobError
from kpdata.core.sample import Rejected

_EXAMPLES = 3


def as_line(rejected: Rejected) -> bytes:
    """One line of ``quarantine.jsonl``."""
    entry = {name: escaped(text) for name, text in rejected._asdict().items()}
    return msgspec.json.encode(entry) + b"\n"


def escaped(text: str) -> str:
    """The text with what UTF-8 cannot hold, of a file's name say, as backslashes and digits."""
    return text.encode("utf-8", "backslashreplace").decode()


def digest(lines: Iterable[bytes]) -> str:
    """sha256 over the keys and reasons in ``quarantine.jsonl``'s lines.

    The details are left out: they quote paths as the user typed them.
    """
    hashed = hashlib.sha256()
    for line in lines:
        entry = msgspec.json.decode(line, type=_Entry)
        hashed.update(msgspec.json.encode([entry.key, entry.reason]))
    return hashed.hexdigest()


class _Entry(msgspec.Struct):
    key: str
    reason: str


def check_quarantine(
    reasons: Counter[str], total: int, max_quarantine: float, details: Iterable[str]
) -> None:
    """Raise JobError if more samples were refused than the user allows.

    Args:
        reasons: refused samples by reason.
        total: number of all samples, with the refused ones.
        max_quarantine: the percentage of ``total`` that may be refused.
        details: the refused samples' details; the message quotes the first few.

    Raises:
        JobError: more were refused; the message says why, and what to do.
    """
    if not 0 <= max_quarantine <= 100:
        raise JobError(f"max_quarantine is {max_quarantine:g}: expected 0 to 100 percent")
    bad = reasons.total()
    if bad * 100 <= max_quarantine * total:
        return
    listed = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common())
    examples = "\n".join(f"  {detail}" for detail in islice(details, _EXAMPLES))
    raise JobError(
        f"{bad:,} of {total:,} samples are bad ({listed}), more than the "
        f"{max_quarantine:g} % that `max_quarantine` allows. For example:\n{examples}\n"
        "Mend them, or quarantine them with a larger `max_quarantine`."
    )
