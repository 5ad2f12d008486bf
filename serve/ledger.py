"""What the replicas of an endpoint count, in an actor that outlives each of them.

A replica reports its whole window, numbered, and gets what the others counted. So a report that is repeated, late or
lost changes nothing, and a ledger that starts anew is complete after the next reports.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from heliostat.cluster.session.session import NAMESPACE

REPLY_SECONDS = 5.0
R = TypeVar("R")
"""A report."""
T = TypeVar("T")
"""What comes of the reports of others."""


@dataclass(frozen=True)
class Reported(Generic[R]):
    """A report as the ledger keeps it."""

    number: int
    at: float
    """When it came, by the ledger's clock."""
    report: R


class Ledger(ABC, Generic[R, T]):
    """The newest report of each replica. A kind of ledger says for how long it counts, and what all of them total."""

    name: ClassVar[str]
    """Part of the actor's name."""
    idle_seconds: ClassVar[float]
    """After so long without a report, the actor ends: replicas report as long as they live."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reports: dict[tuple[str, str], Reported[R]] = {}

    @abstractmethod
    def is_kept(self, reported: Reported[R], now: float) -> bool:
        """Whether a report still counts at the time `now`."""

    @abstractmethod
    def total(self, reported: Sequence[Reported[R]], now: float) -> T:
        """What is counted in these reports together at the time `now`."""

    def exchange(self, group: str, replica: str, number: int, report: R) -> T:
        """Takes a replica's report, unless it has a newer one; the total of all others of its group."""
        now, key = self._clock(), (group, replica)
        known = self._reports.get(key)
        if known is None or number > known.number:
            self._reports[key] = Reported(number, now, report)
        self._reports = {one: kept for one, kept in self._reports.items() if one == key or self.is_kept(kept, now)}
        return self.total([kept for one, kept in self._reports.items() if one[0] == group and one != key], now)

    def is_idle(self, seconds: float) -> bool:
        """Whether nobody has reported for so long."""
        return all(self._clock() - one.at >= seconds for one in list(self._reports.values()))


class LedgerActor:
    """A ledger in an actor, which ends itself once no replica has reported for `idle_seconds`."""

    def __init__(self, kind: Callable[[], Ledger[Any, Any]], idle_seconds: float) -> None:
        self._ledger = kind()
        threading.Thread(target=self._end_when_idle, args=(idle_seconds,), daemon=True).start()

    def exchange(self, *report: Any) -> Any:
        """See `Ledger.exchange`."""
        return self._ledger.exchange(*report)

    def _end_when_idle(self, seconds: float) -> None:
        import ray

        time.sleep(seconds)
        while not self._ledger.is_idle(seconds):
            time.sleep(seconds / 10)
        ray.kill(ray.get_runtime_context().current_actor)


class LedgerClient:
    """Exchanges reports with the ledger of an endpoint, which is started where there is none."""

    def __init__(self, kind: type[Ledger[Any, Any]], endpoint: str) -> None:
        self._kind = kind
        self._endpoint = endpoint
        self._actor: Any = None

    def __call__(self, group: str, replica: str, number: int, report: Any) -> Any:
        """See `Ledger.exchange`; raises what Ray raises where the ledger cannot be reached."""
        import ray

        try:
            self._actor = self._actor or find_ledger(self._kind, self._endpoint)
            return ray.get(self._actor.exchange.remote(group, replica, number, report), timeout=REPLY_SECONDS)
        except Exception:
            self._actor = None
            raise


def find_ledger(kind: type[Ledger[Any, Any]], endpoint: str) -> Any:
    """The actor of an endpoint's ledger: detached, so that it outlives its creator, and started again with its node."""
    import ray

    options = {"name": ledger_name(kind, endpoint), "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": -1}
    actor = ray.remote(num_cpus=0)(LedgerActor).options(get_if_exists=True, **options)
    return actor.remote(kind, kind.idle_seconds)


def end_ledger(kind: type[Ledger[Any, Any]], endpoint: str) -> None:
    """Ends the ledger of an endpoint that is taken away, if there is one."""
    import ray

    with suppress(ValueError):
        ray.kill(ray.get_actor(ledger_name(kind, endpoint), namespace=NAMESPACE))


def ledger_name(kind: type[Ledger[Any, Any]], endpoint: str) -> str:
    """The actor's name, in the namespace of Heliostat."""
    return f"heliostat-{kind.name}-{endpoint}"
