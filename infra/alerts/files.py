"""The files of rules: one for Prometheus on a machine or beside a Ray cluster, one for the Prometheus operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from heliostat.infra.alerts import cluster, gpu, serving, storage, training, tuning, watching
from heliostat.infra.alerts.rule import Alert, Group, Recording

MACHINE_TARGETS = 'job="ray"'
KUBERNETES_TARGETS = 'ray_io_cluster!="", endpoint="metrics"'
"""Labels that infra/prometheus/prometheus.yaml and the PodMonitor give. The endpoint of the autoscaler is
there only in clusters that scale."""
ROOT = Path(__file__).resolve().parents[2]
MACHINE_FILE = ROOT / "infra" / "prometheus" / "rules.yaml"
KUBERNETES_FILE = ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml"
HEADER = "# Written by `python -m heliostat.infra.alerts` from infra/alerts/; what is changed here is lost.\n"


def groups(targets: str = MACHINE_TARGETS) -> tuple[Group, ...]:
    """All rules; `targets` matches what is scraped of Ray."""
    return (
        training.GROUP,
        tuning.GROUP,
        serving.GROUP,
        cluster.GROUP,
        gpu.GROUP,
        storage.GROUP,
        watching.group(targets),
    )


def alerts() -> tuple[Alert, ...]:
    """All alerts."""
    return tuple(rule for group in groups() for rule in group.rules if isinstance(rule, Alert))


def recordings() -> tuple[Recording, ...]:
    """All recorded queries."""
    return tuple(rule for group in groups() for rule in group.rules if isinstance(rule, Recording))


def contents() -> Iterator[tuple[Path, str]]:
    """Each file, and what it holds."""
    yield MACHINE_FILE, _yaml(_spec(MACHINE_TARGETS))
    yield KUBERNETES_FILE, _yaml(prometheus_rule())


def prometheus_rule() -> dict[str, Any]:
    """The object of the Prometheus operator."""
    labels = {
        "app.kubernetes.io/part-of": "heliostat",
        "app.kubernetes.io/component": "monitoring",
        "release": "prometheus",
    }
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "heliostat", "labels": labels},
        "spec": _spec(KUBERNETES_TARGETS),
    }


def _spec(targets: str) -> dict[str, Any]:
    return {"groups": [group.as_dict() for group in groups(targets)]}


def _yaml(values: dict[str, Any]) -> str:
    return HEADER + yaml.safe_dump(values, sort_keys=False, width=110)
