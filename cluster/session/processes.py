"""Finds and ends the operating-system processes of a Ray that Heliostat started.

Each such Ray is started with a unique mark in its environment, which its processes inherit. HAProxy, for one, outlives
the actor that started it; the mark still identifies it.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

import psutil  # type: ignore[import-untyped]

from heliostat.infra.log import get

log = get(__name__)

MARK = "HELIOSTAT_RAY"
_KILL_SECONDS = 5.0


def new_process_mark() -> str:
    """A mark that identifies this process, so that others can tell whether it is still running."""
    return f"{os.getpid()}-{started_at(os.getpid())}-{uuid4().hex[:8]}"


def started_at(pid: int) -> int | None:
    """Start time of the process; None if there is no such process, or it is a zombie.

    Together with the process ID it is unique: IDs alone are reused. The unit depends on the system: clock ticks since
    boot on Linux, because wall-clock times shift when the clock is set.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except FileNotFoundError:
        return None if Path("/proc/stat").exists() else _started_at_by_date(pid)
    except ProcessLookupError:
        return None


def _started_at_by_date(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def family(mark: str) -> list[psutil.Process]:
    """The processes with this mark, and their children: Ray's agents overwrite their environment with their title."""
    marked = [process for process, found in _marks() if found == mark]
    return list({child.pid: child for process in marked for child in (process, *_children(process))}.values())


def in_sessions(leaders: Collection[int]) -> list[psutil.Process]:
    """The processes of the sessions that these processes have begun, also where those have ended."""
    return [process for process in psutil.process_iter() if _session(process.pid) in leaders]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:  # already gone, or another user's
        return None


def end(processes: list[psutil.Process], seconds: float = 5) -> int:
    """Waits for the processes to end, then kills the rest; returns how many were killed."""
    alive = psutil.wait_procs([process for process in processes if process.pid != os.getpid()], timeout=seconds)[1]
    for process in alive:
        log.debug("process %d (%s) outlived its Ray and is killed", process.pid, process)
        _kill(process)
    psutil.wait_procs(alive, timeout=_KILL_SECONDS)
    return len(alive)


def end_orphans() -> int:
    """Kills processes of Rays whose command was killed; returns how many there were."""
    orphans = [process for process, mark in _marks() if _is_orphaned(mark)]
    return end(orphans, seconds=0)


def _is_orphaned(mark: str) -> bool:
    pid, _, rest = mark.partition("-")
    return pid.isdigit() and rest.split("-")[0] != str(started_at(int(pid)))


def _marks() -> list[tuple[psutil.Process, str]]:
    """The marked processes of this user with their marks, without this process."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
            if mark and process.pid != os.getpid() and _same_container(process.pid):
                found.append((process, mark))
        except (psutil.Error, OSError):  # another user's, or already gone
            continue
    return found


def _same_container(pid: int) -> bool:
    """Whether a process is in our PID namespace: marks from other containers contain their own process IDs."""
    ours, theirs = Path("/proc/self/ns/pid"), Path(f"/proc/{pid}/ns/pid")
    return not ours.exists() or ours.readlink() == theirs.readlink()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        log.debug("process %d is gone already", process.pid)
