"""Writes the dashboards' files: `python -m heliostat.infra.dashboards.build infra/grafana/dashboards`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from heliostat.infra.dashboards import serving, training
from heliostat.infra.dashboards.cluster import CLUSTER, CPUS_TAKEN, NODES, PENDING
from heliostat.infra.dashboards.grafana import Dashboard, Variable, to_json
from heliostat.infra.dashboards.storage import STORAGE
from heliostat.infra.dashboards.tuning import TUNING
from heliostat.infra.metrics import catalogue, of_training

MODEL = Variable("model", f'{{__name__=~"{catalogue.REQUESTS.exposed}|{of_training.STEPS.exposed}"}}')
OVERVIEW = Dashboard(
    "heliostat",
    "Heliostat",
    "Endpoints, training runs and the Ray cluster below them, at a glance; the others have the details.",
    (MODEL, serving.VERSION, training.RUN),
    (
        ("Serving", (serving.REQUESTS, serving.LATENCY, serving.ERRORS, serving.VERSIONS, serving.REPLICAS)),
        ("Training", (training.LOSS, training.STEPS, training.SKIPPED)),
        ("Cluster", (NODES, CPUS_TAKEN, PENDING)),
    ),
)
DASHBOARDS = (OVERVIEW, serving.SERVING, training.TRAINING, TUNING, STORAGE, CLUSTER)


def files() -> dict[str, str]:
    """Content of each file, by its name."""
    return {f"{one.uid}.json": json.dumps(to_json(one), indent=2) + "\n" for one in DASHBOARDS}


if __name__ == "__main__":
    for name, content in files().items():
        (Path(sys.argv[1]) / name).write_text(content, encoding="utf-8")
