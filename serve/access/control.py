"""Access control of an endpoint: API keys and their usage limits."""

from __future__ import annotations

from dataclasses import dataclass

from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.sync import UsageSync
from heliostat.serve.access.usage import UsageCounter


@dataclass(frozen=True)
class AccessControl:
    """The API keys of an endpoint, and the counters of their usage."""

    keys: KeyRing
    counter: UsageCounter
    sync: UsageSync

    def close(self) -> None:
        """Stops their threads."""
        self.keys.close()
        self.sync.close()
