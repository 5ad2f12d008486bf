"""Grafana's classic dashboard JSON, as little of it as our panels need. Pure functions of data classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 42
COLUMNS, HEIGHT = 24, 8
"""Of Grafana's grid, and of a panel in it."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
"""Whatever Prometheus is chosen at the top, so that a dashboard works in every Grafana."""
ALL = {"text": "All", "value": "$__all"}
Steps = tuple[tuple[str, float | None], ...]
"""Colours of values, each from this value on; the first from None."""
NEUTRAL: Steps = (("blue", None),)
FAULTS: Steps = (("green", None), ("orange", 0.001), ("red", 0.01))


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and the name of each of its series, with labels as `{{run}}`."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel. `unit` is Grafana's id of it, such as `s`, `bytes`, `reqps`, `percentunit`."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    kind: Literal["timeseries", "stat"] = "timeseries"
    least: float | None = 0
    most: float | None = None
    decimals: int | None = None
    steps: Steps = NEUTRAL
    """Of a stat."""
    is_stacked: bool = False
    no_value: str | None = None


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: all values of `label` in the series of `selector`."""

    label: str
    selector: str


@dataclass(frozen=True)
class Dashboard:
    """Panels below titles of rows. `uid` is in its address, and stays."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def to_json(dashboard: Dashboard) -> dict[str, Any]:
    """The file that Grafana imports, with links to all of our dashboards."""
    return {
        "title": dashboard.title,
        "uid": dashboard.uid,
        "description": dashboard.description,
        "tags": ["heliostat", "ray"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "links": [_links()],
        "annotations": {"list": []},
        "templating": {"list": [_source(), *map(_variable, dashboard.variables)]},
        "panels": _placed(dashboard),
    }


def _links() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "Heliostat",
        "tags": ["heliostat"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "current": {},
        "options": [],
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
    }


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.selector}, {variable.label})"
    return {
        "name": variable.label,
        "label": variable.label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": variable.label, "qryType": 1},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": ALL,
        "options": [],
        "regex": "",
        "hide": 0,
    }


def _placed(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Rows and panels, from left to right and from top to bottom."""
    found: list[dict[str, Any]] = []
    top = 0
    for title, panels in dashboard.rows:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        found.append(
            {"type": "row", "id": len(found) + 1, "title": title, "collapsed": False, "gridPos": place, "panels": []}
        )
        left, top = 0, top + 1
        for panel in panels:
            if left + panel.width > COLUMNS:
                left, top = 0, top + HEIGHT
            place = {"x": left, "y": top, "w": panel.width, "h": HEIGHT}
            found.append({"id": len(found) + 1, "gridPos": place, **_panel(panel)})
            left += panel.width
        top += HEIGHT
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    limits = {"min": panel.least, "max": panel.most, "decimals": panel.decimals, "noValue": panel.no_value}
    defaults = {"unit": panel.unit, **{key: value for key, value in limits.items() if value is not None}}
    style, options = _stat(panel) if panel.kind == "stat" else _time_series(panel)
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {**defaults, **style}, "overrides": []},
        "options": options,
        "targets": [_target(at, query) for at, query in enumerate(panel.queries)],
    }


def _stat(panel: Panel) -> tuple[dict[str, Any], dict[str, Any]]:
    steps = [{"color": colour, "value": value} for colour, value in panel.steps]
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}, {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "auto",
        "justifyMode": "auto",
        "orientation": "auto",
    }


def _time_series(panel: Panel) -> tuple[dict[str, Any], dict[str, Any]]:
    style = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 20 if panel.is_stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
    }
    legend = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}
    return {"color": {"mode": "palette-classic"}, "custom": style}, {
        "legend": legend,
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _target(at: int, query: Query) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + at),
        "datasource": SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "range": True,
        "instant": False,
        "editorMode": "code",
    }
