"""Ends Beam's embedded runner when one of its worker processes dies, or on Ctrl-C."""

import signal
import threading
from types import FrameType
from typing import Self

_BEAM_THREADS = frozenset({"beam_control_read", "read_grpc_client_inputs"})
"""They serve one worker each, and end in an exception when it is gone."""
_BEAM_MESSAGES = "wait_until_finish_read"
"""A thread that hears from a job server, and ends in an exception when that is gone, at exit."""

_SECONDS_TO_END = 5.0


class Watchdog:
    """Breaks the main thread's wait when a worker dies: FnApiRunner would wait for ever.

    Attributes:
        interrupted: Ctrl-C was pressed, or a polite kill asked for the same, which Beam may turn
            into another error.
        saw_death: a worker died, and nobody had interrupted the run before.
    """

    def __init__(self) -> None:
        self.interrupted = self.saw_death = False
        self._in_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        self._old_hook, threading.excepthook = threading.excepthook, self._hear
        if self._in_main:  # nobody else may set a signal's handler
            self._old_handlers = {
                number: signal.signal(number, self._interrupt) for number in _signals_to_hear()
            }
        return self

    def hear_interrupts(self) -> None:
        """Take the signals back from whoever has come to handle them instead."""
        if self._in_main:
            for number in self._old_handlers:
                signal.signal(number, self._interrupt)

    def __exit__(self, *_: object) -> None:
        for thread in threading.enumerate():
            if thread.name in _BEAM_THREADS:
                thread.join(_SECONDS_TO_END)
        if not any(thread.name == _BEAM_MESSAGES for thread in threading.enumerate()):
            threading.excepthook = self._old_hook
        if self._in_main:
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)

    def hear_death(self) -> None:
        """A worker died: break the main thread's wait, unless it was interrupted anyway."""
        if self._in_main and not (self.saw_death or self.interrupted):
            self.saw_death = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _hear(self, args: threading.ExceptHookArgs) -> None:
        if args.thread is None or args.thread.name not in _BEAM_THREADS | {_BEAM_MESSAGES}:
            self._old_hook(args)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Hear a worker's death or Ctrl-C, whichever comes first: each brings on the other."""
        if self.saw_death:
            raise KeyboardInterrupt
        handler = self._old_handlers[signal.Signals(number)]
        if callable(handler):
            self.interrupted = True
            handler(number, frame)


def _signals_to_hear() -> list[signal.Signals]:
    """Ctrl-C, through which a worker's death is told too, and SIGTERM where somebody handles it."""
    handled = callable(signal.getsignal(signal.SIGTERM))
    return [signal.SIGINT, signal.SIGTERM] if handled else [signal.SIGINT]
