"""Ray's job client: how a cluster is reached through its dashboard, with its token and over TLS.

The token is the one that Ray itself finds (`tokens.py` has the places). An `https://` address is that of a proxy in
front of the dashboard; its certificate is checked against the CA in REQUESTS_CA_BUNDLE or SSL_CERT_FILE, else those of
this Python.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from heliostat.cluster.environment import applied
from heliostat.cluster.session.address import ANSWER_SECONDS, check_answers
from heliostat.cluster.tokens import refusal, token_environment
from heliostat.infra.errors import ConfigError, NotFoundError, ResourceError

_CA = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_OVERRIDES: dict[str, str | None] = {"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
# Ray's client prefers these to the given address.
_PACKAGING = "ray._private.runtime_env.packaging"


@contextmanager
def connected(address: str, job: str = "") -> Iterator[Any]:
    """Ray's job client; errors inside the block become one line with the address.

    Raises ConfigError for an address of another kind or a CA that is not there; in the block, NotFoundError if there is
    no `job`, and ResourceError for all else.
    """
    verify = _certificates(address)
    _check(address, verify)
    import aiohttp
    from ray.exceptions import AuthenticationError

    try:
        yield _new_client(address, verify)
    except AuthenticationError as error:
        raise ResourceError(f"{address}: {refusal()}") from error
    except (RuntimeError, ValueError, OSError, aiohttp.ClientError) as error:
        line = _short(error)
        if job and "does not exist" in line:
            raise NotFoundError(
                f"{address}: no job {job}; heliostat jobs list --address {address} lists them"
            ) from error
        raise ResourceError(f"{address}: {line}") from error


def check_version(client: Any, address: str) -> None:
    """Raises ResourceError if the cluster has another minor version of Ray than this Heliostat's code is made for.

    Only for code that travels: an installed Heliostat on the cluster has its own Ray. A Python that is too old need not
    be looked for, which the dashboard does not tell: that Ray has none.
    """
    import ray

    theirs = str(client._server_ray_version)
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ResourceError(
            f"{address}: it runs Ray {theirs}, and the code of this checkout, which would travel with the job, is made "
            f"for Ray {ray.__version__}; install a Heliostat for Ray {theirs} there and here"
        )


def _certificates(address: str) -> str | bool:
    """The file of the CA that an https:// address is checked against; True for those of this Python."""
    name = next((name for name in _CA if os.environ.get(name)), None)
    if not name or not address.startswith("https://"):
        return True
    file = os.environ[name]
    if not os.path.exists(file):
        raise ConfigError(f"{name}: {file} given; a file of certificates (PEM) that exists is needed")
    return file


def _new_client(address: str, verify: str | bool = True) -> Any:
    with applied({**token_environment(create=False), **_OVERRIDES}):
        from ray.job_submission import JobSubmissionClient

        _quieten()
        return JobSubmissionClient(address, verify=verify)


def _quieten() -> None:
    """Silences Ray's client, which sets its own log level and logs each upload."""
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", _PACKAGING):
        logging.getLogger(name).setLevel(logging.WARNING)


def _check(address: str, verify: str | bool) -> None:
    """Checks that the dashboard answers, because Ray's client has no timeout."""
    import requests  # type: ignore[import-untyped]

    check_answers(*_host_and_port(address), address)
    try:
        requests.head(address, timeout=ANSWER_SECONDS, verify=verify)
    except requests.exceptions.SSLError as error:
        raise ResourceError(f"{address}: {_untrusted(error)}") from error
    except requests.RequestException as error:
        raise ResourceError(f"{address}: answers, but not as Ray's dashboard does ({type(error).__name__})") from error


def _untrusted(error: BaseException | None) -> str:
    """What is wrong with TLS: a certificate that is not trusted, or a server that does not speak it."""
    reason: object = error
    while reason is not None and not isinstance(reason, ssl.SSLCertVerificationError):
        reason = next((one for one in getattr(reason, "args", ()) if isinstance(one, BaseException)), None) or getattr(
            reason, "reason", None
        )
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message}); name the file of its CA in SSL_CERT_FILE"
    return "it does not speak TLS; is it http://?"


def _host_and_port(address: str) -> tuple[str, int]:
    """Host and port of a dashboard's URL; raises ConfigError for anything else."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)  # raises ValueError above 65535
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--address: {address} given; http://HOST:8265, the address of Ray's dashboard, is allowed")
    return parts.hostname, port


def _short(error: Exception) -> str:
    """The last line of an error, which may contain a traceback from the server."""
    lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines() if line.strip(" '\"}.")]
    return (lines[-1] if lines else type(error).__name__).rstrip("'\"}.")[:300]
