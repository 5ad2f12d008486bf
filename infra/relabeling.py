"""What a Prometheus drops of Ray's metrics: `python -m heliostat.infra.relabeling` writes it into both configurations.

Ray's agents keep the series of processes that have ended, and of data sets that are read, until their node ends. They
are dropped where they are scraped, but for those that a panel or a rule asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heliostat.infra.alerts import files
from heliostat.infra.dashboards import build

FAMILIES = ("component", "data", "job", "owned", "serve", "total_lineage", "train")
"""What Ray's own metrics about data sets, replicas and processes begin with; what users export is none of them."""
BY = ("WorkerId", "pid", "replica", "dataset", "JobId")
"""Labels of which a new process, data set or job has a new value. Ray's metrics of nodes have none of them."""
KEPT = "__tmp_kept"
"""Label of series to keep, while they are relabeled."""
PROMETHEUS_FILE = files.MACHINE_FILE.with_name("prometheus.yaml")
PODMONITOR_FILE = files.KUBERNETES_FILE.with_name("podmonitor.yaml")
BEGIN = "# Written by `python -m heliostat.infra.relabeling`: what no panel or rule of ours asks for."
END = "# Up to here."


def used_names() -> tuple[str, ...]:
    """The metrics of Ray that panels, their variables, and rules ask for, sorted."""
    alerts, recordings = (alert.expr for alert in files.alerts()), (one.expr for one in files.recordings())
    asked = (*build.files().values(), *alerts, *recordings)
    return tuple(sorted({name for text in asked for name in re.findall(r"\bray_(?!heliostat_)\w+", text)}))


def rules() -> list[dict[str, Any]]:
    """`metric_relabel_configs` of Prometheus."""
    names, families = ("|".join(found) for found in (used_names(), FAMILIES))
    return [
        {"source_labels": ["__name__"], "regex": names, "target_label": KEPT, "replacement": "1"},
        {
            "action": "drop",
            "source_labels": ["__name__", KEPT, *BY],
            "separator": ";",
            "regex": f"ray_({families})_[^;]*;;.*[^;].*",
        },
        {"action": "labeldrop", "regex": KEPT},
    ]


def operator_rules() -> list[dict[str, Any]]:
    """The same as `metricRelabelings` of the Prometheus operator."""
    keys = {"source_labels": "sourceLabels", "target_label": "targetLabel"}
    return [{keys.get(key, key): value for key, value in rule.items()} for rule in rules()]


def contents() -> Iterator[tuple[Path, str]]:
    """Both files, with the rules of now between the lines that say where they stand."""
    for file, found in ((PROMETHEUS_FILE, rules()), (PODMONITOR_FILE, operator_rules())):
        yield file, _replaced(file.read_text(encoding="utf-8"), found)


def _replaced(text: str, found: list[dict[str, Any]]) -> str:
    """`text` with a line of JSON, which is YAML, for each rule."""

    def written(place: re.Match[str]) -> str:
        return f"{place[1]}{BEGIN}\n" + "".join(f"{place[1]}- {json.dumps(rule)}\n" for rule in found)

    return re.sub(rf"^( *){re.escape(BEGIN)}\n.*?(?=^ *{END}$)", written, text, flags=re.MULTILINE | re.DOTALL)


def main() -> None:
    """Writes both files."""
    for file, text in list(contents()):
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
