"""A detached Ray on this machine, which outlives the command that starts it: for an endpoint that stays up.

Its record is stored in the user's Heliostat folder. Later commands find it there and join it; `stop_detached` stops it
with all its processes, and no others.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.environment import applied, local_environment
from heliostat.cluster.folders import LOOPBACK, free_ports, home, locked, ray_folder
from heliostat.cluster.session import processes
from heliostat.cluster.session.discovery import forget_ended
from heliostat.cluster.session.resources import local_cpus
from heliostat.infra.errors import ResourceError

START_SECONDS = 90.0
STOP_SECONDS = 20.0
DASHBOARD_PORT = 8265


@dataclass(frozen=True)
class ClusterRecord:
    """A detached Ray: its addresses, and how to identify its processes."""

    address: str
    """`host:port` to join it at."""
    dashboard_url: str
    """`http://host:port`: dashboard, job submission, state."""
    pid: int
    started_ticks: int
    """Start time of the process in the system's unit; distinguishes it from a later process with the same ID."""
    started: str
    """The start time for display: ISO 8601, UTC."""
    mark: str
    """Value of the environment variable that identifies its processes."""
    logs: str
    """Log folder."""


def start_detached(config: ClusterConfig) -> ClusterRecord:
    """Starts a detached Ray, or returns the running one; takes about ten seconds.

    Raises ResourceError with the last line of its log if it does not start.
    """
    with _one_at_a_time():
        return find_detached() or _start(config)


def find_detached() -> ClusterRecord | None:
    """The detached Ray of this user, or None; deletes the record of one that has ended."""
    record = _read()
    if record is None:
        return None
    if processes.started_at(record.pid) == record.started_ticks:
        return record
    _clear(record)
    return None


def stop_detached() -> bool:
    """Stops the detached Ray and all its processes, within about twenty seconds; returns False if there is none."""
    with _one_at_a_time():
        record = find_detached()
        if record is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
        _clear(record, patience_seconds=STOP_SECONDS)
        return True


def _clear(record: ClusterRecord, patience_seconds: float = 0) -> None:
    processes.end(processes.family(record.mark), seconds=patience_seconds)
    processes.end(processes.family(record.mark), seconds=0)  # again, for those started while the others ended
    forget_ended()
    _file().unlink(missing_ok=True)


def _file() -> Path:
    return home() / "cluster.json"


def _read() -> ClusterRecord | None:
    try:
        return ClusterRecord(**json.loads(_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(record: ClusterRecord) -> None:
    part = _file().with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    part.replace(_file())


def _one_at_a_time() -> AbstractContextManager[None]:
    """A lock, so that two commands at once do not start two."""
    return locked(home() / "cluster.lock")


def _start(config: ClusterConfig) -> ClusterRecord:
    mark = f"detached-{uuid4().hex}"
    log = home() / "cluster.log"
    port = _dashboard_port()
    found = ray_folder() / "ray_current_cluster"
    found.unlink(missing_ok=True)
    # Ray drains a stopping node for 30 s, which only makes sense in clusters with another node.
    extra = {processes.MARK: mark, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    with applied({**local_environment(), **extra}), log.open("wb") as output:
        process = subprocess.Popen(
            _command(config, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = _wait(process, found, log)
        record = _record(process.pid, mark, address, port)
        _write(record)
        return record
    except BaseException:
        process.terminate()
        processes.end(processes.family(mark), seconds=STOP_SECONDS)
        raise


def _command(config: ClusterConfig, dashboard_port: int) -> list[str]:
    options = {
        "node-ip-address": LOOPBACK,
        "port": 0,
        "ray-client-server-port": free_ports(1)[0],  # Ray cannot switch it off
        "dashboard-host": LOOPBACK,
        "dashboard-port": dashboard_port,
        "dashboard-agent-listen-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": config.num_cpus or local_cpus(),
        "temp-dir": ray_folder(),
        **({} if config.num_gpus is None else {"num-gpus": config.num_gpus}),
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        *flags,
    ]


def _dashboard_port() -> int:
    """Ray's default port if it is free, because users try it first."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, DASHBOARD_PORT))
            return DASHBOARD_PORT
        except OSError:
            return free_ports(1)[0]


def _wait(process: subprocess.Popen[bytes], found: Path, log: Path) -> str:
    """Waits until Ray writes its address to the file `found`; returns it."""
    until = time.monotonic() + START_SECONDS
    while not found.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise ResourceError(f"Ray on this machine: did not come up ({_last_line(log)}); all it said is in {log}")
        time.sleep(0.1)
    return found.read_text(encoding="utf-8").strip()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _record(pid: int, mark: str, address: str, dashboard_port: int) -> ClusterRecord:
    return ClusterRecord(
        address=address,
        dashboard_url=f"http://{LOOPBACK}:{dashboard_port}",
        pid=pid,
        started_ticks=processes.started_at(pid) or 0,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        mark=mark,
        logs=str((ray_folder() / "session_latest" / "logs").resolve()),
    )
