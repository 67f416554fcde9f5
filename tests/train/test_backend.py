"""Ctrl-C while a backend is imported."""

import os
import signal

import pytest

from kpdata.train.run.backend import interrupted_after


@pytest.fixture(autouse=True)
def usual_handler():
    """The handler of a command, whatever the shell that runs the tests does with Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(times: int, reached: list[int]) -> None:
    with interrupted_after():
        for number in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(number)


@pytest.mark.parametrize(("times", "reached"), [(1, [0]), (3, [0])])
def test_an_interrupt_waits_for_the_import_and_a_second_one_does_not(times, reached):
    got: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        press(times, got)
    assert got == reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_itself_is_left_alone():
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    with interrupted_after():
        os.kill(os.getpid(), signal.SIGINT)
    assert heard == [True]
