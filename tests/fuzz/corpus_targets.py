"""The corpus: for each target, the inputs that once broke the contract, under its own check."""

from dataclasses import replace
from pathlib import Path

from targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"


def of(name: str) -> Target:
    """The target ``name``, whose seeds are the corpus's files alone, in order."""
    files = sorted((CORPUS / name).glob("*.bin"))
    return replace(TARGETS[name], seeds=lambda: [path.read_bytes() for path in files])


def __getattr__(name: str) -> Target:
    if name.replace("_", "-") not in TARGETS:
        raise AttributeError(name)
    return of(name.replace("_", "-"))
