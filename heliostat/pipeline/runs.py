"""Runs by name: the status of each, and which one to resume."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from heliostat.infra.config.strict import dump_yaml
from heliostat.infra.errors import ConfigError, NotFoundError
from heliostat.spec import Spec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of a run or a search: a folder in storage."""


def new_run_id() -> str:
    """A unique id that sorts by time and is valid as a file name."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def run_key(spec: Spec, run_id: str) -> str:
    """Key of a run's status in storage."""
    return f"runs/{spec.name}/{run_id}/run.json"


def write_run(spec: Spec, run_id: str, record: Mapping[str, Any]) -> None:
    """Writes a run's status and resolved spec, and marks it as the newest run."""
    from heliostat.infra.storage.store import open_store

    store = open_store(spec.storage)
    store.write_bytes(f"runs/{spec.name}/{run_id}/spec.yaml", dump_yaml(spec).encode())
    store.write_bytes(run_key(spec, run_id), json.dumps({"run_id": run_id, **record}).encode())
    store.write_bytes(f"runs/{spec.name}/newest.json", json.dumps({"run_id": run_id}).encode())


def read_run(spec: Spec, run_id: str) -> dict[str, Any]:
    """A run's status; empty if there is no run of that name."""
    from heliostat.infra.storage.store import open_store

    try:
        return json.loads(open_store(spec.storage).read_bytes(run_key(spec, run_id)))
    except NotFoundError:
        return {}


def find_run(spec: Spec, name: str | None, resume: bool) -> str | None:
    """The run to resume or start: `name`, or with `resume` the newest; None for a new run without a name.

    `train.resume: auto` resumes the newest run if it has not finished.

    Raises ConfigError for a name that is no valid folder name, and with `resume` if there is no run or it has
    finished.
    """
    if name and not NAME.fullmatch(name):
        raise ConfigError(
            f"--run: {name!r} given; letters, digits, dots, dashes and underscores are allowed, 64 at most"
        )
    given, name = name, name or (newest_run(spec) if resume or spec.train.resume == "auto" else None)
    record = read_run(spec, name) if name else {}
    if resume and not record:
        which = f"run {name!r}" if name else "run yet"
        raise ConfigError(f"--resume: no {which} of {spec.name} in {spec.storage.url}")
    if resume and record.get("status") == "finished":
        raise ConfigError(f"run {name} has finished ({published(record)}); start a new one")
    return name if given or record.get("status") == "running" else None


@contextmanager
def driving(spec: Spec, run_id: str) -> Iterator[None]:
    """Makes this process the only one that drives the run; it stops at a checkpoint if another one takes over.

    Raises ResourceError, which names the other one, if another process drives the run, and ConfigError if that has
    finished it.
    """
    from heliostat.infra.storage.lease import leased
    from heliostat.infra.storage.store import open_store

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with leased(open_store(spec.storage), f"runs/{spec.name}/{run_id}/driver", f"run {run_id} of {spec.name}", stop):
        record = read_run(spec, run_id)
        if record.get("status") == "finished":
            raise ConfigError(f"run {run_id} has finished ({published(record)}); start a new one")
        yield


def published(record: Mapping[str, Any]) -> str:
    """What a finished run has published, in words."""
    version = record.get("version")
    return f"version {version}" if version else "its version waited for MLflow: heliostat models list"


def newest_run(spec: Spec) -> str | None:
    """The name of the spec's newest run; None if there is none."""
    from heliostat.infra.storage.store import open_store

    try:
        return json.loads(open_store(spec.storage).read_bytes(f"runs/{spec.name}/newest.json"))["run_id"]
    except NotFoundError:
        return None
