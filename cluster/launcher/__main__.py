"""Writes the examples into a checkout: `python -m heliostat.cluster.launcher`."""

from __future__ import annotations

from pathlib import Path

from heliostat.cluster.launcher.config import LauncherConfig
from heliostat.cluster.launcher.render import PROVIDERS, text
from heliostat.cluster.launcher.written import marked
from heliostat.infra.config.strict import build, read_yaml

EXAMPLES = Path(__file__).with_name("examples.yaml")
FOLDER = Path(__file__).parent.with_name("launch")


def examples() -> LauncherConfig:
    """The section with all providers."""
    return build(LauncherConfig, read_yaml(EXAMPLES), source=EXAMPLES.name)


def contents() -> dict[str, str]:
    """Content of each file of `cluster/launch`, by its name."""
    return {f"{name}.yaml": marked(text(examples(), name, f"cluster/launch/{name}.yaml")) for name in PROVIDERS}


if __name__ == "__main__":
    for name, content in contents().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
