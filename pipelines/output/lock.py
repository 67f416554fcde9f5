"""A lock on a folder of a store: one conversion at a time, even if its process dies.

A conversion that wants the folder writes a claim, an object of its own, and then lists all claims.
It holds the folder if every other claim is dead. A listing shows every object that was written
before it (S3, Google Cloud Storage, HDFS and S3-compatible stores promise this). So of two
conversions that start together, at least one sees the other's claim, and they never both hold the
folder. Both may give way; each tries again after a random pause. This needs no conditional writes,
which many stores ignore without an error, and every request may be repeated.

The holder renews its claim. A claim is dead if it was not renewed for a minute, by the store's own
clock. It is dead at once if its process ran on this machine and has ended. A holder that could not
renew its claim in time stops renewing it. Everybody who works for a claim stops when the claim is
gone: a worker before it uploads a shard, the driver before it seals.
"""

import contextlib
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator

import msgspec
import psutil

from kpdata.core.errors import DatasetError, JobError, StoreError
from kpdata.storage.stores import MissingObject, Store, Url, store_of

RENEWED_EVERY = 10.0
DEAD_AFTER = 60.0
_TRIES = 4
_LONGEST_PAUSE = 1.0
_MAX_CLAIM_BYTES = 10_000


class Claim(msgspec.Struct, frozen=True):
    """The content of a claim: which process wants the folder.

    Attributes:
        host, pid, since: for messages.
        machine: identifies the machine, its last boot and its process id namespace; empty if
            unknown.
        began: start time of the process in the kernel's ticks. It tells the process from a later
            one with the same id.
    """

    host: str
    pid: int
    since: str
    machine: str
    began: str

    @property
    def seen_dead(self) -> bool:
        """Whether the process ran on this machine and has ended."""
        if not self.machine or self.machine != _machine():
            return False
        return not psutil.pid_exists(self.pid) or _beginning(self.pid) not in ("", self.began)


class FolderLock:
    """This process's claim to the folder ``out``.

    Attributes:
        url: of the claim. While this object exists, the claim holds.
    """

    def __init__(self, out: Url):
        self._out = out
        self._store: Store = store_of(out)
        self._claims = out / ".kpdata" / "claims"
        self.url = self._claims / f"{uuid.uuid4().hex}.json"
        self._content = msgspec.json.encode(_this_process())
        self._renewed = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Claim the folder.

        Raises:
            DatasetError: another conversion holds it; the message says which, and since when.
            StoreError: the store failed, or does not list what was just written.
        """
        for attempt in range(_TRIES):
            time.sleep(random.uniform(0, _LONGEST_PAUSE) if attempt else 0)
            self._renew()
            if not (others := list(self._others())):
                return
            self._store.delete([self.url])
        raise DatasetError(
            f"{self._out}: another conversion is writing to this folder: {_who(*others[0])}. Wait "
            f"for it, or choose another `out`. If it is dead, its claim ends {DEAD_AFTER:.0f} s "
            "after its last sign of life"
        )

    def _renew(self) -> None:
        began = time.monotonic()
        self._store.put(self.url, self._content)
        self._renewed = began

    def _others(self) -> Iterator[tuple[Claim, float]]:
        """Yield (claim, seconds since its renewal) for every other live claim; remove dead ones."""
        found = {self._claims / one.name: one for one in self._store.list(self._claims)}
        mine = found.pop(self.url, None)
        if mine is None:
            raise StoreError(f"{self.url} was written, but is not listed: no store to work on")
        for url, one in found.items():
            claim, age = self._read(url), mine.modified - one.modified
            if claim is None:
                continue
            if age > DEAD_AFTER or claim.seen_dead:
                self._store.delete([url])
            else:
                yield claim, max(0.0, age)

    def _read(self, url: Url) -> Claim | None:
        try:
            return msgspec.json.decode(self._store.read(url, _MAX_CLAIM_BYTES)[1], type=Claim)
        except MissingObject:  # its holder has just ended
            return None
        except msgspec.MsgspecError:
            return Claim("an unknown host", 0, "an unknown time", "", "")

    def keep(self) -> None:
        """Renew the claim from a thread, until it is released or removed, or renewals fail."""
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            with contextlib.suppress(StoreError):  # there is time to try again
                if self._store.find(self.url) is None or self._overdue:
                    return
                self._renew()
                if self._overdue and any(self._others()):
                    self._store.delete([self.url])  # others had removed it: undo this renewal
                    return

    @property
    def _overdue(self) -> bool:
        """Whether others may remove it soon: a renewal could then restore a removed claim."""
        return time.monotonic() - self._renewed > DEAD_AFTER / 2

    def release(self) -> None:
        """Remove the claim."""
        self._ended.set()
        if self._thread:
            self._thread.join()  # or the thread could write the claim again
        self._store.delete([self.url])


def require_claim(url: Url) -> None:
    """Raise JobError unless the claim exists: without it, another conversion may be writing."""
    if store_of(url).find(url) is None:
        raise JobError(
            f"{url} is gone: another conversion has taken this one for dead, and its folder over"
        )


def _this_process() -> Claim:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    pid = os.getpid()
    return Claim(socket.gethostname(), pid, since, _machine(), _beginning(pid))


def _who(claim: Claim, age: float) -> str:
    seen = f"last sign of life {age:.0f} s ago"
    return f"process {claim.pid} on {claim.host}, since {claim.since}, {seen}"


def _machine() -> str:
    """Identifies this boot and this process id namespace (a container has its own); Linux only."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _beginning(pid: int) -> str:
    """Start time of a process in ticks since the boot; empty where it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""
