"""When the certificate ends that clients see."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server

import pytest
from cryptography import x509

from heliostat.infra.config.strict import build
from heliostat.serve.config import ServeConfig
from heliostat.serve.replica.certificate import CertificateWatch, expires_at
from tests.certificates import write_certificate
from tests.ports import free_port
from tests.waiting import until


@contextmanager
def tls_server(certificate: Path, port: int) -> Iterator[None]:
    """Shakes hands with each client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with create_server(("127.0.0.1", port)) as plain, context.wrap_socket(plain, server_side=True) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield


def watch_of(port: int, certificate: Path) -> tuple[CertificateWatch, list[float]]:
    found: list[float] = []
    tls = {"certificate": str(certificate), "port": port}
    return CertificateWatch(build(ServeConfig, {"tls": tls}), found.append, seconds=0.05), found


def test_the_end_is_that_of_the_certificate_which_is_shown(tmp_path: Path) -> None:
    shown, renewed = (write_certificate(tmp_path / name) for name in ("shown.pem", "renewed.pem"))
    ends = x509.load_pem_x509_certificate(shown.read_bytes()).not_valid_after_utc.timestamp()
    port = free_port()
    with tls_server(shown, port):
        assert expires_at("127.0.0.1", port) == ends
        assert 0 < ends - time.time() <= 3600
        watch, found = watch_of(port, renewed)
        until(lambda: len(found) > 1, "it is asked for again and again", seconds=30)
        watch.close()
    assert set(found) == {ends}


def test_an_address_that_does_not_answer_yet_is_asked_again(tmp_path: Path) -> None:
    certificate, port = write_certificate(tmp_path / "shown.pem"), free_port()
    with pytest.raises(ConnectionRefusedError):
        expires_at("127.0.0.1", port)
    watch, found = watch_of(port, certificate)
    with tls_server(certificate, port):
        until(lambda: found, "it answers", seconds=30)
    watch.close()


def test_an_endpoint_without_tls_asks_for_nothing() -> None:
    before = threading.active_count()
    CertificateWatch(build(ServeConfig, {}), lambda _: pytest.fail("asked"), seconds=0).close()
    assert threading.active_count() == before
