"""Runs in MLflow. Tracking never fails a run: what MLflow does not take waits in memory, and then in storage.

Whoever asks MLflow next sends what waits in storage (`waiting.py`, `registry/registry.py`).
"""

from __future__ import annotations

import math
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.infra import log
from heliostat.infra.errors import StoppedError, StorageError, UnreachableError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracking import DATABASE, client, explained, is_inside, tracking_uri
from heliostat.infra.waiting import PREFIX, Publication, Waiting, keep, now_ms

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FLUSH_SECONDS = 1.0
_RETRY_SECONDS = 30.0
"""How long nothing is sent to an MLflow that has failed; each attempt may take eight seconds."""
PARENT = "mlflow.parentRunId"
"""The tag of a child with the id of its parent."""
_MOST_PARAMS = 100  # per batch
_MOST_METRICS = 1000
_log = log.get(__name__)


class Connection:
    """An MLflow that may be away: after a failure it is left alone for a while."""

    def __init__(self, client: MlflowClient, storage: StorageConfig) -> None:
        self.client = client
        self.storage = storage
        self.kept = 0
        """Runs of which a part was kept in storage."""
        self.is_away = False
        """Whether it did not answer the last time."""
        self._retry_at = 0.0

    def send(self, waiting: Waiting) -> bool:
        """Sends what waits; returns whether all was sent, and logs the failure otherwise."""
        if time.monotonic() < self._retry_at:
            return False
        self.is_away = False
        try:
            send(self.client, self.storage, waiting)
        except StorageError as error:
            self.is_away = isinstance(error, UnreachableError)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            _log.warning("%d metrics of run %s wait: %s", len(waiting.metrics), waiting.name, error)
            return False
        return True

    def keep(self, waiting: Waiting) -> None:
        """Stores what waits of a run that is over; a failure of the storage is only logged."""
        try:
            keep(self.storage, waiting)
            self.kept += 1
        except StorageError as error:
            _log.warning("MLflow lacks a part of run %s, which cannot be kept: %s", waiting.name, error)

    def say_what_waits(self) -> None:
        """Says in one line what was kept, and how it is sent."""
        if self.kept:
            place = f"{self.storage.url.rstrip('/')}/{PREFIX}"
            _log.warning(
                "MLflow does not take all of %s: the rest waits in %s, and the next train, tune, evaluate, serve or "
                "models command sends it",
                "this run" if self.kept == 1 else f"{self.kept} runs",
                place,
            )


