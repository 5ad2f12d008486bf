"""What a case is, and series that several rooms of rules use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Series = dict[str, str]
Scene = dict[str, Any]


@dataclass(frozen=True)
class Case:
    alert: str
    says: str
    at: str
    series: Series
    labels: dict[str, str] | None = None
    """Of the alert that fires; None where it is quiet."""
    summary: str = ""


RUN = {"model": "m", "run": "r1"}


def node(metric: str, values: str) -> Series:
    return {f'ray_node_{metric}{{job="ray",ip="10.0.0.2"}}': values}


def up(**targets: str) -> Series:
    return {f'up{{job="ray",instance="{name}:8080"}}': values for name, values in targets.items()}
