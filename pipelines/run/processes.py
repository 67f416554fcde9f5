"""Worker processes on this machine.

Each is a new interpreter that runs :mod:`.worker`. Unlike those of multiprocessing, it never
imports the caller's ``__main__``: a script needs no ``if __name__ == "__main__"``, and threads and
notebooks may use workers. Each has its own process group, so that Ctrl-C in a terminal reaches the
driver only.
"""

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Self

from kpdata.core.errors import JobError

_MODULE = "kpdata.pipelines.run.worker"


class _Worker(NamedTuple):
    process: "subprocess.Popen[bytes]"
    connection: Connection


class Processes:
    """Worker processes; they end when the ``with`` block ends, or when this process does.

    Args:
        log: the file for what they print.
    """

    def __init__(self, log: Path):
        self._log = log
        self._workers: list[_Worker] = []

    def start(self, count: int) -> None:
        """Start processes until there are ``count``; each begins to import its libraries at once.

        Raises:
            OSError: the system cannot start another process, or the log cannot be written.
        """
        while len(self._workers) < count:
            ours, theirs = Pipe()
            try:
                with theirs, self._log.open("ab") as log:
                    process = subprocess.Popen(
                        [sys.executable, "-P", "-u", "-m", _MODULE, str(theirs.fileno())],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
                        pass_fds=[theirs.fileno()],
                        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                    )  # fmt: skip
            except BaseException:
                ours.close()
                raise
            self._workers.append(_Worker(process, ours))

    def map(self, function: Callable[[str], Any], arguments: Sequence[str], count: int) -> None:
        """Call ``function`` with every argument in ``count`` processes; results are not returned.

        Args:
            function: picklable by name.
            arguments: each goes to the next process that is free.
            count: processes.

        Raises:
            JobError: a process was killed.
            RuntimeError: the function raised; the message holds that error.
        """
        self.start(count)
        left = deque(arguments)
        with _death_explained(count):
            busy = [one for _, one in self._workers[:count] if _send_next(one, function, left)]
            while busy:
                for connection in wait(busy):
                    assert isinstance(connection, Connection)
                    if error := connection.recv_bytes().decode():
                        raise RuntimeError(error)
                    if not _send_next(connection, function, left):
                        busy.remove(connection)

    def end(self) -> None:
        """Kill all processes and wait for them, so that their CPU time counts as this process's."""
        workers, self._workers = self._workers, []
        for process, _ in workers:
            process.kill()
        for process, connection in workers:
            connection.close()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _send_next(connection: Connection, function: Callable[[str], Any], left: "deque[str]") -> bool:
    """Send the next argument; return False where none is left."""
    if not left:
        return False
    connection.send((function, left.popleft()))
    return True


@contextlib.contextmanager
def _death_explained(count: int) -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise JobError(
            "a worker process was killed, most likely because memory ran out. "
            "Run the same command again: finished shards are kept. "
            f"Fewer workers need less memory (this run had {count})."
        ) from error
