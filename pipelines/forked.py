"""Processes that start at once, forked from one that has imported already what they need."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["kpdata.pipelines.beam_workers", "kpdata.pipelines.convert"]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The driver hears them, and ends its workers: they are born with both blocked."""


def warm_up() -> None:
    """Begin to import, in a process beside this one, what workers need."""
    resource_tracker.ensure_running()  # it comes first, and would unblock the signals
    with _signals_blocked():
        _CONTEXT.set_forkserver_preload(_PRELOADED)
        forkserver.ensure_running()


def start(target: Callable[..., None], environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Start a process that calls ``target``.

    Args:
        target: a function that can be imported.
        environment: variables on top of this process's.
        log: gets what the process says on standard error.
    """
    warm_up()
    process = _CONTEXT.Process(target=_begin, args=(target, environment, log))
    process.start()
    return process


def cool_down() -> None:
    """End the process that workers are forked from; they must have ended by now."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid:
        os.kill(server._forkserver_pid, signal.SIGKILL)  # it would take its time to tidy up
    server._stop()


def _begin(target: Callable[..., None], environment: Mapping[str, str], log: Path) -> None:
    os.environ.update(environment)
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    target()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process that is started meanwhile inherits the mask, and so do those forked from it."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
