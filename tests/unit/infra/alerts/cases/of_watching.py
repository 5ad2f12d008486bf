"""Cases of rules about the watching."""

from __future__ import annotations

from tests.unit.infra.alerts.cases.case import Case, Series, up


def nodes(active: str, idle: str, *scraped: str) -> Series:
    found = {f'ray_node_cpu_count{{job="ray",ip="10.0.0.{number}"}}': values for number, values in enumerate(scraped)}
    return {
        **found,
        'ray_cluster_active_nodes{job="ray",node_type="head"}': active,
        'ray_cluster_idle_nodes{job="ray",node_type="worker"}': idle,
    }


def failures(group: str, values: str) -> Series:
    labels = f'instance="p",rule_group="rules.yaml;{group}"'
    return {f"prometheus_rule_evaluation_failures_total{{{labels}}}": values}


def scrapes(seconds: str) -> Series:
    return {'scrape_duration_seconds{job="ray",instance="a"}': seconds}


def cut(limit: str, counts: str) -> Series:
    return {f'prometheus_target_scrapes_exceeded_{limit}_limit_total{{instance="p"}}': counts}


CASES = (
    Case(
        "HeliostatTargetDown", "one of two", "15m", up(a="1x30", b="1x10 0x20"),
        {"job": "ray", "instance": "b:8080"}, "b:8080 of ray cannot be scraped",
    ),
    Case("HeliostatTargetDown", "a node has left", "15m", up(a="1x30", b="1x10 stale")),
    Case(
        "HeliostatTargetDown", "the exporter", "15m",
        {'up{job="heliostat-exporter",instance="e:9095"}': "1x5 0x20"},
        {"job": "heliostat-exporter", "instance": "e:9095"},
        "e:9095 of heliostat-exporter cannot be scraped",
    ),
    Case(
        "HeliostatTargetsMissing", "three nodes, of which one is scraped", "15m", nodes("1x30", "2x30", "4x30"),
        {"job": "ray"}, "2 nodes of ray are not scraped",
    ),
    Case(
        "HeliostatTargetsMissing", "each node is scraped", "15m",
        nodes("1x30", "1x30", "4x30", "4x30"),
    ),
    Case(
        "HeliostatRulesFail", "one rule of ours", "15m", failures("heliostat-serving", "0x12 1x20"),
        {"instance": "p", "rule_group": "rules.yaml;heliostat-serving"},
        "Prometheus p cannot evaluate rules.yaml;heliostat-serving",
    ),
    Case("HeliostatRulesFail", "a rule of somebody else", "15m", failures("others", "0+1x30")),
    Case(
        "HeliostatScrapeSlow", "three seconds", "20m", scrapes("3x30"),
        {"job": "ray", "instance": "a"}, "A scrape of a of ray takes 3s",
    ),
    Case("HeliostatScrapeSlow", "once", "20m", scrapes("0.1x10 3 0.1x20")),
    Case(
        "HeliostatScrapeCut", "more samples than its limit", "15m", cut("sample", "0x12 1x20"),
        {"instance": "p"}, "Prometheus p throws scrapes away, since they are larger than its limit",
    ),
    Case(
        "HeliostatScrapeCut", "more bytes than its limit", "15m", cut("body_size", "0x12 1x20"),
        {"instance": "p"}, "Prometheus p throws scrapes away, since they are larger than its limit",
    ),
    Case("HeliostatScrapeCut", "an hour ago", "40m", cut("sample", "0x12 1x30")),
    Case("HeliostatWatchdog", "always", "1m", {}, {}, "Always fires: where it is missing, alerts are lost"),
)  # fmt: skip
