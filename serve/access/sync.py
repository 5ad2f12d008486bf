"""Shares the usage of keys between the replicas of an endpoint, through an actor that outlives each of them."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from heliostat.cluster.session.session import NAMESPACE
from heliostat.infra import log
from heliostat.serve.access.usage import WINDOW_SECONDS, Report, UsageCounter, UsageLedger

SHARE_SECONDS = 0.25
REPLY_SECONDS = 5.0
_log = log.get(__name__)


class LedgerActor(UsageLedger):
    """The ledger in an actor, which ends itself when no replica has reported for a minute.

    Replicas report as long as they live, so an endpoint that is taken away leaves none.
    """

    def __init__(self, idle_seconds: float = WINDOW_SECONDS) -> None:
        super().__init__()
        threading.Thread(target=self._end_when_idle, args=(idle_seconds,), daemon=True).start()

    def _end_when_idle(self, seconds: float) -> None:
        import ray

        time.sleep(seconds)
        while not self.is_idle():
            time.sleep(seconds)
        ray.kill(ray.get_runtime_context().current_actor)


class UsageSync:
    """A thread that shares a replica's usage with the others; started by the first request with a limited key."""

    def __init__(self, counter: UsageCounter, endpoint: str) -> None:
        self._counter = counter
        self._endpoint = endpoint
        self._ledger: Any = None
        self._is_lost = False
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Starts the thread. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heliostat-usage", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()

    def _run(self) -> None:
        closed = False
        while not closed:
            try:
                self._counter.share(self._exchange)
                self._is_lost = False
            except Exception as error:
                if not self._is_lost:
                    _log.warning("limits of keys are counted in each replica alone for now: %s", error)
                self._is_lost, self._ledger = True, None
            closed = self._closed.wait(SHARE_SECONDS)

    def _exchange(self, replica: str, number: int, report: Report) -> Report:
        import ray

        if self._ledger is None:
            self._ledger = find_ledger(self._endpoint)
        found: Report = ray.get(self._ledger.exchange.remote(replica, number, report), timeout=REPLY_SECONDS)
        return found


def find_ledger(endpoint: str) -> Any:
    """The ledger actor of an endpoint: detached, so that it outlives its creator, and started again with its node."""
    import ray

    options = {"name": _actor_name(endpoint), "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": -1}
    return ray.remote(num_cpus=0)(LedgerActor).options(get_if_exists=True, **options).remote()


def end_ledger(endpoint: str) -> None:
    """Ends the ledger actor of an endpoint that is taken away, if there is one."""
    import ray

    with suppress(ValueError):
        ray.kill(ray.get_actor(_actor_name(endpoint), namespace=NAMESPACE))


def _actor_name(endpoint: str) -> str:
    return f"heliostat-usage-{endpoint}"
