"""The examples in docstrings of ``kpdata.train``, and of the crops it cuts, are true."""

import doctest
import importlib
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]


def has_examples(path: Path) -> bool:
    """Whether any example in the file is meant to be run."""
    lines = path.read_text().splitlines()
    return any(line.lstrip().startswith(">>>") and "+SKIP" not in line for line in lines)


MODULES = sorted(
    ".".join(["kpdata", *path.relative_to(ROOT).with_suffix("").parts])
    for path in (ROOT / "train").rglob("*.py")
    if has_examples(path)
)


@pytest.mark.parametrize("name", [*MODULES, "kpdata.core.crop"])
def test_the_examples_of_docstrings_are_true(name):
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed
    keras.backend.clear_session(free_memory=False)


def test_the_examples_are_found():
    assert {"kpdata.train.models.base", "kpdata.train.run.overrides"} <= set(MODULES)
