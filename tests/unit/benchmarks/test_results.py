"""The results that the documentation shows: reached, recorded on code that is in the history, and quoted right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.benchmarks.full_recipe import MARKS, marks, reached
from tests.benchmarks.record import RESULTS
from tests.guides import RECIPES, ROOT

SHOWN = {
    "tabular": ("accuracy {accuracy:.3f}", "ROC-AUC {roc_auc:.3f}"),
    "digits": ("accuracy {accuracy:.3f}",),
    "images": ("accuracy {accuracy:.3f}",),
    "reviews-lstm": ("accuracy {accuracy:.3f}",),
    "sentiment": ("accuracy {accuracy:.3f}",),
    "gan": ("of {judged_confident_share:.2f} of the images", "none above {judged_largest_share:.2f}"),
    "language-model": ("perplexity {perplexity:.1f}", "n-grams {ngram_perplexity:.1f}"),
    "chat": ("loss {loss:.3f}", "base model's {base_loss:.3f}"),
}


def full(recipe: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"full_{recipe}.json").read_text()))


def test_each_recipe_has_marks() -> None:
    assert set(RECIPES) == set(MARKS) == set(SHOWN)


@pytest.mark.parametrize("recipe", MARKS)
def test_a_recipe_reaches_its_marks(recipe: str) -> None:
    found = full(recipe)
    assert all(marks(recipe, found["results"]["test"]).values()), found["results"]["test"]
    assert found["results"]["seconds"] > 0
    assert found["hardware"]["cores"] > 0


@pytest.mark.parametrize("recipe", SHOWN)
def test_the_table_shows_what_was_measured(recipe: str) -> None:
    (row,) = [line for line in (ROOT / "docs" / "recipes.md").read_text().splitlines() if f"| [`{recipe}`]" in line]
    for shown in SHOWN[recipe]:
        assert shown.format(**full(recipe)["results"]["test"]) in row


@pytest.mark.parametrize(
    ("mark", "yes"), [("a >= 0.5", True), ("a >= 0.51", False), ("a <= b", True), ("b <= a", False), ("b <= 1", True)]
)
def test_a_mark_is_a_bound_or_another_figure(mark: str, yes: bool) -> None:
    assert reached(mark, {"a": 0.5, "b": 1.0}) == yes


@pytest.mark.parametrize("recipe", MARKS)
def test_a_recipe_was_measured_on_code_that_is_in_the_history(recipe: str) -> None:
    assert not full(recipe)["commit"].endswith("+")
