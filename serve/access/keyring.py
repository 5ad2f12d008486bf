"""The API keys that a replica knows: from its environment, and from storage, which it polls."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime, timezone

from heliostat.infra import log
from heliostat.infra.errors import HeliostatError
from heliostat.infra.storage.base import Store
from heliostat.serve.access.keys import PREFIX, ApiKey, read_key

RELOAD_SECONDS = 5.0
_log = log.get(__name__)


class KeyRing:
    """Finds keys by digest. If storage does not answer or a stored key is damaged, the last known keys stay valid."""

    def __init__(self, hashed: Iterable[str], store: Store | None = None, seconds: float = RELOAD_SECONDS) -> None:
        """`hashed` are the keys of the environment, `name:sha256`; those in `store` are polled every `seconds`."""
        started = datetime.now(timezone.utc)
        self._own = [
            ApiKey(name=name, sha256=digest, created=started)
            for name, _, digest in (one.rpartition(":") for one in hashed)
        ]
        self._store = store
        self._stored: dict[tuple[str, str], ApiKey] = {}
        self._known: dict[str, ApiKey] = {}
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
            entries = {(entry.key, entry.version) for entry in self._store.list(PREFIX) if entry.key.endswith(".json")}
            self._stored = {one: self._stored.get(one) or read_key(self._store, one[0]) for one in sorted(entries)}
        self._known = {key.sha256: key for key in (*self._own, *self._stored.values())}

    @property
    def is_empty(self) -> bool:
        """Whether there is no key at all."""
        return not self._known

    def close(self) -> None:
        """Stops polling."""
        self._closed.set()

    def _run(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                self.reload()
            except HeliostatError as error:
                _log.warning("keys: not read again, those known before count: %s", error)
