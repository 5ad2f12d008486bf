"""Watches when the certificate ends that clients of an endpoint see.

It is asked for as a client would: HAProxy shows what its file held when it read it, at the last change of replicas.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable

from heliostat.infra import log
from heliostat.serve.config import ServeConfig, reachable

CHECK_SECONDS = 60.0
ANSWER_SECONDS = 5.0
_log = log.get(__name__)


def expires_at(host: str, port: int) -> float:
    """Unix time when the certificate ends that a server shows. Raises OSError if none answers there with TLS."""
    from cryptography import x509

    shown = ssl.get_server_certificate((host, port), timeout=ANSWER_SECONDS)
    return x509.load_pem_x509_certificate(shown.encode()).not_valid_after_utc.timestamp()


class CertificateWatch:
    """Calls `observe` with the end of the certificate (Unix time), in a thread, at its start and every `seconds`."""

    def __init__(self, config: ServeConfig, observe: Callable[[float], None], seconds: float = CHECK_SECONDS) -> None:
        self._closed = threading.Event()
        if config.tls:
            asked = (reachable(config.host), config.tls.port, observe, seconds)
            threading.Thread(target=self._run, args=asked, name="heliostat-certificate", daemon=True).start()

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()

    def _run(self, host: str, port: int, observe: Callable[[float], None], seconds: float) -> None:
        while True:
            try:
                observe(expires_at(host, port))
            except (OSError, ValueError) as error:  # HAProxy may not have begun, or not on this node
                _log.debug("the certificate of %s:%d is not known: %s", host, port, error)
            if self._closed.wait(seconds):
                return
