"""What commands print can neither rewrite the screen nor pass for what it is not."""

import json
from types import SimpleNamespace

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.view import console
from kpdata.view.console import Meter, screen, table
from kpdata.view.printing import print_error, print_json, print_line, print_usage_error, printable

CONTROLS = {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
HOSTILE = "a" + "".join(sorted(CONTROLS)) + "z"


@given(st.text())
def test_controls_become_digits_and_nothing_else_changes(text):
    expected = "".join(f"\\x{ord(c):02x}" if c in CONTROLS else c for c in text)
    assert printable(text) == expected


def test_text_on_either_stream_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(HOSTILE)
    print_error(HOSTILE)
    print_usage_error(click.UsageError(HOSTILE))
    screen().print(HOSTILE)
    screen(stderr=True).print(table(HOSTILE, ("name", "count"), [(HOSTILE, 1)]))
    with Meter() as meter:
        meter.tell(HOSTILE)
    said = capsys.readouterr()
    assert not set(said.out + said.err) & CONTROLS
    assert (said.out.count(r"\x1b"), said.err.count(r"\x1b")) == (2, 5)


def test_json_is_escaped_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(msgspec.json.format(msgspec.json.encode({HOSTILE: "é\n"}), indent=1).decode())
    said = capsys.readouterr().out
    assert not set(said) & CONTROLS
    assert json.loads(said) == {HOSTILE: "é\n"}


def test_a_name_of_two_lines_passes_for_no_message_and_no_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_error("kpdata: a.jpg\nkpdata: 0 faults: is damaged")
    screen(stderr=True).print(table("", ("name",), [("a.jpg\nb.jpg",)]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["kpdata: a.jpg", "  kpdata: 0 faults: is damaged"]
    assert [line.strip() for line in lines[2:]] == ["name", r"a.jpg\nb.jpg"]


def test_the_time_left_is_not_guessed_from_what_starts_once(capsys, monkeypatch):
    times = iter([0.0, 60.0, 70.0, 80.0])  # a minute to compile, then one frame a second
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(times)))
    meter = Meter()
    meter.begin("predicting", 100, "frames")
    for done in (10, 20, 30):
        meter.reach(done, "loss 1")
    assert capsys.readouterr().err.splitlines() == [
        "predicting: 10 of 100, loss 1",
        "predicting: 20 of 100, 1 frames/s, loss 1, 80 s left",
        "predicting: 30 of 100, 1 frames/s, loss 1, 70 s left",
    ]
