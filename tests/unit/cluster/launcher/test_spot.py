"""Spot machines first, on demand while the cloud refuses them: by Ray's own scheduler and launcher of machines."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from ray.autoscaler._private.event_summarizer import EventSummarizer
from ray.autoscaler._private.node_launcher import BaseNodeLauncher
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import ResourceDemandScheduler
from ray.autoscaler._private.util import ConcurrentCounter, prepare_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from heliostat.cluster.launcher.__main__ import examples
from heliostat.cluster.launcher.config import LauncherConfig
from heliostat.cluster.launcher.render import SCORER, parts
from heliostat.cluster.launcher.spot import refusals

MINUTES = 60


class Cloud(NodeProvider):
    """Has no spot machines; says so as the SDK of a cloud does."""

    def __init__(self) -> None:
        super().__init__({"type": "external"}, "heliostat")
        self.started: list[str] = []

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        kind = tags["ray-user-node-type"]
        with refusals():
            if kind.endswith("-spot"):
                raise RuntimeError("ZONE_RESOURCE_POOL_EXHAUSTED")
        self.started += [kind] * count


class Autoscaler:
    """The parts of Ray's that choose and start machines, with a clock of its own."""

    def __init__(self, launcher: LauncherConfig, provider: str) -> None:
        document = {key: value for part in parts(launcher, provider) for key, value in part.values.items()}
        self.config = prepare_config(document)
        self.now = 0.0
        self.cloud = Cloud()
        self.tracker = NodeProviderAvailabilityTracker(timer=lambda: self.now)
        self.launcher = BaseNodeLauncher(
            provider=self.cloud, pending=ConcurrentCounter(), event_summarizer=EventSummarizer(),
            node_provider_availability_tracker=self.tracker,
        )  # fmt: skip

    def chosen(self, demands: list[dict[str, float]]) -> dict[str, int]:
        """Node types that are started for what waits beside the head, and how many of each."""
        scheduler = ResourceDemandScheduler(
            self.cloud, self.config["available_node_types"], self.config["max_workers"], "head", 1.0
        )
        found, _ = scheduler.get_nodes_to_launch([], {}, demands, {}, [], {}, [], self.tracker.summary())
        return {kind: count for kind, count in found.items() if count and kind != "head"}

    def start(self, kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.time", lambda: self.now)
        self.launcher.pending.inc(kind, count)
        self.launcher.launch_node(self.config, count, kind)


@pytest.fixture(autouse=True)
def scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTOSCALER_UTILIZATION_SCORER", SCORER)


@pytest.mark.parametrize(("provider", "pool"), [("aws", "l4"), ("gcp", "l4"), ("azure", "a10")])
def test_on_demand_machines_are_started_while_the_cloud_refuses_spot_ones(
    provider: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = Autoscaler(examples(), provider)
    work: list[dict[str, float]] = [{"GPU": 1, "CPU": 1}] * 3
    assert autoscaler.chosen(work) == {f"{pool}-spot": 3}
    autoscaler.start(f"{pool}-spot", 3, monkeypatch)
    assert autoscaler.cloud.started == []
    assert autoscaler.chosen(work) == {f"{pool}-on-demand": 3}
    autoscaler.start(f"{pool}-on-demand", 3, monkeypatch)
    assert autoscaler.cloud.started == [f"{pool}-on-demand"] * 3
    autoscaler.now += 31 * MINUTES
    assert autoscaler.chosen(work) == {f"{pool}-spot": 3}, "half an hour later they are tried again"


def test_the_newer_autoscaler_of_ray_does_not_remember_a_refusal() -> None:
    """Why heads run the older one; where this fails, `priority` of node types does what our scorer does."""
    monitor = CloudResourceMonitor()
    monitor.notify(
        [InstanceUpdateEvent(instance_id="1", instance_type="l4-spot", new_instance_status=Instance.ALLOCATION_FAILED)]
    )
    assert monitor.get_recoverable_resource_availabilities() == {}


def test_a_pool_keeps_its_minimum_on_demand_and_all_pools_their_sum() -> None:
    aws = examples().model_dump()["aws"]
    pools = {
        "one": {"machine": "g6.2xlarge", "cpus": 8, "gpus": 1, "min": 1, "max": 2},
        "lent": {"machine": "m7i.2xlarge", "cpus": 8, "min": 2, "max": 3, "capacity": "spot"},
        "bought": {"machine": "c7i.2xlarge", "cpus": 8, "max": 4, "capacity": "on-demand"},
    }
    launcher = LauncherConfig.model_validate({"image": "r/h:1", "aws": {**aws, "pools": pools}})
    config = Autoscaler(launcher, "aws").config
    kept = {name: kind["min_workers"] for name, kind in config["available_node_types"].items()}
    assert kept == {"head": 0, "one-spot": 0, "one-on-demand": 1, "lent-spot": 2, "bought-on-demand": 0}
    assert config["max_workers"] == 9


def test_work_without_a_gpu_starts_no_machine_that_has_one() -> None:
    aws = examples().model_dump()["aws"]
    pools = {**aws["pools"], "cpu": {"machine": "m7i.2xlarge", "cpus": 8, "max": 2}}
    launcher = LauncherConfig.model_validate({"image": "r/h:1", "aws": {**aws, "pools": pools}})
    assert Autoscaler(launcher, "aws").chosen([{"CPU": 8}]) == {"cpu-spot": 1}


def test_what_fits_no_machine_starts_none() -> None:
    assert Autoscaler(examples(), "aws").chosen([{"GPU": 8}]) == {}


def test_a_refusal_is_told_in_the_words_of_the_cloud() -> None:
    with pytest.raises(NodeLaunchException, match=r"\(RuntimeError\): no quota") as raised, refusals():
        raise RuntimeError("no quota")
    assert isinstance(raised.value.__cause__, RuntimeError)
    with pytest.raises(NodeLaunchException, match="AWS") as raised, refusals():
        raise NodeLaunchException("InsufficientCapacity", "AWS says so itself", sys.exc_info())
    assert raised.value.category == "InsufficientCapacity"
