"""The notice that a trial shall stop at a checkpoint."""

from __future__ import annotations

from heliostat.train.telemetry.notices import Notice, Notices


class StopNotices(Notices):
    """Asks a trial to stop, once its gang was asked to."""

    def __init__(self) -> None:
        self.is_asked = False

    def is_due(self) -> bool:
        """Whether this worker was asked."""
        return self.is_asked

    def ask(self) -> Notice:
        """`stop`: one of the workers was asked; the others will be."""
        return "stop"
