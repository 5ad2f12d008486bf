"""The dashboards, as far as can be told without a Prometheus; tests/integration/test_dashboard.py asks one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.infra.dashboards.build import files
from heliostat.infra.metrics.catalogue import CATALOGUE

FOLDER = Path(__file__).resolve().parents[3] / "infra" / "grafana"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
OUR_NAME = re.compile(r"\b(?:ray_)?heliostat_[a-z0-9_]+")
EXPOSED = {
    f"{metric.exposed}{suffix}": metric
    for metric in CATALOGUE
    for suffix in (("_bucket", "_count") if metric.kind == "histogram" else ("",))
}
"""What Prometheus sees of each metric of ours. Ray makes up the sum of a histogram, so no query may use it."""
COUNTS = {f"ray_heliostat_train_{what}_total" for what in ("steps", "starts", "restarts")}
"""Counters of a run, of which the number so far is shown."""
TOTALS = {metric.total.name: metric.name for metric in CATALOGUE if metric.kind == "histogram"}

each_dashboard = pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)


def load(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def panels(file: Path) -> list[dict[str, Any]]:
    return [panel for panel in load(file)["panels"] if panel["type"] != "row"]


def queries(file: Path) -> list[str]:
    return [target["expr"] for panel in panels(file) for target in panel["targets"]]


def test_the_files_are_those_of_the_builders() -> None:
    found = {file.name: file.read_text(encoding="utf-8") for file in DASHBOARDS}
    assert found == files(), "python -m heliostat.infra.dashboards.build infra/grafana/dashboards"


def test_a_panel_that_two_dashboards_share_is_the_same() -> None:
    found: dict[str, str] = {}
    for file in DASHBOARDS:
        for panel in panels(file):
            shown = json.dumps({key: value for key, value in panel.items() if key not in ("id", "gridPos")})
            assert found.setdefault(panel["title"], shown) == shown, panel["title"]


@each_dashboard
def test_every_panel_says_what_it_shows(file: Path) -> None:
    for panel in panels(file):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
    titles = [panel["title"] for panel in panels(file)]
    assert len(set(titles)) == len(titles)


@each_dashboard
def test_identifiers_are_unique_and_places_do_not_overlap(file: Path) -> None:
    everything = load(file)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@each_dashboard
def test_metrics_of_ours_are_in_the_catalogue(file: Path) -> None:
    text = " ".join([*queries(file), *(variable["definition"] for variable in of_queries(file))])
    assert {name for name in OUR_NAME.findall(text) if not name.endswith("_")} <= set(EXPOSED)


def test_every_metric_of_ours_is_shown() -> None:
    everything = [query for file in DASHBOARDS for query in queries(file)]
    shown = {EXPOSED[name].name for query in everything for name in OUR_NAME.findall(query)}
    assert {TOTALS.get(name, name) for name in shown} == {metric.name for metric in CATALOGUE} - set(TOTALS)


@each_dashboard
def test_queries_use_labels_that_their_metrics_have(file: Path) -> None:
    for query in queries(file):
        for name, braces in re.findall(r"\b((?:ray_)?heliostat_[a-z0-9_]+)\{([^}]*)\}", query):
            used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))
            assert used <= set(EXPOSED[name].labels), query
        ours = OUR_NAME.findall(query)
        for group in re.findall(r"\bby \(([^)]*)\)", query) if ours else []:
            labels = {label for name in ours for label in EXPOSED[name].labels}
            assert set(re.split(r",\s*", group)) <= {"le", *labels}, query


@each_dashboard
def test_counters_are_read_as_rates(file: Path) -> None:
    for query in queries(file):
        for name in OUR_NAME.findall(query):
            grows = EXPOSED[name].kind in ("counter", "histogram")
            if grows and name not in COUNTS:
                window = rf"(rate\({name}(\{{[^}}]*\}})?\[\$__rate_interval|increase\({name}\{{[^}}]*\}}\[1h)\]\)"
                assert re.search(window, query), query


def of_queries(file: Path) -> list[dict[str, Any]]:
    """The variables whose values Prometheus gives."""
    return [variable for variable in load(file)["templating"]["list"] if variable["type"] == "query"]


@each_dashboard
def test_variables_are_there_and_in_use(file: Path) -> None:
    variables = {variable["name"] for variable in load(file)["templating"]["list"]}
    assert "datasource" in variables
    used = set(re.findall(r"\$(?!__)\{?(\w+)", file.read_text()))
    assert used == variables
    for variable in of_queries(file):
        assert variable["includeAll"] is True
        assert variable["allValue"] == ".*", "matches runs and models to come, too"


@each_dashboard
def test_the_form_is_a_current_one(file: Path) -> None:
    dashboard = load(file)
    assert dashboard["schemaVersion"] >= 41
    assert re.fullmatch(r"[a-z0-9-]{1,40}", dashboard["uid"])
    assert dashboard["uid"] == file.stem
    assert "id" not in dashboard, "Grafana gives it"


def test_provisioning_finds_dashboards_and_prometheus() -> None:
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/heliostat.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "${HELIOSTAT_DASHBOARDS}"
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    shipped = yaml.safe_load((FOLDER.parent / "prometheus" / "prometheus.yaml").read_text())
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == shipped["global"]["scrape_interval"]


def test_the_config_map_holds_every_dashboard() -> None:
    [generator] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"]
    assert generator["files"] == [f"dashboards/{file.name}" for file in DASHBOARDS]
    assert generator["options"]["labels"]["grafana_dashboard"] == "1"
