"""The runbook: a section for each alert, which names what there is."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from heliostat.infra.alerts import files
from heliostat.infra.alerts.rule import RUNBOOK, Alert
from heliostat.infra.dashboards.build import DASHBOARDS
from heliostat.serve.config import ServeConfig
from heliostat.train.config import TrainConfig
from tests.guides import ROOT

PAGE = ROOT / "docs" / "runbook.md"
TEXT = PAGE.read_text(encoding="utf-8")
ALERTS = {alert.name: alert for alert in files.alerts()}

each_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)


@each_alert
def test_the_runbook_has_a_section_for_each_alert(alert: Alert) -> None:
    section = re.search(rf"^## {alert.name}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert section
    for part in ("**Means:**", "**Look at:**", "**Do:**", f"pytest -k {alert.name} tests/unit/infra/alerts"):
        assert part in section[1], part


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (Heliostat\w+)$", TEXT, re.MULTILINE)) == set(ALERTS)


def test_the_runbook_is_in_the_projects_repository() -> None:
    found = re.search(r'^Source = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    assert f"{found[1]}/blob/main/{PAGE.relative_to(ROOT)}" == RUNBOOK


def test_panels_that_are_named_are_on_a_dashboard() -> None:
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", TEXT))
    assert len(named) > 5
    assert named <= {panel.title for one in DASHBOARDS for _, panels in one.rows for panel in panels}


def test_keys_that_are_named_are_those_of_the_spec() -> None:
    named = set(re.findall(r"`(train|serve)\.(\w+)", TEXT))
    assert named
    sections: dict[str, type[BaseModel]] = {"train": TrainConfig, "serve": ServeConfig}
    for section, key in named:
        assert key in sections[section].model_fields, key
