"""What a gang is made of, and what its workers ask of the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.spec import load_spec
from heliostat.train.config import TrainConfig
from heliostat.tune.gang import Crew


def crew(gpus: float | None, use_gpu: bool = True) -> Crew:
    return Crew.of(TrainConfig.model_validate({"workers": 1, "cpus_per_worker": 2}), use_gpu, gpus)


def test_a_worker_has_a_gpu_or_its_share_of_one() -> None:
    assert crew(None).bundle == {"CPU": 2.0, "GPU": 1.0}
    assert crew(0.25).bundle == {"CPU": 2.0, "GPU": 0.25}
    assert crew(0.25, use_gpu=False).bundle == {"CPU": 2.0}


@pytest.mark.parametrize(("free", "has_room"), [(0.25, True), (0.2, False), (0.0, False)])
def test_there_is_room_where_its_share_is_free(free: float, has_room: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 8.0, "GPU": free})
    assert crew(0.25).has_room() == has_room


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.workers=2", "tune.gpus_per_trial=0.5"], "a trial has 2 workers .train.workers., of which NCCL"),
        (["train.workers=1", "tune.gpus_per_trial=1.5"], "tune.gpus_per_trial: 1.5 given; .* less than or equal to 1"),
        (
            ["train.workers=1", "tune.gpus_per_trial=0.5", "train.use_gpu=false"],
            "0.5 given, and train.use_gpu is false",
        ),
    ],
)
def test_a_share_that_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_spec("tabular", overrides)


@pytest.mark.parametrize("overrides", [["train.workers={min: 1, max: 4}"], ["train.use_gpu=auto", "train.workers=1"]])
def test_a_share_is_for_gangs_of_one_worker_whatever_the_run_has(overrides: list[str]) -> None:
    assert load_spec("tabular", ["tune.gpus_per_trial=0.5", *overrides]).tune.gpus_per_trial == 0.5


@pytest.mark.parametrize(("gpus", "set_to"), [(0.5, [0.5]), (1.0, []), (0.0, [])])
def test_a_worker_keeps_to_its_share_of_the_memory(
    gpus: float, set_to: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from heliostat.tune.member import Member

    kept: list[Any] = []
    monkeypatch.setattr("heliostat.train.parallel.distributed.configure_process", lambda _: None)
    monkeypatch.setattr("heliostat.train.parallel.distributed.join", lambda _: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", kept.append)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    Member(1, gpus).join(0, 1, "127.0.0.1", 1)
    assert kept == set_to
