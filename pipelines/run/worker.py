"""One worker process, ``python -m kpdata.pipelines.run.worker FD``: see :mod:`.processes`."""

import contextlib
import os
import pickle
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection

import kpdata.pipelines.write.shard  # noqa: F401 - imported before the first shard is asked for


def main(descriptor: int) -> None:
    """Receive functions with an argument each; send "" after each call, or its error as text.

    The process ends as soon as the driver closes its side of the connection or dies, even in the
    middle of a call.
    """
    driver = Connection(descriptor)
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(driver, messages), daemon=True).start()
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
