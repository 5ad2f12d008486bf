"""Submit commands to a Ray cluster and follow them, through Ray's job API.

    with environment([Path("spec.yaml")]) as runtime_env:
        job = submit("http://head:8265", python_command("-m heliostat train spec.yaml"), runtime_env)
    for text in follow("http://head:8265", job):
        ...

Addresses are those of Ray's dashboard. The job outlives the command that submitted it. If token authentication is on,
Ray finds the token itself (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or `~/.ray/auth_token`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
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
POLL_SECONDS = 1.0
LOST_SECONDS = 60.0
"""How long a cluster may not answer while a job is followed."""
SILENT_SECONDS = 15.0
"""After so long without output, a job that is followed is asked whether it has ended."""
STOP_SECONDS = 180
"""How long a job that is stopped may take to end by itself; Ray's own three seconds are too short for a checkpoint."""
_GRACE = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
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
        yield {"working_dir": folder, "env_vars": {**_GRACE, **(variables or {})}, **code_runtime_env()}


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


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it."""

    id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    entrypoint: str
    message: str
    """Ray's line about the state, such as why it failed."""
    metadata: Mapping[str, str]
    exit_code: int | None
    """Of a job that ran to its end or failed."""
    started: datetime | None
    ended: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether its state is final."""
        return self.status in ENDED


def find(address: str, job: str) -> Job:
    """The job with this ID; raises NotFoundError if there is none."""
    with _client(address, job) as client:
        return _job(client.get_job_info(job))


def every(address: str) -> list[Job]:
    """All jobs that were submitted to the cluster and that it still knows, newest first."""
    with _client(address) as client:
        found = [_job(one) for one in client.list_jobs() if one.submission_id]
    return sorted(found, key=lambda job: job.started.timestamp() if job.started else 0, reverse=True)


def _job(found: Any) -> Job:
    message, _, _ = str(found.message or "").partition(", last available logs")
    started, ended = (
        datetime.fromtimestamp(at / 1000, timezone.utc) if at else None for at in (found.start_time, found.end_time)
    )
    return Job(
        found.submission_id,
        str(getattr(found.status, "value", found.status)),
        str(found.entrypoint),
        " ".join(message.split()),
        dict(found.metadata or {}),
        found.driver_exit_code,
        started,
        ended,
    )


def stop(address: str, job: str) -> bool:
    """Asks the job to stop; returns False if it has already ended."""
    with _client(address, job) as client:
        return bool(client.stop_job(job))


def logs(address: str, job: str) -> str:
    """The job's output so far."""
    with _client(address, job) as client:
        return str(client.get_job_logs(job))


def follow(address: str, job: str) -> Iterator[str]:
    """The job's output as it is written, until the job ends; leaving early does not stop it.

    Where a connection is lost, the output goes on with the next one. Raises ResourceError if the cluster does not
    answer for LOST_SECONDS.
    """
    find(address, job)  # raises if there is no such job, which the stream would not
    patience, taken = _Patience(), 0
    while True:
        received = 0
        try:
            with _client(address, job) as client:
                for text in _stream(client.tail_job_logs(job), lambda: find(address, job).has_ended):
                    patience.end()
                    yield text[max(0, taken - received) :]
                    received += len(text)
                    taken = max(taken, received)
            if find(address, job).has_ended:
                return
        except ResourceError:
            patience.lose()
        time.sleep(POLL_SECONDS)


def wait(address: str, job: str, seconds: float = math.inf) -> Job:
    """Returns the job once it has ended, or after so many seconds, as it is then. Patient as `follow` is."""
    find(address, job)
    patience, until = _Patience(), time.monotonic() + seconds
    while True:
        try:
            found = find(address, job)
            patience.end()
            if found.has_ended or time.monotonic() >= until:
                return found
        except ResourceError:
            patience.lose()
        time.sleep(POLL_SECONDS)


class _Patience:
    """With a cluster that does not answer for a while."""

    def __init__(self) -> None:
        self._since: float | None = None

    def end(self) -> None:
        """Notes that it has answered."""
        self._since = None

    def lose(self) -> None:
        """Raises the current error again once it has not answered for LOST_SECONDS."""
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > LOST_SECONDS:
            raise


def _stream(chunks: AsyncIterator[str], has_ended: Callable[[], bool]) -> Iterator[str]:
    """The chunks; ResourceError where none comes any more though the job has ended: the connection is dead."""
    loop = asyncio.new_event_loop()
    try:
        while True:
            chunk = loop.create_task(anext(chunks, None))  # type: ignore[arg-type]
            while not loop.run_until_complete(asyncio.wait([chunk], timeout=SILENT_SECONDS))[0]:
                if has_ended():
                    raise ResourceError("the connection has died")
            text = chunk.result()
            if text is None:
                return
            yield text
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
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
            raise NotFoundError(
                f"{address}: no job {job}; heliostat jobs list --address {address} lists them"
            ) from error
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
