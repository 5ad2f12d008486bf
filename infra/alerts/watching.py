"""Rules that watch the watching itself."""

from __future__ import annotations

from heliostat.infra.alerts.ray_names import ACTIVE_NODES, IDLE_NODES, NODE_CPUS
from heliostat.infra.alerts.rule import Alert, Group

CLUSTER = "job, namespace"
"""Labels that name a Ray cluster; without Kubernetes there is no namespace."""

EXPORTER = 'job="heliostat-exporter"'
"""The exporter's job, on a machine and on Kubernetes."""

SLOW_SCRAPE_SECONDS = 2.0
"""Half of the scrape's time-out in infra/prometheus/prometheus.yaml: what takes longer is lost."""
CUT_WINDOW = "10m"


def group(targets: str) -> Group:
    """The rules; `targets` matches what is scraped of Ray."""
    active, idle = (f"sum by ({CLUSTER}) ({name})" for name in (ACTIVE_NODES, IDLE_NODES))
    down = Alert(
        "HeliostatTargetDown",
        f"up{{{targets}}} == 0 or up{{{EXPORTER}}} == 0",
        "2m",
        "critical",
        "{{ $labels.instance }} of {{ $labels.job }} cannot be scraped",
    )
    missing = Alert(
        "HeliostatTargetsMissing",
        f"{active} + ({idle} or 0 * {active}) - count by ({CLUSTER}) ({NODE_CPUS}) > 0",
        "5m",
        "warning",
        "{{ $value }} nodes of {{ $labels.job }} are not scraped",
    )
    slow = Alert(
        "HeliostatScrapeSlow",
        f"scrape_duration_seconds{{{targets}}} > {SLOW_SCRAPE_SECONDS:g}",
        "5m",
        "warning",
        "A scrape of {{ $labels.instance }} of {{ $labels.job }} takes {{ $value | humanizeDuration }}",
    )
    cut = Alert(
        "HeliostatScrapeCut",
        f"increase(prometheus_target_scrapes_exceeded_sample_limit_total[{CUT_WINDOW}]) > 0"
        f" or increase(prometheus_target_scrapes_exceeded_body_size_limit_total[{CUT_WINDOW}]) > 0",
        "0s",
        "critical",
        "Prometheus {{ $labels.instance }} throws scrapes away, since they are larger than its limit",
    )
    failing = Alert(
        "HeliostatRulesFail",
        'increase(prometheus_rule_evaluation_failures_total{rule_group=~".*;heliostat-.*"}[5m]) > 0',
        "0s",
        "critical",
        "Prometheus {{ $labels.instance }} cannot evaluate {{ $labels.rule_group }}",
    )
    watchdog = Alert(
        "HeliostatWatchdog", "vector(1)", "0s", "none", "Always fires: where it is missing, alerts are lost"
    )
    return Group("heliostat-watching", (down, missing, slow, cut, failing, watchdog))
