"""Submit commands to a Ray cluster and follow them, through Ray's job API.

    with environment([Path("spec.yaml")]) as runtime_env:
        job = submit("http://head:8265", python_command("-m heliostat train spec.yaml"), runtime_env)
    for text in logs("http://head:8265", job):
        ...

Addresses are those of Ray's dashboard. The job outlives the command that submitted it. If token authentication is on,
Ray finds the token itself (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or `~/.ray/auth_token`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heliostat.cluster.environment import applied
from heliostat.cluster.package import code_runtime_env
from heliostat.cluster.session.address import ANSWER_SECONDS, check_answers
from heliostat.cluster.tokens import token_environment
from heliostat.infra.errors import ConfigError, NotFoundError, ResourceError

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
"""Final states of a job."""
_OVERRIDES: dict[str, str | None] = {"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
# Ray's client prefers these to the given address.
_PACKAGING = "ray._private.runtime_env.packaging"


_FIND_PYTHON = (
    "raylet=$(sed -n 's/^PPid:[[:space:]]*//p' 2>/dev/null </proc/$PPID/status); "
    "python=$(tr '\\0' '\\n' 2>/dev/null </proc/$raylet/cmdline "
    "| sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p')"
)
"""Shell: a job's parent is Ray's supervisor of it, and the parent of that a raylet, which starts Ray's workers."""


def python_command(arguments: str) -> str:
    """A shell command that runs the cluster's Python, that of Ray's workers, with `arguments`.

    A plain `python` would be whatever PATH has there, with other packages or none. The job's environment does not name
    Ray's own, so it is read from the command line of the raylet; `python` is the last resort.
    """
    return f'{_FIND_PYTHON}; exec "${{python:-python}}" {arguments}'


@contextmanager
def environment(files: Iterable[Path] = (), variables: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """A Ray runtime environment: `files` in the job's working directory, `variables` in its environment.

    A checkout of Heliostat is uploaded with the job; an installed one must be on the cluster already. Only valid inside
    the block. Raises ConfigError for a missing file, or two files of the same name.
    """
    with tempfile.TemporaryDirectory(prefix="heliostat-job-") as folder:
        _gather(files, Path(folder))
        yield {"working_dir": folder, "env_vars": dict(variables or {}), **code_runtime_env()}


def _gather(files: Iterable[Path], folder: Path) -> None:
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file to send with the job")
        if (folder / file.name).exists():
            raise ConfigError(f"{file}: two files called {file.name} cannot be sent with one job")
        shutil.copy(file, folder)


def submit(
    address: str,
    entrypoint: str,
    runtime_env: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    cpus: float = 0,
) -> str:
    """Starts the shell command `entrypoint` on the cluster; returns the job ID. `cpus` are for the command itself.

    Raises ResourceError if the cluster cannot be reached, or refuses the token or the job.
    """
    with _client(address) as client:
        return str(
            client.submit_job(
                entrypoint=entrypoint,
                runtime_env=dict(runtime_env or {}),
                metadata=dict(metadata or {}),
                entrypoint_num_cpus=cpus,
            )
        )


def status(address: str, job: str) -> str:
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; raises NotFoundError if there is no such job."""
    with _client(address, job) as client:
        return str(client.get_job_status(job).value)


def reason(address: str, job: str) -> str:
    """Ray's message about the job's state, such as why it failed."""
    with _client(address, job) as client:
        return str(client.get_job_info(job).message or "")


def stop(address: str, job: str) -> bool:
    """Asks the job to stop; returns False if it has already ended."""
    with _client(address, job) as client:
        return bool(client.stop_job(job))


def logs(address: str, job: str, *, follow: bool = True) -> Iterator[str]:
    """Streams the job's output until it ends, or returns the output so far; leaving early does not stop the job."""
    with _client(address, job) as client:
        if not follow:
            yield str(client.get_job_logs(job))
            return
        client.get_job_status(job)  # raises if there is no such job, which the next call would not
        yield from _follow(client.tail_job_logs(job))


def _follow(chunks: AsyncIterator[str]) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    try:
        with suppress(StopAsyncIteration):
            while True:
                yield loop.run_until_complete(anext(chunks))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@contextmanager
def _client(address: str, job: str = "") -> Iterator[Any]:
    """Ray's job client; errors inside the block become one line with the address."""
    _check(address)
    import aiohttp
    from ray.exceptions import AuthenticationError

    try:
        yield _new_client(address)
    except AuthenticationError as error:
        raise ResourceError(
            f"{address}: it refuses our token; give its own in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        ) from error
    except (RuntimeError, ValueError, OSError, aiohttp.ClientError) as error:
        line = _short(error)
        if job and "does not exist" in line:
            raise NotFoundError(f"{address}: no job {job}; ray job list --address {address} lists them") from error
        raise ResourceError(f"{address}: {line}") from error


def _new_client(address: str) -> Any:
    with applied({**token_environment(create=False), **_OVERRIDES}):
        from ray.job_submission import JobSubmissionClient

        _quieten()
        return JobSubmissionClient(address)


def _quieten() -> None:
    """Silences Ray's client, which sets its own log level and logs each upload."""
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", _PACKAGING):
        logging.getLogger(name).setLevel(logging.WARNING)


def _check(address: str) -> None:
    """Checks that the dashboard answers, because Ray's client has no timeout."""
    import requests  # type: ignore[import-untyped]

    check_answers(*_host_and_port(address), address)
    try:
        requests.head(address, timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise ResourceError(f"{address}: answers, but not as Ray's dashboard does ({type(error).__name__})") from error


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


def default_address() -> str | None:
    """The default cluster for jobs: RAY_API_SERVER_ADDRESS, RAY_ADDRESS if it is HTTP, or the detached Ray."""
    from heliostat.cluster.session.detached import find_detached

    given = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or ""
    if given.startswith(("http://", "https://")):
        return given
    record = find_detached()
    return record.dashboard_url if record and not given else None
