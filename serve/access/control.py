"""Who may ask an endpoint, and how much."""

from __future__ import annotations

from dataclasses import dataclass

from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.quota import UsageCounter, UsageSync


@dataclass(frozen=True)
class AccessControl:
    """The keys that open an endpoint, and what is counted of their use."""

    keys: KeyRing
    counter: UsageCounter
    sync: UsageSync

    def close(self) -> None:
        """Ends their threads."""
        self.keys.close()
        self.sync.close()
