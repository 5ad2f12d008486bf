"""Explanations of rows: what can be computed by hand must come out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from heliostat.infra.errors import ConfigError, DataError
from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import CategoryColumn, NumberColumn, TableInputs
from heliostat.serve.explain.answers import TableExplanation
from heliostat.serve.explain.gradients import TOLERANCE
from heliostat.serve.explain.tables import TableExplainer

INPUTS = TableInputs(
    columns=(
        NumberColumn(name="age", mean=40.0, std=10.0, fill=30.0),
        CategoryColumn(name="colour", values=("black", "red", "white")),
    )
)
WEIGHTS = torch.tensor([[2.0, 0.5, -1.0, 0.25], [-1.0, 0.0, 3.0, 0.0]])


class Linear(torch.nn.Module):
    """Known weights and a bias, which no attribution may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.layer.weight.data, self.layer.bias.data = WEIGHTS.clone(), torch.tensor([5.0, -5.0])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(features)
        return found


class Bent(torch.nn.Module):
    """Has kinks between the baseline and most rows; `times` makes them steeper."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.times = times
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(features) * self.times
        return found


def explainer(model: torch.nn.Module, folder: Path) -> TableExplainer:
    programs.save(model, {"features": torch.zeros(2, 4)}, folder)
    return TableExplainer(programs.load(folder), INPUTS, ("yes", "no"))


def explain(model: torch.nn.Module, folder: Path, row: dict[str, object], label: str | None = None) -> TableExplanation:
    found = explainer(model, folder).explain(INPUTS.features(row), label)
    assert isinstance(found, TableExplanation)
    return found


@pytest.mark.parametrize(("label", "expected"), [("yes", [2.0 * 1.5, -1.0]), ("no", [-1.0 * 1.5, 3.0])])
def test_of_a_linear_model_they_are_weight_times_distance_from_the_baseline(
    label: str, expected: list[float], tmp_path: Path
) -> None:
    found = explain(Linear(), tmp_path, {"age": 55, "colour": "red"}, label)
    assert [one.column for one in found.columns] == ["age", "colour"]
    assert [one.value for one in found.columns] == [55, "red"]
    assert [one.attribution for one in found.columns] == pytest.approx(expected, abs=1e-4)
    assert found.label == label
    assert found.predicted == "yes"


def test_the_mean_row_has_no_number_that_counts(tmp_path: Path) -> None:
    found = explain(Linear(), tmp_path, {"age": 40, "colour": "white"}, "yes")
    assert [one.attribution for one in found.columns] == pytest.approx([0.0, 0.25], abs=1e-5)


def test_a_missing_value_is_explained_as_what_stands_for_it(tmp_path: Path) -> None:
    found = explain(Linear(), tmp_path, {"colour": "red"}, "yes")
    assert found.columns[0].value == 30
    assert found.columns[0].attribution == pytest.approx(-2.0, abs=1e-4)


def test_the_likeliest_label_is_explained_where_none_is_asked_for(tmp_path: Path) -> None:
    found = explain(Linear(), tmp_path, {"age": 40, "colour": "black"})
    assert found.label == found.predicted == "yes"
    assert found.score == pytest.approx(1.0, abs=1e-3)


def test_attributions_sum_to_the_difference_of_logits(tmp_path: Path) -> None:
    model = Bent()
    found = explain(model, tmp_path, {"age": 75, "colour": "black"}, "no")
    point = torch.tensor([INPUTS.features({"age": 75, "colour": "black"})])
    with torch.no_grad():
        difference = float((model(point) - model(torch.zeros(1, 4)))[0, 1])
    assert found.convergence
    assert found.convergence.converged
    assert found.convergence.difference == pytest.approx(difference, abs=1e-5)
    total = sum(one.attribution for one in found.columns)
    assert total == pytest.approx(difference, abs=TOLERANCE * max(1.0, abs(difference)))
    assert total - difference == pytest.approx(found.convergence.delta, abs=1e-5)


def test_more_steps_are_taken_where_they_help_and_what_is_left_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"age": 75, "colour": "black"}
    few = explain(Bent(), tmp_path, row).convergence
    many = explain(Bent(100.0), tmp_path, row).convergence
    assert few
    assert many
    assert many.steps >= few.steps
    monkeypatch.setattr("heliostat.serve.explain.gradients.TOLERANCE", 0.0)
    never = explain(Bent(), tmp_path, row).convergence
    assert never
    assert (never.steps, never.converged) == (512, False)


def test_an_unknown_label_or_method_is_one_line_that_lists_the_known(tmp_path: Path) -> None:
    model = explainer(Linear(), tmp_path)
    with pytest.raises(ConfigError, match=r"^label: 'maybe' given; yes, no are known$"):
        model.explain([0.0] * 4, "maybe")
    with pytest.raises(ConfigError, match=r"^method: 'occlusion' given; integrated_gradients is allowed"):
        model.explain([0.0] * 4, None, "occlusion")


def test_without_a_finite_answer_there_is_nothing_to_explain(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finite answer"):
        explainer(Linear(), tmp_path).explain([3e38, 0.0, 0.0, 0.0])
