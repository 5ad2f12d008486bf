"""From the `serve` section to what Ray Serve scales, drains and restarts by. Pure functions."""

from __future__ import annotations

from typing import Any

from heliostat.serve.config import ServeConfig

DRAIN_SECONDS = 3.0
"""How long a replica that is to stop still takes requests, so that the ingress can take it off its list first."""
SHUTDOWN_MARGIN_SECONDS = 5.0
REPORT_SECONDS = 1.0
"""How often a replica reports its ongoing requests."""
START_SECONDS = 10.0
"""About how long a replica takes to start."""
WINDOW_SECONDS = 5.0
"""Over how long they are averaged before the delays of the spec count."""

POLICY = "heliostat.serve.replica.autoscaling:FirstTokenPolicy"


def autoscaling(config: ServeConfig) -> dict[str, Any]:
    """Fields of Ray Serve's AutoscalingConfig."""
    target = config.target_first_token_seconds
    policy = {"policy_function": POLICY, "policy_kwargs": {"target_seconds": target}}
    return {
        **({"policy": policy} if target else {}),
        "min_replicas": config.replicas.min,
        "initial_replicas": config.replicas.first,
        "max_replicas": config.replicas.max,
        "target_ongoing_requests": config.target_ongoing_requests,
        "upscale_delay_s": config.upscale_delay_seconds,
        "downscale_delay_s": config.downscale_delay_seconds,
        "downscale_to_zero_delay_s": config.scale_to_zero_delay_seconds,
        "metrics_interval_s": REPORT_SECONDS,
        "look_back_period_s": WINDOW_SECONDS,
    }


def holding(config: ServeConfig) -> dict[str, Any]:
    """How requests wait while there is no replica; those beyond the limit hear when to come again."""
    from ray.serve.config import BackpressureConfig

    return {
        "max_queued_requests": config.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=START_SECONDS),
    }


def draining(config: ServeConfig) -> dict[str, float]:
    """How a replica stops: it finishes what it has begun, the longest allowed answer included."""
    return {
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": DRAIN_SECONDS + config.timeout_seconds + SHUTDOWN_MARGIN_SECONDS,
    }


def resources(config: ServeConfig) -> dict[str, float]:
    """CPUs and GPUs of one replica."""
    return {"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica}
