"""Notices that a run should stop or is about to lose workers, so that it can save a checkpoint in time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from heliostat.infra import log

if TYPE_CHECKING:
    from heliostat.train.parallel.distributed import World  # torch, which the driver's channel does without

Notice = Literal["", "save", "hold", "stop"]
"""Nothing; a node will be removed, or the workers change; a node is about to go; the driver was asked to stop."""
ASK_SECONDS = 2.0
"""Interval between polls: each costs a few milliseconds, and a node's grace period is half a minute or more."""
HOLD_SECONDS = 8.0
"""So long before a node's deadline a run saves once more and stands still: later steps would be lost with the node.
Less than what makes a step late for the hang watch."""
STAYED_SECONDS = 1.0
"""After the deadline, when a node that is there still is taken to stay."""
_log = log.get(__name__)


class Notices:
    """Notices of a run without a channel: none."""

    def is_due(self) -> bool:
        """Whether this rank wants to poll now. All ranks poll at the same step, as soon as one of them wants to."""
        return False

    def ask(self) -> Notice:
        """The current notice, the same on every rank; a collective call of all ranks."""
        return ""

    def hold(self) -> None:
        """Called on every rank when the checkpoint that a notice `hold` led to is stored; returns if the node stays."""

    def saved(self) -> None:
        """Called on every rank when the checkpoint that a notice `save` led to is stored."""


class RayNotices(Notices):
    """Notices from the driver, through its channel, and from Ray, which knows of drained and pre-empted nodes."""

    def __init__(self, world: World, channel: Any) -> None:
        self.world = world
        self.channel = channel
        self._asked = time.monotonic()
        self._known: Any = None
        self._held = 0.0

    def is_due(self) -> bool:
        """Every ASK_SECONDS on rank 0."""
        return self.world.is_first and time.monotonic() - self._asked >= ASK_SECONDS

    def ask(self) -> Notice:
        """What the channel says; else `save` once for each node that will be removed, `hold` when it is about to."""
        import ray
        import ray.train

        self._asked = time.monotonic()
        told: Notice = self.world.from_first(lambda: ray.get(self.channel.notice.remote()))
        if told:
            return told
        known, self._known = self._known, ray.train.get_preemption_info()  # a collective call
        if self._known is None:
            return ""
        if self.world.from_first(self._is_about_to_go):
            return "hold"
        return "save" if self._known != known else ""

    def _is_about_to_go(self) -> bool:
        """Whether the first node's deadline is near, and was not held for yet; a node without one never is."""
        deadline = (self._known.deadline_ms or 0) / 1000
        if deadline == self._held or not deadline - HOLD_SECONDS <= time.time() < deadline:
            return False
        self._held = deadline
        return True

    def hold(self) -> None:
        """Stands still until the deadline, by which the node and with it this run's workers end."""
        deadline = self.world.from_first(lambda: self._held)
        if self.world.is_first:
            _log.info("a node is about to go: no more steps until it has")
        time.sleep(max(0.0, deadline + STAYED_SECONDS - time.time()))

    def saved(self) -> None:
        """Tells the channel, from rank 0."""
        if self.world.is_first:
            self.channel.saved.remote()
