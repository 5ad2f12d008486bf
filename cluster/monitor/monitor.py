"""A Prometheus, an Alertmanager, a page of the dashboards and, where it is installed, a Grafana on this machine.

They outlive the command.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from heliostat.cluster.folders import locked
from heliostat.cluster.monitor import parts, settings
from heliostat.cluster.monitor.parts import Part
from heliostat.cluster.monitor.services import Service, services
from heliostat.cluster.monitor.settings import Settings, folder
from heliostat.cluster.session.discovery import forget_ended
from heliostat.cluster.session.interrupts import interrupts_ignored, signals_as_interrupt
from heliostat.infra.errors import ResourceError

RELOADING = ("alertmanager", "prometheus")
"""Parts that read their files again at SIGHUP; it ends the others."""


def up(given: Settings) -> tuple[list[Part], list[str]]:
    """Starts what does not run yet, and lets what runs read its configuration again.

    Returns all parts, and the names of those that were started. If one fails, those that were started are ended.

    Raises ResourceError for a program that is missing, too old or does not start, a port in use, and a part that runs
    with other options; ConfigError for a file that cannot be used.
    """
    with locked(folder() / "lock"), signals_as_interrupt():
        forget_ended()
        wanted = settings.merged(given)
        wanted_services = services(wanted)
        _check_running(wanted_services)
        started: list[Part] = []
        try:
            found = [_run(one, started) for one in wanted_services]
            settings.keep(wanted)
        except BaseException:
            with interrupts_ignored():
                for part in reversed(started):
                    parts.end(part)
            raise
        return found, [part.name for part in started]


def down() -> list[str]:
    """Ends all parts; returns the titles of those that ran. Their data and logs stay."""
    with locked(folder() / "lock"), interrupts_ignored():
        found = [part for name in reversed(parts.NAMES) if (part := parts.known(name))]
        ended = [part.title for part in found if parts.end(part)]
        settings.forget()
        return ended


def _check_running(wanted: list[Service]) -> None:
    for service in wanted:
        part = parts.running(service.name)
        if part and (part.url, part.arguments) != (service.url, service.arguments):
            raise ResourceError(
                f"{part.title}: runs at {part.url} with other options; heliostat monitor down ends it, then start anew"
            )


def _run(service: Service, started: list[Part]) -> Part:
    """The part, once it answers; it is added to `started` if it did not run."""
    part = parts.running(service.name)
    if part is None:
        part = parts.start(service)
        started.append(part)
        parts.wait(part)
    else:
        parts.wait(part)
        if part.name in RELOADING:
            with suppress(ProcessLookupError):
                os.kill(part.pid, signal.SIGHUP)
    return part
