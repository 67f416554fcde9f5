"""The main program of a worker process: ``python -m kpdata.pipelines.run.worker FD``.

:mod:`.processes` starts it; FD is its end of a pipe.
"""

import contextlib
import os
import pickle
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection

import kpdata.pipelines.write.shard  # noqa: F401 - import it before the first shard comes


def main(descriptor: int) -> None:
    """Receive (function, argument) pairs and call them; send "", or the error as text, after each.

    The process ends as soon as the driver closes the pipe or dies, even during a call.
    """
    driver = Connection(descriptor)
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    try:
        threading.Thread(target=_receive, args=(driver, messages), daemon=True).start()
    except RuntimeError as failure:  # the system has no more threads: the driver says so
        driver.send_bytes(f"RuntimeError: {failure}".encode())
        return
    while True:
        message = messages.get()
        try:
            function, argument = pickle.loads(message)
            function(argument)
            error = ""
        except Exception as failure:
            with contextlib.suppress(OSError):  # the log's disk may be full
                traceback.print_exc()
            error = f"{type(failure).__name__}: {failure}"
        driver.send_bytes(error.encode("utf-8", "backslashreplace"))


def _receive(driver: Connection, messages: "queue.SimpleQueue[bytes]") -> None:
    try:
        while True:
            messages.put(driver.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
