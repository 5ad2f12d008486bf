"""Notices that a run should stop or is about to lose workers, so that it can save a checkpoint in time."""

from __future__ import annotations

import time
from typing import Any, Literal

from heliostat.train.parallel.distributed import World

Notice = Literal["", "save", "stop"]
"""Nothing; a node will be removed or the number of workers change; the driver was asked to stop."""
ASK_SECONDS = 2.0
"""Interval between polls: each costs a few milliseconds, and a node's grace period is half a minute or more."""


class Notices:
    """Notices of a run without a channel: none."""

    def is_due(self) -> bool:
        """Whether this rank wants to poll now. All ranks poll at the same step, as soon as one of them wants to."""
        return False

    def ask(self) -> Notice:
        """The current notice, the same on every rank; a collective call of all ranks."""
        return ""

    def saved(self) -> None:
        """Called on every rank when the checkpoint that a notice `save` led to is stored."""


class RayNotices(Notices):
    """Notices from the driver, through its channel, and from Ray, which knows of drained and pre-empted nodes."""

    def __init__(self, world: World, channel: Any) -> None:
        self.world = world
        self.channel = channel
        self._asked = time.monotonic()
        self._known: Any = None

    def is_due(self) -> bool:
        """Every ASK_SECONDS on rank 0."""
        return self.world.is_first and time.monotonic() - self._asked >= ASK_SECONDS

    def ask(self) -> Notice:
        """What the channel says, or `save` once for each node that will be removed."""
        import ray
        import ray.train

        self._asked = time.monotonic()
        told: Notice = self.world.from_first(lambda: ray.get(self.channel.notice.remote()))
        if told:
            return told
        known, self._known = self._known, ray.train.get_preemption_info()
        return "save" if self._known is not None and self._known != known else ""

    def saved(self) -> None:
        """Tells the channel, from rank 0."""
        if self.world.is_first:
            self.channel.saved.remote()