class Run:
    """One MLflow run. Metrics are sent about once a second; whatever MLflow fails to take waits, and raises nothing."""

    def __init__(self, connection: Connection, waiting: Waiting) -> None:
        self.connection = connection
        self.ends_as = "FINISHED"
        """Its status where its block ends without an exception."""
        self.is_left = False
        """Whether another process goes on with it: then the end of its block tells MLflow nothing."""
        self._waiting = waiting
        self._due = time.monotonic() + _FLUSH_SECONDS

    @property
    def id(self) -> str | None:
        """MLflow's id of the run; None until MLflow has created it."""
        return self._waiting.run_id

    @property
    def url(self) -> str:
        """How to view it: a link, or the command that starts MLflow's UI and the link there."""
        if self._waiting.run_id is None or self._waiting.experiment_id is None:
            return "waits until MLflow answers"
        uri = tracking_uri(self.connection.storage)
        return _url(uri, self._waiting.experiment_id, self._waiting.run_id)

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Records the values of metrics at a step."""
        now = now_ms()
        self._waiting.metrics += [(name, float(value), now, step) for name, value in metrics.items()]
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> bool:
        """Sends what waits; returns whether MLflow knows all now."""
        is_sent = self.connection.send(self._waiting)
        self._due = time.monotonic() + _FLUSH_SECONDS
        return is_sent

    def history(self, names: Iterable[str]) -> dict[str, dict[int, float]]:
        """Values by step of those metrics that have any, including those from before the run was resumed.

        If a step was repeated, the later value counts. Raises StorageError if MLflow fails.
        """
        run_id = self.id
        if not self.flush() or run_id is None:
            raise StorageError(f"metrics of run {self._waiting.name}: MLflow does not answer")
        with explained(f"metrics of run {run_id}"):
            found = {name: self.connection.client.get_metric_history(run_id, name) for name in names}
        return {name: {one.step: _as_logged(one.value) for one in ones} for name, ones in found.items() if ones}

    def param(self, key: str, value: object) -> None:
        """Adds a param that is known only now; MLflow keeps the first value of each."""
        self._waiting.params[key] = str(value)
        self.flush()

    def tag(self, key: str, value: object) -> None:
        """Sets a tag."""
        self._waiting.tags[key] = str(value)
        self.flush()

    def text(self, text: str, name: str) -> None:
        """Stores a text of a few megabytes at most as the file `name` with the run."""
        self._waiting.files[name] = text
        self.flush()

    def register_later(self, publication: Publication) -> None:
        """Lets a published model wait to be registered, beside what else MLflow is to be told."""
        self._waiting.publication = publication

    def close(self, status: str) -> None:
        """Sends what waits and sets the status: FINISHED, FAILED or KILLED; keeps in storage what MLflow lacks."""
        self._waiting.status, self._waiting.ended_ms = status, now_ms()
        self.flush()
        if not self._waiting.is_empty:
            self.connection.keep(self._waiting)


@contextmanager
def start_run(
    storage: StorageConfig,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: Run | None = None,
    run_id: str | None = None,
) -> Iterator[Run]:
    """A run that ends with the block: as `ends_as` says, KILLED on Ctrl-C or a signal, FAILED on any other exception.

    `run_id` resumes an earlier run. Nested `params` get dotted names. Goes on without a server that does not answer.
    Raises StorageError if MLflow's own database cannot be opened.
    """
    with explained(f"run {name!r} in {tracking_uri(storage)}"):
        connection = parent.connection if parent else Connection(client(storage), storage)
    waiting = Waiting(experiment, name, run_id, params={key: str(value) for key, value in _flat(params)})
    if run_id is None:
        waiting.tags = {**tags, **({PARENT: parent.id} if parent and parent.id else {})}
    else:
        waiting.status = "RUNNING"
    run = Run(connection, waiting)
    run.flush()
    status = "FAILED"
    try:
        yield run
        status = run.ends_as
    except (KeyboardInterrupt, SystemExit, StoppedError):
        status = "KILLED"
        raise
    finally:
        if not run.is_left:
            run.close(status)
        if parent is None:
            connection.say_what_waits()


def send(client: MlflowClient, storage: StorageConfig, waiting: Waiting) -> None:
    """Tells MLflow of a run what waits, and forgets each part once it is told; the publication stays.

    Raises StorageError if MLflow fails.
    """
    with explained(f"run {waiting.name!r} in {tracking_uri(storage)}"):
        if waiting.run_id is None:
            _create_run(client, storage, waiting)
        run_id = str(waiting.run_id)
        _send_params(client, run_id, waiting)
        for key in list(waiting.tags):
            client.set_tag(run_id, key, waiting.tags[key])
            del waiting.tags[key]
        _send_metrics(client, run_id, waiting)
        if waiting.status is not None:
            _send_status(client, run_id, waiting)
        for name in list(waiting.files):  # last, since they may go to another server
            client.log_text(run_id, waiting.files[name], name)
            del waiting.files[name]


def _create_run(client: MlflowClient, storage: StorageConfig, waiting: Waiting) -> None:
    waiting.experiment_id = _experiment_id(client, storage, waiting.experiment)
    made = client.create_run(waiting.experiment_id, waiting.started_ms, waiting.tags, waiting.name)
    waiting.run_id, waiting.tags = made.info.run_id, {}


def _send_params(client: MlflowClient, run_id: str, waiting: Waiting) -> None:
    """Sends the params that the run does not have yet, since MLflow never changes one."""
    if not waiting.params:
        return
    from mlflow.entities import Param

    known = client.get_run(run_id)
    waiting.experiment_id = known.info.experiment_id
    new = [Param(key, value) for key, value in waiting.params.items() if key not in known.data.params]
    for start in range(0, len(new), _MOST_PARAMS):
        client.log_batch(run_id, params=new[start : start + _MOST_PARAMS])
    waiting.params = {}


def _send_metrics(client: MlflowClient, run_id: str, waiting: Waiting) -> None:
    from mlflow.entities import Metric

    while waiting.metrics:
        client.log_batch(run_id, metrics=[Metric(*one) for one in waiting.metrics[:_MOST_METRICS]])
        del waiting.metrics[:_MOST_METRICS]


def _send_status(client: MlflowClient, run_id: str, waiting: Waiting) -> None:
    if waiting.ended_ms is None:
        client.update_run(run_id, status=waiting.status)
    else:
        client.set_terminated(run_id, waiting.status, waiting.ended_ms)
    waiting.status = None


def _experiment_id(client: MlflowClient, storage: StorageConfig, name: str) -> str:
    """The experiment's id; creates it if needed, with its artifacts in storage unless a server decides that."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        on_server = client.tracking_uri.startswith("http")
        try:
            return str(client.create_experiment(name, None if on_server else f"{storage.url}/mlflow"))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    if is_inside(storage):
        _follow_folder(storage, found.experiment_id, found.artifact_location.removeprefix("file://"))
    return str(found.experiment_id)


def _follow_folder(storage: StorageConfig, experiment_id: str, before: str) -> None:
    """Lets an experiment keep its artifacts in the storage's folder, if that was renamed: MLflow has no call for it."""
    now = f"{storage.url}/mlflow"
    if before == now or Path(before).exists():
        return
    with closing(sqlite3.connect(Path(storage.url) / DATABASE)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, experiment_id))
        database.execute(
            "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?) WHERE experiment_id = ?",
            (before, now, experiment_id),
        )


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_logged(value: float) -> float:
    """Restores infinity, for which MLflow's databases store the largest float."""
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _url(uri: str, experiment_id: str, run_id: str) -> str:
    page = f"/#/experiments/{experiment_id}/runs/{run_id}"
    if uri.startswith("http"):
        return uri.rstrip("/") + page
    return f"mlflow ui --backend-store-uri {uri}  then  http://127.0.0.1:5000{page}"
