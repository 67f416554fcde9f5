"""One conversion at a time below a folder of a store, though its holder may die at any moment.

Whoever wants the folder writes a claim, an object of its own, and then lists the claims. It holds
the folder if it sees no living claim but its own. Since a listing shows all that was written before
(S3, Google Cloud Storage and HDFS promise this, and so do the S3-compatible stores), of two that
come together at least one sees the other: two never hold the folder. Both may step back; they try
again after a while of random length. No conditional write is needed, which many stores ignore in
silence, and every request may be repeated.

A holder renews its claim. One that was not renewed for a minute, by the store's own clock, is dead;
so is, at once, one of a process of this machine that is gone. A holder that could not renew its
claim in time no longer does, and whoever finds its claim gone stops: a worker before it uploads a
shard, the driver before it seals.
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
    """Who wants a folder.

    Attributes:
        host, pid, since: for a person to read.
        machine: names this boot of this machine and its space of process ids; empty if unknown.
        began: when the process did, in the kernel's own time, to distinguish it from a later one
            with the same id.
    """

    host: str
    pid: int
    since: str
    machine: str
    began: str

    @property
    def seen_dead(self) -> bool:
        """Whether its process ran on this machine and has ended."""
        if not self.machine or self.machine != _machine():
            return False
        return not psutil.pid_exists(self.pid) or _beginning(self.pid) not in ("", self.began)


class FolderLock:
    """This process's claim to the folder ``out``.

    Attributes:
        url: of the claim: as long as an object is there, the claim was not taken away.
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
        """Claims of the living, and the seconds since each was renewed; the others are removed."""
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
        """Renew the claim from a thread, until it is released, lost, or too old to be sure of."""
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            with contextlib.suppress(StoreError):  # there is time to try again
                if self._store.find(self.url) is None or self._overdue:
                    return
                self._renew()
                if self._overdue and any(self._others()):
                    self._store.delete([self.url])  # it was taken away, and brought back by this
                    return

    @property
    def _overdue(self) -> bool:
        """Whether others may remove it at any moment: renewing it could then restore it."""
        return time.monotonic() - self._renewed > DEAD_AFTER / 2

    def release(self) -> None:
        """Remove the claim."""
        self._ended.set()
        if self._thread:
            self._thread.join()  # it could write the claim again
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
    """Names this boot and, of a container, its own space of process ids; Linux only."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _beginning(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty where that is not to be seen."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""
