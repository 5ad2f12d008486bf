"""Explanations of table rows: integrated gradients of the features, from the mean of the training split."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from heliostat.infra.registry.inputs import TableInputs
from heliostat.infra.registry.programs import Program
from heliostat.serve.explain.answers import ColumnAttribution, TableExplanation
from heliostat.serve.explain.base import Explainer, Target
from heliostat.serve.explain.gradients import integrated_gradients


class TableExplainer(Explainer[list[float]]):
    """Explains model inputs: float [width].

    The baseline is zero everywhere: the training mean for a number, no category for a category.
    """

    methods = ("integrated_gradients",)

    def __init__(
        self, program: Program, inputs: TableInputs, labels: Sequence[str], device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(labels)
        self.program = program
        self.inputs = inputs
        self.device = torch.device(device)

    def logits(self, item: list[float]) -> torch.Tensor:
        """Logits of all labels: float [1, labels]."""
        return self.program(features=self._features(item))

    def explained(self, item: list[float], target: Target) -> TableExplanation:
        """The attribution of each column, summed over the features of a category."""
        features = self._features(item)
        found, convergence, passes = integrated_gradients(
            lambda rows: self.program(features=rows)[:, target.at], features, torch.zeros_like(features)
        )
        return TableExplanation(
            method=target.method,
            label=target.label,
            score=target.score,
            predicted=target.predicted,
            passes=1 + passes,
            convergence=convergence,
            columns=self._columns(item, found[0].tolist()),
        )

    def _columns(self, item: list[float], attributions: list[float]) -> list[ColumnAttribution]:
        values, rest, columns = self.inputs.row(item), list(attributions), []
        for column in self.inputs.columns:
            own, rest = rest[: column.width], rest[column.width :]
            columns.append(
                ColumnAttribution(column=column.name, value=readable(values[column.name]), attribution=sum(own))
            )
        return columns

    def _features(self, item: list[float]) -> torch.Tensor:
        return torch.tensor([item], dtype=torch.float32, device=self.device)


def readable(value: float | str) -> float | str:
    """A number rounded to 7 digits, to hide the rounding error of standardisation."""
    return value if isinstance(value, str) else float(f"{value:.7g}")
