"""The nursery's process, ``python -m kpdata.pipelines.run.beam_nursery``: see :mod:`.nursery`."""

import contextlib
import io
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

import kpdata.pipelines.convert  # noqa: F401 - what workers will run
from kpdata.core.quiet import without_warnings

with without_warnings():
    from apache_beam.runners.worker import sdk_worker_main

_STDIN, _STDERR = 0, 2


class _Forgiving(io.FileIO):
    """A log on a disk that may be full: what cannot be written is lost.

    Beam prints a bundle's error before it reports it, and would never report it.
    """

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return len(data)


def main() -> None:
    """Fork a worker for every line on the socket that is standard input; at its end, kill them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started the driver may have it ignored
    workers: list[int] = []
    driver = socket.socket(fileno=_STDIN)
    try:
        with driver.makefile("rb") as requests:
            for request in requests:
                worker, reader = _fork(request)
                workers.append(worker)
                socket.send_fds(driver, [b"."], [reader])
                os.close(reader)
    except OSError:  # the driver is gone, or there is no process to be had
        traceback.print_exc()
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for worker in workers:
            os.waitpid(worker, 0)  # else their CPU time would count for nobody
        os.killpg(0, signal.SIGKILL)


def _fork(request: bytes) -> tuple[int, int]:
    """A new worker's id, and the end of a pipe that tells of its death."""
    reader, writer = os.pipe()
    worker = os.fork()
    if not worker:
        _work(request)
    os.close(writer)
    return worker, reader


def _work(request: bytes) -> None:
    """Be a worker, and never return. The pipe's writer stays open until this process ends."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, _STDIN)
        sys.stderr = io.TextIOWrapper(_Forgiving(_STDERR, "w"), write_through=True)
        os.environ.update(json.loads(request))
        sdk_worker_main.main([])
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
