"""The spec of a trial, and which keys and values a search may name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.pipeline.trial_spec import check_space, trial_spec, with_values
from heliostat.spec import Spec, load_spec


def spec(*overrides: str, space: dict[str, Any] | None = None, recipe: str = "tabular") -> Spec:
    loaded = load_spec(recipe, overrides)
    if space is None:
        return loaded
    values = loaded.model_dump(mode="json", exclude_unset=True)
    return build(Spec, {**values, "tune": {**values["tune"], "space": space}})


def test_a_key_without_a_dot_is_one_of_train_and_others_are_those_of_the_spec() -> None:
    found = with_values(spec(), {"learning_rate": 1e-4, "train.weight_decay": 0.1, "model.mlp.hidden": [8, 8]})
    assert (found.train.learning_rate, found.train.weight_decay) == (1e-4, 0.1)
    assert found.model.mlp is not None
    assert list(found.model.mlp.hidden) == [8, 8]
    assert found.data == spec().data


def test_a_trial_has_the_epochs_of_the_longest_one_unless_they_are_searched() -> None:
    assert trial_spec(spec("tune.epochs=3"), {"learning_rate": 1e-4}).train.epochs == 3
    assert trial_spec(spec("tune.epochs=3"), {"epochs": 5}).train.epochs == 5
    assert with_values(spec("tune.epochs=3"), {}).train.epochs == 30


def test_a_section_that_the_spec_leaves_out_can_be_searched() -> None:
    found = with_values(spec(recipe="chat"), {"train.adapter.rank": 4})
    assert found.train.adapter is not None
    assert found.train.adapter.rank == 4


@pytest.mark.parametrize(("how", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_the_rate_follows_the_batch_as_asked(how: str, factor: float) -> None:
    base = spec(f"tune.scale_learning_rate={how}", "train.global_batch_size=16", "train.learning_rate=0.001")
    assert math.isclose(with_values(base, {"global_batch_size": 64}).train.learning_rate, 0.001 * factor)
    both = with_values(base, {"global_batch_size": 64, "learning_rate": 0.5})
    assert both.train.learning_rate == 0.5


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, r"^tune\.space: empty"),
        (
            {"serve.replicas": {"choice": [1]}},
            r"^tune\.space\.serve\.replicas: a trial reads the sections train, data, m",
        ),
        ({"workers": {"choice": [1, 2]}}, r"^tune\.space\.workers: train\.workers is the same for all trials"),
        ({"data.split.test": {"choice": [0.1]}}, r"^tune\.space\.data\.split\.test: data\.split is the same for all"),
        (
            {"learning_rat": {"choice": [1]}},
            r"^tune\.space\.learning_rat: the spec has no 'learning_rat' there \(allowed:",
        ),
        ({"model.mlp.hiden": {"choice": [1]}}, r"^tune\.space\.model\.mlp\.hiden: the spec has no 'hiden' there"),
        (
            {"global_batch_size": {"choice": [16, 1]}},
            r"^tune\.space\.global_batch_size: 1 given; train.*at least train\.w",
        ),
        ({"warmup": {"uniform": [0.5, 2.0]}}, r"^tune\.space\.warmup: 2\.0 given; train\.warmup"),
        (
            {"epochs": {"choice": [1]}, "train.epochs": {"choice": [2]}},
            r"^tune\.space\.train\.epochs: the same key as tun",
        ),
    ],
)
def test_what_a_search_cannot_vary_is_refused_by_name(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(spec(space=space))


def test_trials_of_one_search_are_not_to_differ_by_what_computes_them() -> None:
    with pytest.raises(ConfigError, match=r"tune\.space\.precision: 'auto' given; bf16 and fp32 are allowed"):
        check_space(spec(space={"precision": {"choice": ["fp32", "auto"]}}))
    check_space(spec(space={"precision": {"choice": ["fp32", "bf16"]}}))


def test_a_trial_that_changed_its_values_has_stages_that_end_with_what_it_has_now() -> None:
    first, second = {"learning_rate": 0.1, "train.weight_decay": 0.5}, {"learning_rate": 0.2}
    found = with_values(spec(), {"learning_rate": 0.3}, [(0.25, first), (0.5, first), (0.75, second)]).train
    assert found.learning_rate == 0.3
    own = spec().train.weight_decay
    stages = [(one.until, one.learning_rate, one.weight_decay, one.betas) for one in found.stages]
    assert stages == [(0.5, 0.1, 0.5, None), (0.75, 0.2, own, None)]
    assert with_values(spec(), second, [(0.5, second)]).train.stages == []


def test_values_that_cannot_change_on_the_same_weights_are_no_part_of_stages() -> None:
    past = [(0.5, {"model.mlp.dropout": 0.1, "learning_rate": 0.1})]
    found = with_values(spec(), {"model.mlp.dropout": 0.3, "learning_rate": 0.2}, past).train
    assert [one.changes for one in found.stages] == [{"learning_rate": 0.1}]


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_population_changes_only_what_can_change_on_the_same_weights(scheduler: str) -> None:
    allowed = "{learning_rate: {uniform: [0.1, 1]}, train.weight_decay: {choice: [0.0, 0.1]}}"
    check_space(spec(f"tune.scheduler={scheduler}", f"tune.space={allowed}"))
    message = (
        rf"tune\.space\.global_batch_size: {scheduler} changes values while a trial is trained, which is possible for "
        "learning_rate, weight_decay, betas"
    )
    with pytest.raises(ConfigError, match=message):
        spec(f"tune.scheduler={scheduler}")


def test_a_key_that_stages_give_cannot_be_searched() -> None:
    stages = "train.stages=[{until: 0.5, learning_rate: 0.1}]"
    with pytest.raises(ConfigError, match=r"^tune\.space\.learning_rate: train\.stages gives train\.learning_rate too"):
        check_space(spec(stages))
    check_space(spec(stages, "tune.space={weight_decay: {uniform: [0, 1]}}"))


def test_a_search_without_validation_records_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.split\.validation: 0 given; a search compares its trials by that sp"):
        check_space(spec("data.split.validation=0"))


@pytest.mark.parametrize("recipe", ["chat", "digits", "images", "reviews-lstm", "sentiment", "tabular"])
def test_the_space_of_each_recipe_holds(recipe: str) -> None:
    check_space(spec(recipe=recipe))


def test_a_run_on_another_seed_has_that_seed_and_all_else_of_its_configuration() -> None:
    base = spec()
    first, again = (trial_spec(base, {"learning_rate": 1e-4, **seed}) for seed in ({}, {"train.seed": 1003}))
    assert (first.train.seed, again.train.seed) == (base.train.seed, 1003)
    assert again.model_copy(update={"train": first.train}) == first
    assert again.train.model_copy(update={"seed": first.train.seed}) == first.train
