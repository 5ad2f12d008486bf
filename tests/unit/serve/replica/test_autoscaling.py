"""The policy, with the context that Ray Serve gives it and within the limits that Ray Serve puts around it."""

from __future__ import annotations

from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from heliostat.serve.config import ServeConfig
from heliostat.serve.replica.autoscaling import FIRST_TOKEN_SECONDS, FRESH_SECONDS, FirstTokenPolicy
from heliostat.serve.replica.scaling import autoscaling

NOW = 1000.0
TARGET = 0.5
DEPLOYMENT = DeploymentID(name="model", app_name="chat")


def config(**settings: Any) -> AutoscalingConfig:
    serve = ServeConfig.model_validate(
        {
            "target_first_token_seconds": TARGET,
            "target_ongoing_requests": 4,
            "replicas": {"min": 1, "max": 8},
            **settings,
        }
    )
    return AutoscalingConfig(**autoscaling(serve))


def context(
    replicas: int, requests: float, waits: list[float], age: float = 1.0, state: Any = None, **settings: Any
) -> AutoscalingContext:
    ids = [ReplicaID(unique_id=str(at), deployment_id=DEPLOYMENT) for at in range(replicas)]
    points = {one: [TimeStampedValue(NOW - age, wait)] for one, wait in zip(ids, waits, strict=False)}
    return AutoscalingContext(
        deployment_id=DEPLOYMENT, deployment_name="model", app_name="chat",
        current_num_replicas=replicas, target_num_replicas=replicas, running_replicas=ids,
        total_num_requests=requests, total_queued_requests=0,
        aggregated_metrics={}, raw_metrics={FIRST_TOKEN_SECONDS: points} if waits else {},
        capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=8,
        policy_state=state or {}, last_scale_up_time=None, last_scale_down_time=None,
        current_time=NOW, config=config(**settings),
    )  # fmt: skip


def wanted(*args: Any, **settings: Any) -> float:
    return FirstTokenPolicy(TARGET)(context(*args, **settings))[0]


def test_ray_serve_takes_the_policy_from_the_spec_by_name() -> None:
    policy = config().policy.get_policy()
    assert policy(**config().policy.policy_kwargs).target_seconds == TARGET
    assert config(target_first_token_seconds=None).policy.is_default_policy_function()


@pytest.mark.parametrize(
    ("replicas", "requests", "waits", "expected"),
    [
        (2, 8, [0.1, 0.1], 2),
        (2, 2, [0.6, 0.8], 2.8),
        (2, 2, [5.0, 5.0], 4),
        (2, 30, [0.6, 0.6], 7.5),
        (3, 2, [0.3, 0.4, 0.3], 3),
        (3, 2, [0.1, 0.1, 0.1], 0.5),
        (3, 0, [], 0),
    ],
    ids=["as many as asked", "slow", "doubles at most", "many requests", "holds", "gives back", "idle"],
)
def test_how_many_are_wanted(replicas: int, requests: float, waits: list[float], expected: float) -> None:
    assert wanted(replicas, requests, waits) == pytest.approx(expected)


def test_what_was_said_long_ago_counts_no_more_and_nothing_is_given_back() -> None:
    stale = FRESH_SECONDS + 1
    assert wanted(3, 2, [9.0, 9.0, 9.0], age=stale) == 3
    assert wanted(3, 2, [0.1, 0.1, 0.1], age=stale) == 3
    assert wanted(3, 20, [0.1, 0.1, 0.1], age=stale) == 5


def test_a_steady_load_does_not_flap() -> None:
    """Waits that double when a replica goes and halve when one comes settle, and stay."""
    policy, replicas, seen = _apply_autoscaling_config(FirstTokenPolicy(TARGET)), 1, list[int]()
    state: dict[str, Any] = {}
    for _ in range(50):
        found = context(replicas, 2, [1.2 / replicas] * replicas, state=state, upscale_delay_seconds=0,
                        downscale_delay_seconds=0)  # fmt: skip
        replicas, state = policy(found)
        seen.append(replicas)
    assert seen[-1] == 3
    assert set(seen[5:]) == {3}
