"""What workers measure of a trial beside its validation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from heliostat.train.parallel.tensor_parallel import SPLIT
from heliostat.train.telemetry.stats import StepStats
from heliostat.tune import measure
from heliostat.tune.measure import Meter
from heliostat.tune.objectives import MEASURED

STEP = StepStats(1, 9, 0.5, 1e-3, 1.0, seconds=2.0, samples=8, micro_batch_size=8, tokens=80)


class Three:
    """The first of three workers, which are alike."""

    def sum(self, *values: float) -> list[float]:
        return [3 * value for value in values]

    def from_first(self, make: Any) -> Any:
        return make()

    def to_device(self, batch: Any) -> Any:
        return batch


class Task:
    """Counts its passes, and says in which mode the model was."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, bool, bool]] = []

    def collate(self, rows: Any, indices: np.ndarray) -> dict[str, torch.Tensor]:
        return {"records": torch.from_numpy(indices)}

    def outputs(self, model: Any, batch: Any) -> None:
        (record,) = batch["records"].tolist()
        self.passes.append((record, model.training, torch.is_grad_enabled()))


class Rows:
    lengths = np.array([9, 1, 5])

    def __len__(self) -> int:
        return 3


def run_of(module: torch.nn.Module, tensor_parallel: int = 1) -> Any:
    module.train()
    engine = SimpleNamespace(module=module, training=True)
    engine.eval = lambda: setattr(engine, "training", False)
    engine.train = lambda mode: setattr(engine, "training", mode)
    return SimpleNamespace(
        world=Three(), task=Task(), engine=engine, checkpoints=None, on_evaluated=lambda _: None,
        validation=Rows(), train=SimpleNamespace(tensor_parallel=tensor_parallel),
    )  # fmt: skip


@pytest.fixture
def run() -> Any:
    return run_of(torch.nn.Linear(4, 2))


def test_nothing_is_measured_that_is_not_asked_for(run: Any) -> None:
    meter = Meter(())
    meter.begin()
    meter.stepped(STEP)
    assert meter.measured(run) == {}
    assert run.task.passes == []


def test_all_that_can_be_asked_for_is_measured(run: Any) -> None:
    meter = Meter(tuple(MEASURED))
    meter.begin()
    meter.stepped(STEP)
    assert meter.measured(run).keys() == MEASURED.keys()


def test_rates_are_the_median_of_all_workers_steps_without_the_first(run: Any) -> None:
    meter = Meter(("tokens_per_second", "records_per_second"))
    meter.begin()
    meter.stepped(replace(STEP, seconds=100.0))
    assert meter.measured(run)["tokens_per_second"] == pytest.approx(3 * 0.8)  # the only one so far
    for seconds in (2.0, 1.0, 50.0):
        meter.stepped(replace(STEP, seconds=seconds))
    assert meter.measured(run) == {"tokens_per_second": 3 * 40.0, "records_per_second": 3 * 4.0}
    meter.begin()
    meter.stepped(STEP)
    meter.stepped(replace(STEP, seconds=8.0))
    assert meter.measured(run)["records_per_second"] == 3.0  # none of the trial before


def test_latency_is_of_the_median_record_in_evaluation_and_once_a_beginning(run: Any) -> None:
    meter = Meter(("latency_ms",))
    meter.begin()
    first = meter.measured(run)["latency_ms"]
    passes = len(run.task.passes)
    assert first > 0
    assert set(run.task.passes) == {(2, False, False)}  # of five tokens
    assert measure.WARM_UP + measure.FEWEST <= passes <= measure.WARM_UP + measure.MOST
    assert run.engine.training
    assert meter.measured(run) == {"latency_ms": first}
    assert len(run.task.passes) == passes
    meter.begin()
    meter.measured(run)
    assert len(run.task.passes) > passes


def test_latency_waits_until_checkpoints_are_stored(run: Any) -> None:
    waited: list[int] = []
    run.checkpoints = SimpleNamespace(wait=lambda: waited.append(len(run.task.passes)))
    measure.latency_ms(run)
    assert waited == [0]


def test_size_is_that_of_the_whole_model_whatever_this_rank_holds() -> None:
    plain = run_of(torch.nn.Linear(4, 2).bfloat16())
    assert (measure.parameters(plain), measure.size_bytes(plain)) == (10, 20)
    sharded: Any = torch.nn.Linear(4, 2)
    sharded.weight = torch.nn.Parameter(torch.empty(0))
    sharded.weight.ds_numel = 8
    assert (measure.parameters(run_of(sharded)), measure.size_bytes(run_of(sharded))) == (10, 40)
    split: Any = torch.nn.Linear(4, 1)
    setattr(split.weight, SPLIT, True)
    assert measure.parameters(run_of(split, tensor_parallel=2)) == 8 + 1
    packed: Any = torch.nn.Linear(4, 2, bias=False)
    packed.weight = torch.nn.Parameter(torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False)
    packed.weight.quant_state = SimpleNamespace(shape=(2, 4))
    assert (measure.parameters(run_of(packed)), measure.size_bytes(run_of(packed))) == (8, 4)
