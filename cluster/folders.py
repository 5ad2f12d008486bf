"""Private folders of the user on this machine, file locks, and free ports."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from heliostat.infra.errors import ResourceError, StorageError

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Above the ports of Ray's workers, and below the ephemeral ports of the system."""


def home() -> Path:
    """Folder for state that outlives a command: HELIOSTAT_HOME, else `~/.heliostat`; private to the user."""
    return private(Path(os.environ.get("HELIOSTAT_HOME") or Path.home() / ".heliostat"))


def cache_folder() -> Path:
    """Folder for what can be recreated (downloads, encoded data): HELIOSTAT_CACHE, or `~/.cache/heliostat`."""
    return Path(os.environ.get("HELIOSTAT_CACHE") or "~/.cache/heliostat").expanduser()


def ray_folder() -> Path:
    """Ray's session folder: sockets, logs and spilled objects.

    Anyone who reaches Ray's sockets can use the cluster without a token, and Ray opens its folders to all users, so
    this one is inside a folder that only the user can enter. RAY_TMPDIR moves it.
    """
    return user_folder(Path(os.environ.get("RAY_TMPDIR") or "/tmp")) / "ray"


def user_folder(base: Path) -> Path:
    """The user's private folder in a shared one."""
    return private(base / f"heliostat-{os.getuid()}")


def private(folder: Path) -> Path:
    """Creates the folder if needed and makes it private; raises ResourceError if it belongs to another user."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ResourceError(f"{folder}: belongs to another user; set RAY_TMPDIR to a folder of your own")
        folder.chmod(0o700)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be used ({error.strerror}); a folder of your own is needed") from error
    return folder


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds an exclusive lock on `file`, which ends with the process; its folder must exist."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def why_taken(host: str, port: int) -> str | None:
    """The system's reason why nothing can listen on this address now; None if something can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def free_ports(count: int, among: Sequence[int] = PORTS) -> list[int]:
    """`count` different free ports of the loopback; each stays bound until the last is found.

    Raises ResourceError if there are too few.
    """
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(among, len(among)):
            if len(found) == count:
                return found
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind((LOOPBACK, port))
                found.append(port)
    raise ResourceError(f"{count} free ports of {LOOPBACK} needed, {len(found)} found; end what listens on the others")


def path_from_our_python() -> str:
    """PATH with this Python's folder first: so a job's `python` is this one, and DeepSpeed finds pip's `ninja`."""
    own = str(Path(sys.executable).parent)
    others = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    return os.pathsep.join([own, *others])


def fill(folder: Path, make: Callable[[Path], object]) -> Path:
    """Returns `folder`; if it does not exist, `make` creates its content, atomically and in one process at a time.

    `make` gets an empty staging folder, which is renamed to `folder` at the end; other processes wait for it.
    """
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock"):
            if not folder.exists():
                _make(folder, make)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{folder}: cannot be made: {reason}; HELIOSTAT_CACHE may name another place") from error
    return folder


def _make(folder: Path, make: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as scratch:
        staging = Path(scratch) / "files"
        staging.mkdir()
        make(staging)
        staging.rename(folder)
