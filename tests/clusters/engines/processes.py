"""Processes of a cluster on this machine: started, waited for, killed, and always stopped."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

HOST = "127.0.0.1"
_SECONDS_TO_START = 120.0
_SECONDS_TO_STOP = 5.0
_TAIL = 3000


class ClusterError(Exception):
    """A part of a cluster did not come up, or went away; the message ends with its log's tail."""


@dataclass(frozen=True)
class Part:
    """One process of a cluster, the leader of its own group.

    Attributes:
        name: such as ``taskmanager-1``.
        process: as it was started.
        log: everything that it and its children print.
        begin: where its words begin in the log, behind those of a part of its name before it.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    begin: int

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill -9 the process and all that it started."""
        for process in (*self.children(), psutil.Process(self.process.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(_SECONDS_TO_STOP)

    def has_said(self, words: str) -> bool:
        """Whether these words are in its log."""
        with open(self.log, errors="replace") as log:
            log.seek(self.begin)
            return words in log.read()

    def children(self) -> list[psutil.Process]:
        """Processes that it started, and those that they did."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-_TAIL:]


@dataclass
class Parts:
    """The processes of one cluster; leaving the ``with`` block ends every one of their groups.

    Attributes:
        folder: logs go there.
    """

    folder: Path
    _started: list[Part] = field(default_factory=list)

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> Part:
        """Start ``command``; its log is ``name``'s, to which a restart appends."""
        bin_folder = str(Path(sys.executable).parent)  # worker pools start whatever ``python`` is
        path = f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"
        log = self.folder / f"{name}.log"
        with open(log, "ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, "PATH": path, **(environment or {})},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        part = Part(name, process, log, begin)
        self._started.append(part)
        return part

    def wait_until_it_says(self, part: Part, words: str) -> None:
        """Wait for these words in the part's log.

        Raises:
            ClusterError: they did not come in time, or the part ended.
        """
        self._wait(part, lambda: part.has_said(words), f"never said {words!r}")

    def wait_until_it_listens(self, part: Part, port: int, host: str = HOST) -> None:
        """Wait until somebody listens on ``port``.

        Raises:
            ClusterError: nobody did in time, or the part ended.
        """
        self._wait(part, lambda: _listens(host, port), f"never listened on {host}:{port}")

    def _wait(self, part: Part, ready: Callable[[], bool], fault: str) -> None:
        end = time.monotonic() + _SECONDS_TO_START
        while not ready():
            if not part.alive or time.monotonic() > end:
                raise ClusterError(f"{part.name} {fault}.\n{self.tails()}")
            time.sleep(0.1)

    def tails(self) -> str:
        """The ends of all logs."""
        logs = {part.name: part for part in self._started}
        states = {True: "runs", False: "has ended"}
        return "\n".join(
            f"--- {name}, which {states[part.alive]}:\n{part.tail()}" for name, part in logs.items()
        )

    def stop(self) -> None:
        """End every group, politely and then with kill -9."""
        for number, seconds in ((signal.SIGTERM, _SECONDS_TO_STOP), (signal.SIGKILL, 1.0)):
            members = [p for part in self._started for p in _group_of(part.process.pid)]
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            psutil.wait_procs(members, timeout=seconds)
        for part in self._started:
            part.process.wait(_SECONDS_TO_STOP)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _group_of(leader: int) -> list[psutil.Process]:
    """Living processes of the session that ``leader`` began, be it dead or alive."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members
