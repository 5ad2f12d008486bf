"""A lease in storage: one process at a time uses something, and another one is told which.

A lease is a folder of numbered objects, `000001.json`, `000002.json`, …; the highest is the lease, and names its
holder. A new holder creates the next number, which storage grants to one process only. The holder renews its object.
One that is not renewed for EXPIRY_SECONDS is that of a process that was killed; one on the same machine whose process
is gone need not be waited for. Clocks of machines are not compared: who wants a lease watches whether it is renewed.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from heliostat.infra import log
from heliostat.infra.errors import NotFoundError, ResourceError, StorageError
from heliostat.infra.storage.base import Store

RENEW_SECONDS = 5.0
EXPIRY_SECONDS = 30.0
"""Six renewals; longer than a holder's storage usually takes to answer again."""
POLL_SECONDS = 1.0
_log = log.get(__name__)


@dataclass(frozen=True)
class Holder:
    """The process that has a lease."""

    host: str
    machine: str
    """The boot and the container that the process is of, which its number counts in; empty where nothing tells."""
    pid: int
    started: str
    """When the process began, in the system's own count; tells it from a later one with its number."""
    user: str
    since: str
    renewals: int = 0
    is_over: bool = False

    def __str__(self) -> str:
        """Who it is, for an error message."""
        return f"process {self.pid} of {self.user} on {self.host}, since {self.since}"


@contextmanager
def leased(store: Store, prefix: str, what: str, lost: Callable[[], None]) -> Iterator[None]:
    """Holds the lease `prefix` during the block; `lost` is called, in a thread, if another process has taken it over.

    Waits up to EXPIRY_SECONDS for a holder on another machine that may be dead. Raises ResourceError, which names the
    holder of `what`, if there is one that lives.
    """
    me = _this_process()
    key = _take(store, prefix, what, me)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, prefix, key, me, done, lost), name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join(timeout=RENEW_SECONDS)
        with suppress(StorageError):  # then it expires
            if _newest(store, prefix) == key:
                _write(store, key, replace(me, is_over=True))


def _take(store: Store, prefix: str, what: str, me: Holder) -> str:
    """Creates the next object of the lease, and returns its key."""
    while True:
        newest = _newest(store, prefix)
        if newest:
            _wait_for_end(store, newest, what, me)
        number = int(newest.rpartition("/")[2].removesuffix(".json")) if newest else 0
        key = f"{prefix}/{number + 1:06d}.json"
        try:
            store.write_bytes(key, _bytes(me), if_absent=True)
        except StorageError:
            if not store.exists(key):
                raise
            continue  # another process was faster, and is looked at in the next turn
        if _newest(store, prefix) != key:  # a higher one was made and this number freed since the folder was listed
            store.delete(key)
            continue
        if newest:
            store.delete(newest)
        return key


def _wait_for_end(store: Store, key: str, what: str, me: Holder) -> None:
    """Returns once the holder has given up its lease or is dead; raises ResourceError if it lives."""
    first = _read(store, key)
    if first is None or first.is_over or _is_gone(first, me):
        return
    refusal = ResourceError(f"{what} is in use by {first}; it can go on when that has ended")
    if _is_here(first, me):
        raise refusal
    _log.warning("%s was in use by %s; waiting %.0f s for a sign of life", what, first, EXPIRY_SECONDS)
    until = time.monotonic() + EXPIRY_SECONDS
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        now = _read(store, key)
        if now is None or now.is_over:
            return
        if now.renewals != first.renewals:
            raise refusal


def _renew(store: Store, prefix: str, key: str, me: Holder, done: threading.Event, lost: Callable[[], None]) -> None:
    renewals = 0
    while not done.wait(RENEW_SECONDS):
        renewals += 1
        try:
            if _newest(store, prefix) not in (key, None):
                _log.error("%s: another process has taken over, since this one gave no sign of life", prefix)
                lost()
                return
            _write(store, key, replace(me, renewals=renewals))
        except StorageError as error:
            _log.warning("the lease %s cannot be renewed: %s", prefix, error)


def _newest(store: Store, prefix: str) -> str | None:
    """The key of the lease; None if nobody ever had it."""
    return max((entry.key for entry in store.list(prefix)), default=None)


def _read(store: Store, key: str) -> Holder | None:
    """The holder; None if the object is gone, or says nothing that can be read."""
    try:
        return Holder(**json.loads(store.read_bytes(key)))
    except (NotFoundError, ValueError, TypeError):
        return None


def _write(store: Store, key: str, holder: Holder) -> None:
    store.write_bytes(key, _bytes(holder))


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _this_process() -> Holder:
    since = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    _, started = _process(os.getpid())
    return Holder(socket.gethostname(), _machine(), os.getpid(), started, getpass.getuser(), since)


def _machine() -> str:
    """Names the boot of this machine and its container (by its process numbers); empty except on Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, str]:
    """(state, start in ticks since the boot) of a process of this machine; empty if there is none, or not on Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _is_here(holder: Holder, me: Holder) -> bool:
    return me.machine != "" and (holder.host, holder.machine) == (me.host, me.machine)


def _is_gone(holder: Holder, me: Holder) -> bool:
    """Whether it was a process of this machine that has ended."""
    state, started = _process(holder.pid)
    return _is_here(holder, me) and (started != holder.started or state in ("Z", "X"))
