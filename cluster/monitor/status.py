"""How the parts of the monitor are, and what Prometheus sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heliostat.cluster.monitor import parts
from heliostat.cluster.monitor.parts import Part

REQUIRED = ("alertmanager", "prometheus", "page")


@dataclass(frozen=True)
class PartStatus:
    """A part: `state` is `runs`, `does not answer`, `ended` or `not started`."""

    name: str
    state: str
    part: Part | None


@dataclass(frozen=True)
class Seen:
    """What Prometheus sees."""

    targets_up: int
    targets: int
    down: list[str]
    """`address: error` of each target that is down."""
    firing: list[dict[str, Any]]
    """Alerts that fire, as Prometheus gives them: labels, annotations, activeAt."""


def status() -> list[PartStatus]:
    """The state of each part; Grafana and the exporter only if they were started."""
    found = [(name, parts.known(name)) for name in parts.NAMES]
    return [PartStatus(name, _state(part), part) for name, part in found if part or name in REQUIRED]


def seen(prometheus: Part) -> Seen:
    """The targets of Prometheus and its firing alerts; raises OSError or ValueError if it does not answer."""
    targets = parts.get(f"{prometheus.url}/api/v1/targets?state=active")["data"]["activeTargets"]
    alerts = parts.get(f"{prometheus.url}/api/v1/alerts")["data"]["alerts"]
    down = [one for one in targets if one["health"] != "up"]
    return Seen(
        targets_up=len(targets) - len(down),
        targets=len(targets),
        down=[f"{one['scrapeUrl']}: {one['lastError'] or 'not scraped yet'}" for one in down],
        firing=[one for one in alerts if one["state"] == "firing"],
    )


def _state(part: Part | None) -> str:
    if part is None:
        return "not started"
    if not part.is_running:
        return "ended"
    return "runs" if part.answers else "does not answer"
