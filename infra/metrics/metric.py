"""What a metric is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

Unit = Literal["seconds", "bytes", "tokens", "requests", "inputs", "records", "steps", "keys", "ratio", "1"]


@dataclass(frozen=True)
class Label:
    """What a label says, and what keeps the number of its values small."""

    help: str
    values: tuple[str, ...] = ()
    """All of them, where they are known beforehand: counters begin at zero for each."""


@dataclass(frozen=True)
class Metric:
    """Definition of one metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: Unit
    help: str
    purpose: str
    """What somebody who looks at it wants to know."""
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    through: Literal["ray", "exporter"] = "ray"
    """Who exposes it: Ray's agent, for the process that it is of, or the exporter."""

    @cached_property
    def total(self) -> Metric:
        """The counter of what was observed in this histogram, from which a mean is true."""
        help = f"Sum of what is observed in {self.name}."
        return replace(self, name=f"{self.name}_total", kind="counter", help=help, buckets=())

    @property
    def exposed(self) -> str:
        """The name that Prometheus sees: Ray's agent puts a prefix before it."""
        return f"ray_{self.name}" if self.through == "ray" else self.name
