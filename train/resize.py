"""Ray Train's TorchTrainer as runs need it: it saves before its number of workers changes, and has no idle actors."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)

SAVE_SECONDS = 120.0
"""Longest wait for that checkpoint; after it the run is resized all the same."""


class SavingScalingPolicy(ElasticScalingPolicy):
    """Ray Train's elastic policy, whose decision to resize waits until the workers have stored a checkpoint."""

    def __init__(self, scaling_config: Any, channel: Any) -> None:
        super().__init__(scaling_config)
        self._channel = channel
        self._pending: ResizeDecision | None = None
        self._deadline = 0.0

    def make_decision_for_running_worker_group(self, *args: Any, **options: Any) -> ScalingDecision:
        """Ray's decision; one to resize asks for a checkpoint first, and is given when that is stored."""
        if self._pending is None:
            decision = super().make_decision_for_running_worker_group(*args, **options)
            if not isinstance(decision, ResizeDecision):
                return decision
            self._pending, self._deadline = decision, time.monotonic() + SAVE_SECONDS
            ray.get(self._channel.ask_to_save.remote())
        if not ray.get(self._channel.is_saved.remote()) and time.monotonic() < self._deadline:
            return NoopDecision()
        ready, self._pending = self._pending, None
        return ready

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Ray's decision; workers that have ended cannot store a checkpoint any more."""
        self._pending = None
        return super().make_decision_for_non_running_worker_group()


class ElasticTrainer(TorchTrainer):
    """A TorchTrainer that leaves Ctrl-C to the driver, and has SavingScalingPolicy if its number of workers may change.

    `channel` is the DriverChannel. Ray must be up.
    """

    def __init__(self, *args: Any, channel: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._channel = channel

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            parts["scaling_policy"] = SavingScalingPolicy(self.scaling_config, self._channel)
        return super()._initialize_and_run_controller(**parts)

    def _create_default_callbacks(self) -> list[Any]:
        """Ray's callbacks, without those that start an actor which can do nothing here.

        Rows come from prepared shards, never from Ray Data. The cleaner of placement groups asks the API server whether
        the controller lives; without one it learns nothing, and the end of a run would wait 12 s for it.
        """
        idle = (DatasetsCallback,) if _has_api_server() else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, idle)]

    def _register_sigint_handler(self, controller: Any) -> None:
        """Registers none: Ray's would abort the workers without a checkpoint, and there is no option for this."""


def _has_api_server() -> bool:
    """Whether the Ray that this process has joined has its API server (the dashboard's)."""
    from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
    from ray.experimental.internal_kv import _internal_kv_get

    return bool(_internal_kv_get(DASHBOARD_ADDRESS, namespace=KV_NAMESPACE_DASHBOARD))
