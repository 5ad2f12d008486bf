"""The operating-system processes of a Ray that Heliostat started, found again whatever became of their parents.

Each such Ray is started with a mark of its own in its environment, which its processes hand down. HAProxy, for one,
survives the actor that started it; the mark still tells whose it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import psutil  # type: ignore[import-untyped]

from heliostat.infra.log import get

log = get(__name__)

MARK = "HELIOSTAT_RAY"
_KILL_SECONDS = 5.0


def new_mark() -> str:
    """A mark that names this process, so that others can tell when it is gone."""
    return f"{os.getpid()}-{started_at(os.getpid())}-{uuid4().hex[:8]}"


def started_at(pid: int) -> int | None:
    """When the process started; None where there is no such process, or only its exit status.

    With the process ID it names a process for good: an ID alone is given away again. The unit is the system's: on
    Linux clock ticks since boot, as a time of day would move when the clock is set.
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
    """The processes with that mark, and their children: Ray's agents overwrite their environment with their title."""
    marked = [process for process, found in _marks() if found == mark]
    return list({child.pid: child for process in marked for child in (process, *_children(process))}.values())


def end(processes: list[psutil.Process], seconds: float = 5) -> int:
    """Waits for the processes to end, then kills those that did not; returns how many it had to kill."""
    alive = psutil.wait_procs([process for process in processes if process.pid != os.getpid()], timeout=seconds)[1]
    for process in alive:
        log.debug("process %d (%s) outlived its Ray and is killed", process.pid, process)
        _kill(process)
    psutil.wait_procs(alive, timeout=_KILL_SECONDS)
    return len(alive)


def end_orphans() -> int:
    """Kills what is left of Rays whose command was itself killed; returns how many processes that were."""
    orphans = [process for process, mark in _marks() if _is_orphaned(mark)]
    return end(orphans, seconds=0)


def _is_orphaned(mark: str) -> bool:
    pid, _, rest = mark.partition("-")
    return pid.isdigit() and rest.split("-")[0] != str(started_at(int(pid)))


def _marks() -> list[tuple[psutil.Process, str]]:
    """The marked processes of this user with their marks, this process left out."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
            if mark and process.pid != os.getpid() and _same_container(process.pid):
                found.append((process, mark))
        except (psutil.Error, OSError):  # another user's, or gone
            continue
    return found


def _same_container(pid: int) -> bool:
    """Whether process IDs mean the same to that process: one in a container has a mark with IDs of its own."""
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
