"""Word that a run must stop or is about to lose workers, so that a checkpoint is made in the time that is left."""

from __future__ import annotations

import time
from typing import Any, Literal

from heliostat.train.parallel.distributed import World

Notice = Literal["", "save", "stop"]
"""Nothing; a node is to be taken away; the driver was told to stop."""
ASK_SECONDS = 2.0
"""Between questions: each costs a few milliseconds, and the grace time of a node is half a minute or more."""


class Notices:
    """What a run that nobody can reach hears: nothing."""

    def is_due(self) -> bool:
        """Whether this rank would ask now. All ranks ask at the same step, as soon as one would."""
        return False

    def ask(self) -> Notice:
        """What there is to hear, the same on every rank; all must call it together."""
        return ""


class RayNotices(Notices):
    """From the driver, through its channel, and from Ray, which hears of nodes that are drained or pre-empted."""

    def __init__(self, world: World, channel: Any) -> None:
        self.world = world
        self.channel = channel
        self._asked = time.monotonic()
        self._known: Any = None

    def is_due(self) -> bool:
        """On rank 0, every ASK_SECONDS."""
        return self.world.is_first and time.monotonic() - self._asked >= ASK_SECONDS

    def ask(self) -> Notice:
        """`stop` from the driver, or `save` once for each node that is to go."""
        import ray
        import ray.train

        self._asked = time.monotonic()
        if self.world.from_first(lambda: ray.get(self.channel.is_stopping.remote())):
            return "stop"
        known, self._known = self._known, ray.train.get_preemption_info()
        return "save" if self._known is not None and self._known != known else ""
