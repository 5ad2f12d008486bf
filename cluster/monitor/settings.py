"""What the monitor was asked for: kept until it is ended, so that a second `up` need not say it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from heliostat.cluster.folders import home, private
from heliostat.infra.errors import ConfigError

PORTS = {
    "prometheus_port": 9090, "alertmanager_port": 9093, "exporter_port": 9095, "page_port": 3100, "grafana_port": 3000,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Options of `heliostat monitor up`; None is what was asked for before, else the default."""

    prometheus_port: int | None = None
    alertmanager_port: int | None = None
    grafana_port: int | None = None
    page_port: int | None = None
    alertmanager_config: str | None = None
    """A file of the user's own in place of ours, which sends alerts nowhere."""
    rules: list[str] | None = None
    """Files with rules of the user's own, beside ours."""
    grafana: bool | None = None
    """Whether Grafana is started where it is installed."""
    exporter_port: int | None = None
    storage: str | None = None
    """Of which the exporter tells; none is started where left out."""
    endpoint_url: str | None = None
    """Of that storage, where its spec names one."""

    def port(self, name: str) -> int:
        """The port of `prometheus`, `alertmanager`, `exporter`, `page` or `grafana`."""
        return getattr(self, f"{name}_port") or PORTS[f"{name}_port"]


def folder() -> Path:
    """The monitor's own: settings, records of its processes, data and logs."""
    return private(home() / "monitor")


def merged(given: Settings) -> Settings:
    """What is given over what was asked for before; raises ConfigError for a file that is not there."""
    settings = replace(_read(), **{name: value for name, value in asdict(given).items() if value is not None})
    named = [("--rules", one) for one in settings.rules or []]
    named += [("--alertmanager-config", settings.alertmanager_config)] if settings.alertmanager_config else []
    for option, file in named:
        if not Path(file).is_file():
            raise ConfigError(f"{option}: {file}: no such file")
    return settings


def keep(settings: Settings) -> None:
    """Stores the settings."""
    _file().write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")


def forget() -> None:
    """Deletes the settings."""
    _file().unlink(missing_ok=True)


def _file() -> Path:
    return folder() / "settings.json"


def _read() -> Settings:
    try:
        return Settings(**json.loads(_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Settings()
