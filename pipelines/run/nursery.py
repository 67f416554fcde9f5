"""Where worker processes come from: a process that has imported what they need, and forks them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from kpdata.core.errors import JobError

_MODULE = "kpdata.pipelines.run.beam_nursery"
_SECONDS_TO_END = 5.0


class Nursery:
    """A process beside this one that forks workers on request, and ends with them.

    It has a process group of its own: Ctrl-C in a terminal reaches this process alone, which ends
    the group. When this process is killed, the other ends the group itself.

    Leaving the context ends them all.

    Args:
        log: gets what they print.
    """

    def __init__(self, log: Path):
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def warm_up(self) -> None:
        """Have the process begin to import what workers need, beside the caller's own work.

        Raises:
            OSError: there is no process or no log to be had.
        """
        if self._process:
            return
        self._has_forked = False
        self._socket, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE],
                stdin=theirs.fileno(), stdout=log, stderr=log, process_group=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip

    def fork(self, environment: Mapping[str, str]) -> int:
        """Start a worker, and return a file descriptor of a pipe that ends when it does.

        Args:
            environment: variables that it gets on top of this process's.

        Raises:
            JobError: the process that forks has died.
            OSError: as :meth:`warm_up`.
        """
        self.warm_up()
        assert self._socket
        files: list[int] = []
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(json.dumps(dict(environment)).encode() + b"\n")
            _, files, _, _ = socket.recv_fds(self._socket, 1, 1)
        self._has_forked = True
        if not files:
            raise JobError("no worker process could be started.")
        return files[0]

    def end(self) -> None:
        """End the process and all that it has forked; their CPU time becomes this process's."""
        process, self._process = self._process, None
        with self._socket or contextlib.nullcontext():
            if process:
                try:
                    self._await_end()
                finally:
                    _kill(process)

    def _await_end(self) -> None:
        """Have the process kill its workers and wait for them, and wait until it has."""
        if not (self._socket and self._has_forked):  # it may still import, and would hear nothing
            return
        self._socket.settimeout(_SECONDS_TO_END)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(1):
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(PermissionError):  # macOS's answer where all have died already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
