"""Submit commands to a Ray cluster and follow them, through Ray's job API.

    with environment({"spec.yaml": Path("spec.yaml")}) as runtime_env:
        job = submit("http://head:8265", python_command("-m heliostat train spec.yaml"), runtime_env)
    for text in follow("http://head:8265", job):
        ...

Addresses are those of Ray's dashboard. The job outlives the command that submitted it. `job_client.py` has how a
cluster is reached, with tokens and TLS.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from heliostat.cluster import upload
from heliostat.cluster.job_client import check_version
from heliostat.cluster.job_client import connected as _client
from heliostat.cluster.package import code_runtime_env
from heliostat.infra.errors import ConfigError, NotFoundError, ResourceError

T = TypeVar("T")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
"""Final states of a job."""
POLL_SECONDS = 1.0
LOST_SECONDS = 60.0
"""How long a cluster may not answer while a job is followed."""
SILENT_SECONDS = 15.0
"""After so long without output, a job that is followed is asked whether it has ended."""
STOP_SECONDS = 180
"""How long a job that is stopped may take to end by itself; Ray's own three seconds are too short for a checkpoint."""
_NOBODY = "No available agent to submit job"
_GRACE = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}

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
def environment(
    files: Mapping[str, Path] | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """A Ray runtime environment: `files` by their paths in the job's working directory, `variables` in its environment.

    A checkout of Heliostat is uploaded with the job; an installed one must be on the cluster already. Only valid inside
    the block. Raises ConfigError for a missing file.
    """
    with tempfile.TemporaryDirectory(prefix="heliostat-job-") as folder:
        upload.gather(files or {}, Path(folder))
        yield {"working_dir": folder, "env_vars": {**_GRACE, **(variables or {})}, **code_runtime_env()}


def submit(
    address: str,
    entrypoint: str,
    runtime_env: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    cpus: float = 0,
    job: str | None = None,
) -> str:
    """Starts the shell command `entrypoint` on the cluster; returns the job's ID, which is `job` where that is given.

    `cpus` are for the command itself. Before anything is sent, raises ConfigError if there is a job of that ID or more
    would travel than Ray takes, and ResourceError if the cluster cannot be reached, refuses the token or has another
    Ray than the code that travels.
    """
    with _client(address) as client:
        if job:
            _check_is_new(address, job)
        if "py_modules" in (runtime_env or {}):
            check_version(client, address)
        upload.check(runtime_env or {})
        return _taken(
            client,
            entrypoint=entrypoint,
            submission_id=job,
            runtime_env=dict(runtime_env or {}),
            metadata=dict(metadata or {}),
            entrypoint_num_cpus=cpus,
        )


def _taken(client: Any, **job: Any) -> str:
    """Submits, and again for LOST_SECONDS while a cluster that has just begun has nobody yet who takes jobs."""

    def has_just_begun(error: Exception) -> bool:
        return isinstance(error, RuntimeError) and _NOBODY in str(error)

    return str(_patiently(lambda: client.submit_job(**job), has_just_begun))


def _check_is_new(address: str, job: str) -> None:
    with suppress(NotFoundError):
        found = find(address, job)
        raise ConfigError(
            f"--id: {job} given, and {address} has a job of that ID: {found.status.lower()}; "
            f"look: heliostat jobs follow {job}; or give another"
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
    found, until = find(address, job), time.monotonic() + seconds
    while not found.has_ended and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        found = find_patiently(address, job)
    return found


def find_patiently(address: str, job: str) -> Job:
    """The job; asks again where the cluster does not answer, for LOST_SECONDS."""
    return _patiently(lambda: find(address, job), lambda error: isinstance(error, ResourceError))


def _patiently(ask: Callable[[], T], may_pass: Callable[[Exception], bool]) -> T:
    """The answer; asks again for LOST_SECONDS after an error that may pass."""
    patience = _Patience()
    while True:
        try:
            return ask()
        except Exception as error:
            if not may_pass(error):
                raise
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


def default_address() -> str | None:
    """The default cluster for jobs: RAY_API_SERVER_ADDRESS, RAY_ADDRESS if it is HTTP, or the detached Ray."""
    from heliostat.cluster.session.detached import find_detached

    given = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or ""
    if given.startswith(("http://", "https://")):
        return given
    record = find_detached()
    return record.dashboard_url if record and not given else None
