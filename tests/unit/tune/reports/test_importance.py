"""What of a configuration matters, and how sure that is."""

from __future__ import annotations

import math
import random
import warnings

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.tune.reports.importance import EVALUATORS, LEAST_TRIALS, Importances, importances, is_chance
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Trial
from tests.trials import state, trial


def configuration(rng: random.Random) -> dict[str, object]:
    """Values of which only the first one matters."""
    schedule = rng.choice(["cosine", "linear", None])
    found: dict[str, object] = {"learning_rate": 10 ** rng.uniform(-5, -2), "noise": rng.random(), "schedule": schedule}
    return {**found, "constant": 7, **({"warmup": rng.random()} if schedule == "cosine" else {})}


def searched(count: int) -> SearchState:
    """A search in which the learning rate decides, beside a little noise."""
    rng = random.Random(3)
    trials = []
    for number in range(count):
        values = configuration(rng)
        accuracy = 1 - abs(math.log10(float(str(values["learning_rate"]))) + 3.5) / 3 + rng.gauss(0, 0.01)
        trials.append(trial(number, [0.2, 0.3, accuracy, accuracy], values))
    return state(trials)


def found(of: SearchState, evaluator: str) -> Importances:
    return importances(of, logarithmic=["learning_rate"], evaluator=evaluator)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_what_decides_is_first_and_its_range_lies_above_the_others(evaluator: str) -> None:
    first, *others = found(searched(150), evaluator).keys
    assert (first.key, first.is_chance) == ("learning_rate", False)
    assert all(first.low > other.high for other in others)
    assert sum(one.mean for one in (first, *others)) == pytest.approx(1)
    assert all(0 <= one.low <= one.high <= 1 for one in (first, *others))


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_where_nothing_matters_keys_are_not_told_from_chance(evaluator: str) -> None:
    by_chance: list[bool] = []
    for seed in range(3):
        rng = random.Random(seed)
        trials = [trial(number, [rng.random()], configuration(rng)) for number in range(30)]
        by_chance += [one.is_chance for one in found(state(trials), evaluator).keys]
    assert sum(by_chance) >= 0.7 * len(by_chance)


def test_chance_is_what_more_than_one_deal_in_twenty_gives() -> None:
    dealt = [float(value) for value in range(40)]
    assert is_chance(37.0, dealt)
    assert not is_chance(38.0, dealt)
    assert is_chance(9.0, dealt[:10]), "of ten deals none may give as much"
    assert not is_chance(9.5, dealt[:10])


def test_what_is_left_out_is_named() -> None:
    every = found(searched(40), "ped-anova")
    assert {one.key for one in every.keys} == {"learning_rate", "noise", "schedule", "warmup"}
    assert every.note == "Left out: constant, which had one value only."
    forest = found(searched(40), "fanova")
    assert {one.key for one in forest.keys} == {"learning_rate", "noise", "schedule"}
    assert forest.note.startswith("Left out: constant, warmup, which had one value only, or no value in some trials.")


def test_fewer_trials_are_less_sure() -> None:
    def width(count: int) -> float:
        first = found(searched(count), "ped-anova").keys[0]
        return first.high - first.low

    assert width(16) > width(160)


@pytest.mark.parametrize("count", [0, 1, LEAST_TRIALS - 1])
def test_too_few_trials_have_a_note_in_place_of_numbers(count: int) -> None:
    few = found(searched(count), "ped-anova")
    assert few.keys == ()
    assert few.note == f"10 trials or more with a value are needed; there {'is' if count == 1 else 'are'} {count}."


def test_failed_trials_alone_say_nothing() -> None:
    failed = state([trial(number, [], {"a": number, "b": -number}, until=1, error="x") for number in range(30)])
    assert found(failed, "ped-anova").keys == ()


def test_keys_of_one_value_leave_nothing_to_compare() -> None:
    same = state([trial(number, [0.5], {"a": number, "b": 1}) for number in range(20)])
    assert found(same, "ped-anova") == Importances(
        "ped-anova", 20, note="There is nothing to compare. Left out: b, which had one value only."
    )


def test_failed_trials_count_as_the_worst_and_those_in_training_do_not_count() -> None:
    def divided(good: int, other: dict[str, object]) -> list[Trial]:
        trials = [trial(number, [0.5], {"schedule": "good", "noise": (number * 7) % 20}) for number in range(good)]
        return [
            *trials,
            *(trial(good + at, [], {"schedule": "bad", "noise": (at * 7) % 20}, until=1, **other) for at in range(20)),
        ]

    failing = found(state(divided(20, {"error": "diverged"})), "ped-anova")
    assert (failing.keys[0].key, failing.trials) == ("schedule", 40)
    training = found(state(divided(20, {})), "ped-anova")
    assert (training.keys, training.trials) == ((), 20)


def test_the_same_trials_have_the_same_importances() -> None:
    assert found(searched(30), "ped-anova") == found(searched(30), "ped-anova")


def test_nothing_is_said_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for evaluator in EVALUATORS:
            found(searched(12), evaluator)
    assert capfd.readouterr() == ("", "")


def test_another_evaluator_is_refused() -> None:
    with pytest.raises(ConfigError, match="evaluator: 'shap' given; allowed: ped-anova, fanova"):
        importances(searched(3), evaluator="shap")
