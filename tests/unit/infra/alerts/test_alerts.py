"""Rules: written from the catalogue, read by promtool, and each alert seen firing and seen quiet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.infra.alerts import files
from heliostat.infra.alerts.gpu import DCGM_NAMES
from heliostat.infra.alerts.ray_names import RAY_NAMES
from heliostat.infra.alerts.rule import RUNBOOK, Alert, Recording
from heliostat.infra.metrics.catalogue import CATALOGUE, REQUEST_SECONDS, REQUESTS
from heliostat.infra.metrics.promql import series
from tests.tools import need
from tests.unit.infra.alerts.cases import CASES
from tests.unit.infra.alerts.cases.case import Case
from tests.unit.infra.alerts.cases.everything import EVERYTHING

ALERTS = {alert.name: alert for alert in files.alerts()}
RULES: tuple[Alert | Recording, ...] = (*files.alerts(), *files.recordings())
ALWAYS = "HeliostatWatchdog"
FIRST_COUNTS = {"HeliostatTrainingStepsSkipped", "HeliostatTrainingStalled", "HeliostatStorageErrors"}
"""Those for which the number that a series is born with counts too."""
OF_PROMETHEUS = {
    "up", "scrape_duration_seconds", "prometheus_rule_evaluation_failures_total",
    "prometheus_target_scrapes_exceeded_sample_limit_total", "prometheus_target_scrapes_exceeded_body_size_limit_total",
}  # fmt: skip
OTHER_NAMES = {*OF_PROMETHEUS, *DCGM_NAMES}
OURS = {
    f"{metric.exposed}{part}": metric
    for metric in CATALOGUE
    for part in (("_bucket", "_count") if metric.kind == "histogram" else ("",))
}
RECORDED = {recording.name for recording in files.recordings()}

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
each_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)


def promtool(*arguments: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run([need("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def asked(test: dict[str, Any], folder: Path) -> None:
    """Lets promtool run one test of the rules as they are shipped."""
    written = {"rule_files": [str(files.MACHINE_FILE)], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(written))
    promtool("test", "rules", "test.yaml", folder=folder)


def scene(scraped: dict[str, str]) -> dict[str, Any]:
    return {"interval": "1m", "input_series": [{"series": name, "values": one} for name, one in scraped.items()]}


def expected(case: Case) -> list[dict[str, Any]]:
    if case.labels is None:
        return []
    alert = ALERTS[case.alert]
    annotations = {"summary": case.summary, "runbook_url": alert.runbook_url}
    return [{"exp_labels": {**case.labels, "severity": alert.severity}, "exp_annotations": annotations}]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.says}")
def test_an_alert_fires_or_is_quiet(case: Case, tmp_path: Path) -> None:
    wanted = {"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected(case)}
    asked({**scene(case.series), "alert_rule_test": [wanted]}, tmp_path)


@pytest.mark.parametrize("what", EVERYTHING)
def test_no_alert_fires_and_all_that_is_recorded_is_finite(what: str, tmp_path: Path) -> None:
    times = [f"{minute}m" for minute in range(15, 60)]
    quiet = [{"eval_time": at, "alertname": name, "exp_alerts": []} for at in times for name in set(ALERTS) - {ALWAYS}]
    no_number = "{0} != {0} or abs({0}) == Inf"
    numbers = [
        {"eval_time": at, "expr": no_number.format(name), "exp_samples": []} for at in times for name in RECORDED
    ]
    asked({**scene(EVERYTHING[what]), "alert_rule_test": quiet, "promql_expr_test": numbers}, tmp_path)


def test_a_case_that_is_wrong_fails(tmp_path: Path) -> None:
    wanted = {"eval_time": "1m", "alertname": ALWAYS, "exp_alerts": []}
    with pytest.raises(AssertionError, match="FAILED"):
        asked({**scene({}), "alert_rule_test": [wanted]}, tmp_path)


@each_alert
def test_an_alert_has_a_firing_and_a_quiet_case(alert: Alert) -> None:
    found = {case.labels is not None for case in CASES if case.alert == alert.name}
    assert found == ({True} if alert.name == ALWAYS else {True, False})


@pytest.mark.parametrize("file", [file for file, _ in files.contents()], ids=lambda file: file.stem)
def test_the_files_are_what_the_rules_give(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == dict(files.contents())[file], "run python -m heliostat.infra.alerts"


def test_promtool_reads_the_rules_for_both_places(tmp_path: Path) -> None:
    operator = tmp_path / "operator.yaml"
    operator.write_text(yaml.safe_dump(files.prometheus_rule()["spec"]))
    for file in (files.MACHINE_FILE, operator):
        assert f"{len(RULES)} rules found" in promtool("check", "rules", "--lint-fatal", file)


def test_both_places_have_the_same_rules_on_other_targets() -> None:
    machine, operator = (yaml.safe_dump([g.as_dict() for g in files.groups(targets)]) for targets in ("A", "B"))
    assert machine.replace("{A}", "{B}") == operator
    assert machine != operator


def test_the_operator_finds_the_rules_as_it_finds_the_monitor() -> None:
    folder = files.KUBERNETES_FILE.parent
    monitor = yaml.safe_load((folder / "podmonitor.yaml").read_text())
    rules = yaml.safe_load(files.KUBERNETES_FILE.read_text())
    assert rules["metadata"]["labels"] == monitor["metadata"]["labels"]
    assert files.KUBERNETES_FILE.name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"
    assert 'endpoint="metrics"' in files.KUBERNETES_TARGETS


@each_rule
def test_a_rule_uses_names_that_there_are(rule: Alert | Recording) -> None:
    used = set(re.findall(r"\b(?:ray|heliostat)_\w+", rule.expr))
    assert used <= set(OURS) | set(RAY_NAMES)
    recorded = set(re.findall(r"heliostat:[\w:]+", rule.expr))
    assert recorded <= RECORDED
    others = set(re.findall(r"\b(?:up\b|scrape_\w+|prometheus_\w+|DCGM_\w+)", rule.expr))
    assert others <= OTHER_NAMES
    assert used or recorded or others or rule.name == ALWAYS


def test_each_name_of_ray_is_in_use() -> None:
    assert {name for name in RAY_NAMES if not any(name in rule.expr for rule in RULES)} == set()


@each_rule
def test_a_rule_uses_labels_that_its_metrics_have(rule: Alert | Recording) -> None:
    for name, braces in re.findall(r"\b((?:ray_)?heliostat_\w+)\{([^}]*)\}", rule.expr):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces)) <= set(OURS[name].labels)


@each_rule
def test_counters_are_read_as_rates(rule: Alert | Recording) -> None:
    for name, metric in OURS.items():
        if metric.kind != "gauge" and rule.name not in FIRST_COUNTS:
            for use in re.findall(rf"(\w+\()?{name}\b(?!\w)", rule.expr):
                assert use in {"rate(", "increase("}, name


@each_alert
def test_an_alert_says_which_and_what_to_do(alert: Alert) -> None:
    labels = next(case.labels for case in CASES if case.alert == alert.name and case.labels is not None)
    named = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    assert named <= set(labels)
    assert named or alert.name == ALWAYS
    assert re.fullmatch(r"\d+[smh]", alert.hold)
    assert alert.as_dict()["annotations"]["runbook_url"] == f"{RUNBOOK}#{alert.name.lower()}"


def test_names_are_unique_and_tell_whose_they_are() -> None:
    names = [(rule.name, getattr(rule, "quantile", "")) for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(name.startswith("Heliostat") for name in ALERTS)
    assert all(group.name.startswith("heliostat-") for group in files.groups())


def test_a_query_names_a_metric_as_the_agent_exposes_it() -> None:
    assert series(REQUESTS, 'status="200"') == 'ray_heliostat_requests_total{status="200"}'
    assert series(REQUEST_SECONDS, part="count") == "ray_heliostat_request_seconds_count"
