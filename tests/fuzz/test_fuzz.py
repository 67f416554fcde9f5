"""The readers under fire: some thousand inputs each, all that was ever found, and the harness."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpdata.core.errors import KpdataError

HERE = Path(__file__).parent
PLANTED = {
    "planted:crash": "crash by SIGABRT, input 5",
    "planted:hang": "hang, input 5",
    "planted:sleep": "hang, input 5",
    "planted:memory": "memory: 5",
    "planted:foreign": "KeyError: 'no such key'",
}

with pytest.MonkeyPatch.context() as patch:  # as ``python tests/fuzz/run.py`` finds them
    patch.syspath_prepend(str(HERE))
    from targets import TARGETS


def fuzz(found: Path, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and rows of the harness."""
    command = [sys.executable, HERE / "run.py", "--json", "--found", found, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def said(found: Path) -> str:
    """What was found, in words."""
    return "\n".join(path.read_text() for path in sorted(found.rglob("*.txt")))


def test_some_thousand_inputs_are_accepted_or_refused(tmp_path):
    code, rows = fuzz(tmp_path, "--inputs", 20_000, "--seed", 20260101)
    tried = sum(row["inputs"] for row in rows)
    print(f"{tried:,} inputs over {len(rows)} targets")
    assert {row["target"] for row in rows} == set(TARGETS)
    assert tried >= 19_000
    assert (code, said(tmp_path)) == (0, "")
    for row in rows:
        assert row["accepted"] > 0, f"{row['target']}: nothing sound is among its inputs"
        assert row["refused"] > 0 or row["target"].startswith("json-"), row["target"]


def test_what_was_once_found_is_accepted_or_refused_now(tmp_path):
    code, rows = fuzz(tmp_path, "--replay")
    assert (code, said(tmp_path)) == (0, "")
    assert sum(row["inputs"] for row in rows) == len(list((HERE / "corpus").rglob("*.bin")))


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install '.[fuzz]'"
)
def test_coverage_leads_to_inputs_as_well(tmp_path):
    code, (row,) = fuzz(tmp_path, "--target", "record", "--inputs", 1500, "--guided")
    assert (code, said(tmp_path)) == (0, "")
    assert row["accepted"] + row["refused"] > 1000


@pytest.mark.parametrize("name", PLANTED)
def test_the_harness_finds_what_is_planted_and_goes_on_behind_it(tmp_path, name):
    limits = ("--seconds", 1, "--mebibytes", 300)
    code, (row,) = fuzz(tmp_path, "--target", name, "--inputs", 8, *limits)
    assert code == 1
    assert (row["inputs"], row["findings"], row["kinds"]) == (8, 1, 1)
    assert PLANTED[name] in said(tmp_path)
    (saved,) = tmp_path.rglob("*.bin")
    assert saved.read_bytes() == b"5"
    assert row["refused"] == 1
    assert row["accepted"] >= 6


def test_the_harness_finds_nothing_where_nothing_is(tmp_path):
    code, (row,) = fuzz(tmp_path, "--target", "planted:sound", "--inputs", 500)
    assert (code, row["accepted"] + row["refused"], row["findings"]) == (0, 500, 0)
    assert not list(tmp_path.iterdir())


def test_an_input_depends_on_its_number_alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        from child import make_input
    for name, target in TARGETS.items():
        made = [make_input(target, name, 7, number) for number in range(60)]
        assert made == [make_input(target, name, 7, number) for number in range(60)]
        assert len(set(made)) > 30, f"{name}: its inputs repeat"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(number=st.integers(0, 2**32), blind=st.binary(max_size=60), value=_json)
def test_no_input_that_hypothesis_thinks_of_ends_otherwise(
    tmp_path_factory, name, number, blind, value
):
    target = TARGETS[name]
    check = target.prepare(tmp_path_factory.mktemp("fuzz"))
    rng = Random(number)
    sound = rng.choice(target.seeds())
    place = rng.randrange(len(sound) + 1)
    for data in (sound[:place] + blind + sound[place:], json.dumps(value).encode(), blind):
        with contextlib.suppress(KpdataError):
            check(data)
