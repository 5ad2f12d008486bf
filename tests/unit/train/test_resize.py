"""A change in the number of workers waits for a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ResizeDecision

from heliostat.train import resize
from heliostat.train.launch import DriverChannel
from heliostat.train.parallel.distributed import World
from heliostat.train.resize import ElasticTrainer, SavingScalingPolicy
from heliostat.train.telemetry.notices import RayNotices

GROWN = ResizeDecision(num_workers=2, resources_per_worker={"CPU": 1})


def remote(channel: DriverChannel) -> Any:
    """The channel as the handle of an actor, whose answers are there at once."""
    names = [name for name in dir(channel) if not name.startswith("_")]
    return SimpleNamespace(**{name: SimpleNamespace(remote=getattr(channel, name)) for name in names})


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> DriverChannel:
    monkeypatch.setattr("ray.get", lambda value: value)
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: None)
    return DriverChannel()


@pytest.fixture
def policy(channel: DriverChannel, monkeypatch: pytest.MonkeyPatch) -> SavingScalingPolicy:
    """One of a cluster in which a node has joined, as Ray notices once."""
    answers = [NoopDecision(), GROWN]
    monkeypatch.setattr(
        ElasticScalingPolicy, "make_decision_for_running_worker_group", lambda *_: answers.pop(0) if answers else None
    )
    monkeypatch.setattr(ElasticScalingPolicy, "make_decision_for_non_running_worker_group", lambda _: GROWN)
    return SavingScalingPolicy(ScalingConfig(num_workers=(1, 2)), remote(channel))


def decision(policy: SavingScalingPolicy) -> Any:
    return policy.make_decision_for_running_worker_group(None, None)


def test_workers_store_a_checkpoint_before_their_number_changes(
    policy: SavingScalingPolicy, channel: DriverChannel
) -> None:
    notices = RayNotices(World(0, 1, "cpu"), remote(channel))
    assert isinstance(decision(policy), NoopDecision)
    assert notices.ask() == ""
    for _ in range(3):
        assert isinstance(decision(policy), NoopDecision)
        assert notices.ask() == "save"
    notices.saved()
    assert notices.ask() == ""
    assert decision(policy) is GROWN


def test_a_checkpoint_that_does_not_come_does_not_hold_the_run_for_ever(
    policy: SavingScalingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resize, "SAVE_SECONDS", 0.0)
    decision(policy)
    assert decision(policy) is GROWN


def test_workers_that_have_ended_are_not_waited_for(policy: SavingScalingPolicy) -> None:
    decision(policy)
    assert isinstance(decision(policy), NoopDecision)
    assert policy.make_decision_for_non_running_worker_group() is GROWN
    assert decision(policy) is None


def test_stopping_comes_before_saving(channel: DriverChannel) -> None:
    channel.ask_to_save()
    channel.stop()
    assert channel.notice() == "stop"


@pytest.mark.parametrize(("has_api_server", "idle"), [(False, {PlacementGroupCleanerCallback}), (True, set())])
def test_a_run_starts_no_actor_that_can_do_nothing(
    monkeypatch: pytest.MonkeyPatch, has_api_server: bool, idle: set[type]
) -> None:
    monkeypatch.setattr(resize, "_has_api_server", lambda: has_api_server)
    trainer = ElasticTrainer(lambda: None, channel=None)
    callbacks = {type(callback) for callback in trainer._create_default_callbacks()}
    of_ray = {type(callback) for callback in TorchTrainer._create_default_callbacks(trainer)}
    assert of_ray - callbacks == {DatasetsCallback, *idle}
