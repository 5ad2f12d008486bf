"""Background processes of the monitor: started, found again by process ID and start time, ended; never by name."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from heliostat.cluster.folders import LOOPBACK, why_taken
from heliostat.cluster.monitor.services import Service
from heliostat.cluster.monitor.settings import folder
from heliostat.cluster.session import processes
from heliostat.infra.errors import ResourceError

START_SECONDS = 60.0
STOP_SECONDS = 20.0
NAMES = ("alertmanager", "exporter", "prometheus", "page", "grafana")
LOG_LINES = 3
_ANSWER_SECONDS = 5.0
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # the loopback is behind no proxy


@dataclass(frozen=True)
class Part:
    """A process that was started."""

    name: str
    title: str
    url: str
    ready: str
    pid: int
    started_ticks: int
    """Start time of the process in the system's unit; distinguishes it from a later process with the same ID."""
    started: str
    """ISO 8601, UTC."""
    arguments: list[str]

    @property
    def is_running(self) -> bool:
        """Whether the process is alive, and the one that was started."""
        return processes.started_at(self.pid) == self.started_ticks

    @property
    def answers(self) -> bool:
        """Whether it answers at its address."""
        try:
            with _open(self.url + self.ready, timeout=_ANSWER_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def get(url: str) -> Any:
    """The JSON at a URL of the loopback; raises OSError or ValueError."""
    with _open(url, timeout=_ANSWER_SECONDS) as answer:
        return json.load(answer)


def known(name: str) -> Part | None:
    """The part as it was started last, whether it still runs or not; None if it never was."""
    try:
        return Part(**json.loads(_record(name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def running(name: str) -> Part | None:
    """The part if it runs."""
    part = known(name)
    return part if part and part.is_running else None


def start(service: Service) -> Part:
    """Starts the process and records it, and returns without waiting for it.

    Raises ResourceError if the program is missing or too old, or its port is in use.
    """
    program = service.program()
    _check_port(service)
    environment = {**os.environ, **service.environment}
    environment.pop(processes.MARK, None)  # it is no part of a Ray, and is not ended with one
    with _log(service.name).open("wb") as log:
        process = subprocess.Popen(
            [program, *service.arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=folder(),
        )  # fmt: skip
    part = Part(
        service.name, service.title, service.url, service.ready, process.pid, processes.started_at(process.pid) or 0,
        datetime.now(timezone.utc).isoformat(timespec="seconds"), service.arguments,
    )  # fmt: skip
    _record(service.name).write_text(json.dumps(asdict(part), indent=2) + "\n", encoding="utf-8")
    return part


def wait(part: Part) -> None:
    """Returns once the part answers; raises ResourceError with the end of its log if it ends or takes too long."""
    until = time.monotonic() + START_SECONDS
    while part.is_running and time.monotonic() < until:
        if part.answers:
            return
        time.sleep(0.1)
    log = _log(part.name)
    why = f"not ready in {START_SECONDS:g} s" if part.is_running else "ended as it was started"
    raise ResourceError(f"{part.title}: {why} ({_end_of(log)}); all it said is in {log}")


def end(part: Part) -> bool:
    """Ends the process if it is the one that was started, and forgets it; returns whether it ran."""
    ran = part.is_running
    if ran:
        with suppress(psutil.Error):
            process = psutil.Process(part.pid)
            family = [process, *process.children(recursive=True)]
            process.terminate()
            processes.end(family, seconds=STOP_SECONDS)
    _record(part.name).unlink(missing_ok=True)
    return ran


def _check_port(service: Service) -> None:
    if reason := why_taken(LOOPBACK, service.port):
        raise ResourceError(
            f"{service.title}: port {service.port} of {LOOPBACK} cannot be had ({reason}); "
            f"{service.option} gives it another one"
        )


def _end_of(log: Path) -> str:
    with log.open(encoding="utf-8", errors="replace") as lines:
        last = deque((line.strip() for line in lines if line.strip()), maxlen=LOG_LINES)
    return " | ".join(last) or "it said nothing"


def _record(name: str) -> Path:
    return folder() / f"{name}.json"


def _log(name: str) -> Path:
    return folder() / f"{name}.log"
