"""Ray Serve's scaling and shutdown options from the `serve` section. Pure functions."""

from __future__ import annotations

from typing import Any

from heliostat.serve.config import ServeConfig

DRAIN_SECONDS = 3.0
"""How long a stopping replica still takes requests, so that the ingress can remove it first."""
SHUTDOWN_MARGIN_SECONDS = 5.0
REPORT_SECONDS = 1.0
"""How often a replica reports its ongoing requests."""
START_SECONDS = 10.0
"""Rough start time of a replica, sent as Retry-After."""
WINDOW_SECONDS = 5.0
"""Averaging window of ongoing requests, before the delays of the spec apply."""

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
    """Queueing while there is no replica: requests beyond the limit get 429 with Retry-After."""
    from ray.serve.config import BackpressureConfig

    return {
        "max_queued_requests": config.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=START_SECONDS),
    }


def draining(config: ServeConfig) -> dict[str, float]:
    """Shutdown of a replica: it finishes its ongoing requests, up to the longest allowed one."""
    return {
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": DRAIN_SECONDS + config.timeout_seconds + SHUTDOWN_MARGIN_SECONDS,
    }


def resources(config: ServeConfig) -> dict[str, float]:
    """CPUs and GPUs of one replica."""
    return {"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica}
