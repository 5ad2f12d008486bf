"""The API keys that a replica knows: from its environment, and from storage, which it polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from heliostat.infra import log
from heliostat.infra.storage.base import Store
from heliostat.serve.access.keys import ApiKey, StoredKeys, read_keys

RELOAD_SECONDS = 5.0
Observe = Callable[[float, int, list[str]], None]
_log = log.get(__name__)


class KeyRing:
    """Finds keys by digest.

    A stored key that is damaged opens nothing, and the others are read all the same. While storage does not answer, for
    one key or at all, the last known keys stay valid; `age_seconds` says for how long storage has not been read.
    """

    def __init__(
        self,
        hashed: Iterable[str],
        store: Store | None = None,
        seconds: float = RELOAD_SECONDS,
        observe: Observe | None = None,
    ) -> None:
        """`hashed` are the keys of the environment, `name:sha256`; those in `store` are polled every `seconds`.

        `observe`, if given, is called after each reading, with its Unix time, the number of damaged keys and the names
        of those that open. Raises StorageError if storage cannot be listed now.
        """
        started = datetime.now(timezone.utc)
        self._own = [
            ApiKey(name=name, sha256=digest, created=started)
            for name, _, digest in (one.rpartition(":") for one in hashed)
        ]
        self._store = store
        self._observe = observe
        self._stored = StoredKeys({}, {})
        self._known: dict[str, ApiKey] = {}
        self._read_at = time.monotonic()
        self._closed = threading.Event()
        self.reload()
        if store is not None:
            threading.Thread(target=self._run, args=(seconds,), name="heliostat-keys", daemon=True).start()

    def find(self, digest: str) -> ApiKey | None:
        """The key with this SHA-256; None if there is none.

        A dictionary lookup by digest is safe from timing attacks: an attacker cannot choose the digests of the keys
        tried.
        """
        return self._known.get(digest)

    def reload(self) -> None:
        """Reads new and changed keys from storage, and drops deleted ones."""
        if self._store is not None:
            before, self._stored = self._stored, read_keys(self._store, self._stored.keys)
            for one in self._stored.damaged.keys() - before.damaged.keys():
                opens = "what it was before" if one[0] in self._stored.paths else "nothing"
                _log.error("keys: this one opens %s: %s", opens, self._stored.damaged[one])
        self._known = {key.sha256: key for key in (*self._own, *self._stored.keys.values())}
        self._read_at = time.monotonic()
        if self._observe:
            self._observe(time.time(), len(self._stored.damaged), sorted(key.name for key in self._known.values()))

    @property
    def is_empty(self) -> bool:
        """Whether there is no key at all, not even one that cannot be read."""
        return not self._known and not self._stored.damaged

    @property
    def age_seconds(self) -> float:
        """Seconds since storage was last read: keys added or removed since then do not count yet."""
        return time.monotonic() - self._read_at if self._store else 0.0

    @property
    def state(self) -> dict[str, float] | None:
        """How old what is known of storage is, and how many keys there are damaged; None without storage."""
        if self._store is None:
            return None
        return {"age_seconds": round(self.age_seconds, 1), "damaged": len(self._stored.damaged)}

    def close(self) -> None:
        """Stops polling."""
        self._closed.set()

    def _run(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                self.reload()
            except Exception as error:  # whatever it is, the next reading may succeed
                _log.warning("keys: not read for %.0f s, those known before count: %r", self.age_seconds, error)
