"""The objectives of a spec, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from heliostat.infra.errors import ConfigError
from heliostat.spec import Spec, load_spec
from heliostat.train import tasks
from heliostat.train.metrics import classification
from heliostat.train.metrics.names import OWN, REPORTED
from heliostat.train.tasks.causal_lm import CausalLM
from heliostat.train.tasks.image_generation import DIRECTIONS, ImageGeneration
from heliostat.tune.objectives import objectives_of
from heliostat.tune.trials import Objective

ROWS: Any = None


def spec(*overrides: str) -> Spec:
    return load_spec("tabular", overrides)


def test_names_and_mappings_are_objectives_in_their_order() -> None:
    made = spec("tune.objectives=[f1, {metric: latency_ms}, {metric: loss, mode: min}]")
    wanted = (Objective("f1", "max"), Objective("latency_ms", "min"), Objective("loss", "min"))
    assert objectives_of(made.tune.objectives, made.task) == wanted


def test_without_any_it_is_the_metric_of_the_task() -> None:
    assert objectives_of(None, "tabular-classification") == (Objective("loss", "min"),)
    for name in get_args(Spec.model_fields["task"].annotation):
        task = tasks.get(name)
        assert (OWN[name], REPORTED[name][OWN[name]]) == (task.metric, task.mode)


def test_the_names_are_those_that_tasks_report() -> None:
    found = classification.metrics(np.array([[0.1, 0.9], [0.8, 0.2]], dtype=np.float32), np.array([1, 0]))
    for name in ("tabular-classification", "image-classification", "text-classification"):
        assert found.keys() == REPORTED[name].keys()
    tokens = CausalLM().metrics(np.array([[3.0, 2.0, 1.0]], dtype=np.float32), ROWS)
    assert tokens.keys() == REPORTED["causal-lm"].keys()
    images = ImageGeneration().metrics(np.ones((2, 2 * DIRECTIONS), dtype=np.float32), ROWS)
    assert images.keys() == REPORTED["image-generation"].keys()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["tune.objectives=[accurcy]"],
            r"tune\.objectives: 'accurcy' given; tabular-classification reports loss, accuracy, .*; did you mean 'acc",
        ),
        (["tune.objectives=[{metric: perplexity}]"], r"tune\.objectives: 'perplexity' given; .*measure tokens_per_sec"),
        (["tune.objectives=[]"], r"tune\.objectives: \[\] given; empty; give at least one metric"),
        (["tune.objectives=[f1, loss, f1]"], r"tune\.objectives: .* given; 'f1' is there twice"),
        (["tune.objectives=[{metric: f1, mode: most}]"], r"tune\.objectives\.0\.mode: 'most' given; must be 'min' or"),
        (["tune.objectives=[{metric: f1, mode: min}]"], r"tune\.objectives: mode min of f1 given; more is better, max"),
        (["tune.objectives=[{name: f1}]"], r"tune\.objectives\.0\.metric: missing"),
        (["tune.objectives=[3]"], r"tune\.objectives\.0: 3 given; a metric or \{metric, mode\} is allowed"),
        (["tune.objectives=f1"], r"tune\.objectives: 'f1' given; "),
        (["tune.reduction_factor=1"], r"tune\.reduction_factor: 1 given; must be greater than 1"),
        (
            ["tune.reduction_factor=4", "tune.scheduler=median"],
            r"tune\.reduction_factor: 4 given; it is for asha and hyperband, and not median",
        ),
        (["tune.choose=best"], r"tune\.choose: 'best' given; first, knee, or bounds"),
        (["tune.choose={}"], r"tune\.choose: \{\} given; first, knee, or bounds"),
        (["tune.choose=knee"], r"tune\.choose: knee given; it is for two objectives or more"),
        (["tune.choose={latency_ms: {max: 20}}"], r"tune\.choose\.latency_ms: no objective \(tune\.objectives: loss\)"),
        (["tune.choose={loss: {min: 1}}"], r"tune\.choose\.loss: \{'min': 1\.0\} given; less is better, \{max: …\}"),
        (["tune.choose={loss: {}}"], r"tune\.choose\.loss: \{\} given; \{max: NUMBER\} or \{min: N"),
        (["tune.choose={loss: {max: few}}"], r"tune\.choose\.loss: \{'max': 'few'\} given; \{max: NUMBER\} or"),
        (["tune.choose={loss: {most: 1}}"], r"tune\.choose\.loss: \{'most': 1\} given; \{max: NUMBER\} or"),
        (["tune.choose={loss: {max: .inf}}"], r"tune\.choose\.loss: \{'max': inf\} given; \{max: NUMBER\} or"),
        (["tune.choose={loss: {max: 2, min: 1}}"], r"tune\.choose\.loss: .* given; \{max: NUMBER\} or"),
        (["tune.choose={loss: 3}"], r"tune\.choose\.loss: 3 given; \{max: NUMBER\} or"),
    ],
)
def test_a_wrong_one_is_told_in_a_line(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as raised:
        spec(*overrides)
    assert "\n" not in str(raised.value)


def test_the_section_may_name_bounds_of_several(tmp_path: Path) -> None:
    made = spec("tune.objectives=[f1, latency_ms]", "tune.choose={latency_ms: {max: 20}, f1: {min: 0.5}}")
    assert made.tune.choose == {"latency_ms": {"max": 20.0}, "f1": {"min": 0.5}}
