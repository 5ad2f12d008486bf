"""What a search has spent, in hours and in money, and when that is enough."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.tune.budget import BudgetWatch, budget_of
from heliostat.tune.config import BudgetConfig, TuneConfig
from heliostat.tune.gang import Crew
from heliostat.tune.price import Price, usd
from heliostat.tune.spending import Spending
from tests.trials import state, trial

CPUS, GPUS = Crew(2, 3, 0.0), Crew(2, 3, 1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `Spending` reads."""
    now = [100.0]
    monkeypatch.setattr("heliostat.tune.spending.time.monotonic", lambda: now[0])
    return now


def test_hours_count_for_all_workers_of_the_gangs_that_are_up_and_add_up_over_drivers(clock: list[float]) -> None:
    counted = Spending(2, 0.5)
    counted.add({"seconds": 10.0, "worker_seconds": 1760.0, "usd": 99.0})  # of a journal from before idle ones counted
    clock[0] += 10
    counted.count(3, 1)
    clock[0] += 5
    counted.count(0, 0)
    hours = 1820 / 3600
    assert counted.total == {
        "seconds": 25.0,
        "worker_seconds": 1820.0,
        "idle_worker_seconds": 20.0,
        "usd": pytest.approx(0.5 * hours),
    }
    assert "usd" not in Spending(2, None).total


def test_each_budget_ends_a_search_at_its_own_unit() -> None:
    spent = {"seconds": 3600.0, "worker_seconds": 7200.0, "usd": 1.5}
    assert budget_of(BudgetConfig())(spent) is None
    assert budget_of(BudgetConfig(hours=1.1, worker_hours=2.1, usd=1.6))(spent) is None
    for key, limit in (("hours", 1), ("worker_hours", 2), ("usd", 1.5)):
        said = budget_of(BudgetConfig.model_validate({key: limit}))(spent)
        assert said == f"tune.budget.{key}: {limit:g} used up"


def test_a_worker_costs_its_accelerator_or_its_cores() -> None:
    assert Price.read("A100 80 GB=3.5") == Price("A100 80 GB", 3.5)
    assert Price.read("CPU=0.05").of_worker(CPUS) == pytest.approx(0.15)
    assert Price("H100", 4.0).of_worker(GPUS) == 4.0
    assert Price("H100", 4.0).of_worker(Crew(1, 3, 0.25)) == 1.0


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"price": "T1000=2"}, r"^price: 'T1000=2' given; write NAME=USD, with a name of CPU, B200, "),
        ({"price": "CPU=-1"}, r"^price: 'CPU=-1' given; "),
        ({"price": "CPU"}, r"^price: 'CPU' given; "),
        ({"budget": {"usd": 5}}, r"^tune.budget.usd: 5 given without a price; --price NAME=USD is needed"),
    ],
)
def test_a_price_that_is_none_and_money_without_one_are_refused(tune: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TuneConfig, tune)


@pytest.mark.parametrize(("name", "crew", "on"), [("CPU", GPUS, "GPUs"), ("L4", CPUS, "CPUs")])
def test_the_price_of_what_workers_do_not_run_on_is_refused(name: str, crew: Crew, on: str) -> None:
    with pytest.raises(ConfigError, match=f"^tune.price: {name} given, and workers run on {on}; "):
        Price(name, 1.0).of_worker(crew)


def test_small_amounts_are_not_rounded_to_nothing() -> None:
    assert [usd(one) for one in (0.0, 0.00123, 0.5, 1234.5)] == ["0.00 USD", "0.0012 USD", "0.50 USD", "1,234.50 USD"]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"hours": 0.001}, "tune.budget.hours: 0.001 given, and a trial in full takes about 0.0017"),
        ({"hours": 0.002, "worker_hours": 0.003}, "tune.budget.worker_hours: 0.003 given, and a trial in full takes"),
        ({"usd": 1}, "tune.budget.usd: 1 given, and a trial in full takes about 1.3, by what trial 1 took so far"),
        ({"hours": 0.002, "worker_hours": 0.004, "usd": 2}, ""),
        ({}, ""),
    ],
)
def test_a_budget_that_no_trial_fits_is_told_of_once_as_soon_as_a_trial_was_validated(
    budget: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = BudgetWatch(BudgetConfig.model_validate(budget), 2)
    waiting, begun = trial(0, [], until=0.25), trial(1, [0.5], until=0.25)  # 1.5 s of 6
    for trials in ([waiting], [waiting, begun], [waiting, begun]):
        watch.update(state(trials, gang_hour_price=800.0))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(said)
    assert not said or lines[0].startswith(said)
