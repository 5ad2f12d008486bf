"""What a rule of Prometheus is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

RUNBOOK = "https://github.com/heliostat/heliostat/blob/main/docs/runbook.md"
"""The page with a section for each alert."""
Severity = Literal["critical", "warning", "none"]


@dataclass(frozen=True)
class Recording:
    """A query whose result Prometheus stores under a name, which begins with `heliostat:`."""

    name: str
    expr: str
    quantile: str = ""
    """Value of the label of this name, for queries that share a name."""

    def as_dict(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        labels = {"labels": {"quantile": self.quantile}} if self.quantile else {}
        return {"record": self.name, "expr": self.expr, **labels}


@dataclass(frozen=True)
class Alert:
    """A query that fires for each of its results, once it has had the result for `hold`."""

    name: str
    """Begins with `Heliostat`, so that it is none of the alerts that others bring along."""
    expr: str
    hold: str
    """A duration of Prometheus; `for` in the rule."""
    severity: Severity
    """`critical` wakes somebody, `warning` waits for the morning, `none` is for machines."""
    summary: str
    """One line, a template of Prometheus over the labels of the result."""

    @property
    def runbook_url(self) -> str:
        """Where the runbook says what to do."""
        return f"{RUNBOOK}#{self.name.lower()}"

    def as_dict(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook_url": self.runbook_url},
        }


@dataclass(frozen=True)
class Group:
    """Rules that Prometheus evaluates one after the other."""

    name: str
    """Begins with `heliostat-`."""
    rules: tuple[Recording | Alert, ...]

    def as_dict(self) -> dict[str, Any]:
        """The group as Prometheus reads it."""
        return {"name": self.name, "rules": [rule.as_dict() for rule in self.rules]}
