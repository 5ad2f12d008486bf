"""The ledger of an endpoint in an actor, and how a replica reaches it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np

from heliostat.cluster.session.session import NAMESPACE
from heliostat.serve.drift.window import DriftLedger, Report

IDLE_SECONDS = 3600.0
"""After so long without a replica, the ledger ends, and what was counted is forgotten."""
REPLY_SECONDS = 5.0


class DriftLedgerActor(DriftLedger):
    """The ledger, which ends itself once no replica has reported for IDLE_SECONDS."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        super().__init__()
        threading.Thread(target=self._end_when_idle, args=(idle_seconds,), daemon=True).start()

    def _end_when_idle(self, seconds: float) -> None:
        import ray

        time.sleep(seconds)
        while not self.is_idle(seconds):
            time.sleep(seconds / 10)
        ray.kill(ray.get_runtime_context().current_actor)


class LedgerClient:
    """Exchanges reports with the ledger of an endpoint, which is started where there is none."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._ledger: Any = None

    def __call__(self, version: str, replica: str, number: int, report: Report) -> np.ndarray | None:
        """See `DriftLedger.exchange`; raises what Ray raises where the ledger cannot be reached."""
        import ray

        try:
            self._ledger = self._ledger or _find(self._endpoint)
            reply = self._ledger.exchange.remote(version, replica, number, report)
            found: np.ndarray | None = ray.get(reply, timeout=REPLY_SECONDS)
        except Exception:
            self._ledger = None
            raise
        return found


def _find(endpoint: str) -> Any:
    import ray

    options = {"name": _name(endpoint), "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": -1}
    return ray.remote(num_cpus=0)(DriftLedgerActor).options(get_if_exists=True, **options).remote()


def end_drift_ledger(endpoint: str) -> None:
    """Ends the ledger of an endpoint that is taken away, if there is one."""
    import ray

    with suppress(ValueError):
        ray.kill(ray.get_actor(_name(endpoint), namespace=NAMESPACE))


def _name(endpoint: str) -> str:
    return f"heliostat-drift-{endpoint}"
