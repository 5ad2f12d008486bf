"""MLflow tracking: an SQLite file next to the stored data, or the server in MLFLOW_TRACKING_URI.

MLflow takes seconds to import, so this module imports it only when a run starts.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from heliostat.infra import log
from heliostat.infra.config.strict import build
from heliostat.infra.errors import StoppedError, StorageError
from heliostat.infra.failures import is_database_error
from heliostat.infra.storage.config import DEFAULT_FOLDER, StorageConfig, is_s3

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DATABASE = "mlflow.db"
_SQLITE = "sqlite:///"
_FLUSH_SECONDS = 1.0
_MOST_PARAMS = 100  # per batch
_MOST_METRICS = 1000
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # With MLflow's defaults, an unreachable server could block a run for many minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_log = log.get(__name__)


def tracking_uri(storage: StorageConfig) -> str:
    """MLFLOW_TRACKING_URI, or an SQLite file in the storage folder (`./heliostat-data` for a bucket).

    Raises ConfigError if MLflow cannot have a database in this working directory.
    """
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    here = build(StorageConfig, {"url": DEFAULT_FOLDER}, "MLflow's database") if is_s3(storage.url) else storage
    return f"{_SQLITE}{Path(here.url) / _DATABASE}"


def is_inside(storage: StorageConfig) -> bool:
    """Whether MLflow's database lies in the storage's folder, and so goes where that goes."""
    return tracking_uri(storage) == f"{_SQLITE}{Path(storage.url) / _DATABASE}"


def client(storage: StorageConfig) -> MlflowClient:
    """An MLflow client for tracking and registry; raises StorageError if its database cannot be created."""
    if storage.endpoint_url:
        os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", storage.endpoint_url)
    return _client(tracking_uri(storage))


class Run:
    """One MLflow run. Metrics are sent about once a second; failing to send them never stops a training run."""

    def __init__(self, client: MlflowClient, run_id: str, url: str) -> None:
        self.id = run_id
        self.url = url
        """How to view it: a link, or the command that starts MLflow's UI and the link there."""
        self._client = client
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Records the values of metrics at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), now, step) for name, value in metrics.items()]
        if time.monotonic() - self._sent >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sends queued metrics; on failure logs a warning and keeps them for the next time."""
        from mlflow.exceptions import MlflowException

        self._sent = time.monotonic()
        try:
            while self._waiting:
                self._client.log_batch(self.id, metrics=self._waiting[:_MOST_METRICS])
                del self._waiting[:_MOST_METRICS]
        except MlflowException as error:
            _log.warning("%d metrics of run %s wait for MLflow: %s", len(self._waiting), self.id, _line(error))

    def history(self, names: Iterable[str]) -> dict[str, dict[int, float]]:
        """Values by step of those metrics that have any, including those from before the run was resumed.

        If a step was repeated, the later value counts. Raises StorageError if MLflow fails.
        """
        self.flush()
        with explained(f"metrics of run {self.id}"):
            found = {name: self._client.get_metric_history(self.id, name) for name in names}
        return {name: {one.step: _as_logged(one.value) for one in ones} for name, ones in found.items() if ones}

    def tag(self, key: str, value: object) -> None:
        """Sets a tag; raises StorageError if MLflow fails."""
        with explained(f"tag of run {self.id}"):
            self._client.set_tag(self.id, key, value)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Stores a small file, or a folder of them, with the run; raises StorageError if MLflow fails."""
        with explained(f"artifact {path} of run {self.id}"):
            put = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            put(self.id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Stores a small text as the file `name` with the run; raises StorageError if MLflow fails."""
        with TemporaryDirectory(prefix="heliostat-text-") as folder:
            (Path(folder) / name).write_text(text, encoding="utf-8")
            self.artifact(Path(folder) / name)

    def close(self, status: str) -> None:
        """Sends queued metrics and sets the status: FINISHED, FAILED or KILLED."""
        from mlflow.exceptions import MlflowException

        self.flush()
        try:
            self._client.set_terminated(self.id, status)
        except MlflowException as error:
            _log.warning("run %s is over (%s), but MLflow was not told: %s", self.id, status, _line(error))


@contextmanager
def start_run(
    storage: StorageConfig,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    parent_run_id: str | None = None,
    run_id: str | None = None,
) -> Iterator[Run]:
    """A run that ends with the block: FINISHED, KILLED on Ctrl-C or a signal, FAILED on any other exception.

    `run_id` resumes an earlier run. Nested `params` get dotted names. Raises StorageError if MLflow cannot be reached
    or fails.
    """
    with explained(f"run {name!r} in {tracking_uri(storage)}"):
        mlflow = client(storage)
        if run_id is None:
            parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
            made = mlflow.create_run(
                _experiment_id(mlflow, storage, experiment), run_name=name, tags={**tags, **parent}
            )
        else:
            mlflow.update_run(run_id, status="RUNNING")
            made = mlflow.get_run(run_id)
        _log_params(mlflow, made, params)
    run = Run(mlflow, made.info.run_id, _url(tracking_uri(storage), made.info.experiment_id, made.info.run_id))
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, StoppedError):
        status = "KILLED"
        raise
    finally:
        run.close(status)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns exceptions of MLflow and its database in the block into one StorageError line."""
    _set_environment()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except Exception as error:
        if not (isinstance(error, MlflowException | OSError) or is_database_error(error)):
            raise
        raise StorageError(f"{what}: MLflow fails: {_line(error)}") from error


def _set_environment() -> None:
    """Sets what MLflow must find when it is first imported, unless the user has set it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@cache
def _client(uri: str) -> MlflowClient:
    _set_environment()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith(_SQLITE):
        if find_spec("sqlalchemy") is None:
            raise StorageError(
                f"{uri}: needs sqlalchemy, which is not installed here; let MLFLOW_TRACKING_URI name an MLflow server, "
                "or pip install heliostat"
            )
        _create_database(Path(uri.removeprefix(_SQLITE)))
    return MlflowClient(uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def _create_database(file: Path) -> None:
    """Creates MLflow's tables in a temporary file and links it into place, so that two processes may do so at once.

    MLflow itself takes no lock here: the slower of two processes would find half-created tables.
    """
    if file.exists():
        _check_database(file)
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".mlflow-", dir=file.parent) as folder:
        part = Path(folder) / file.name
        SqlAlchemyStore(f"{_SQLITE}{part}", str(file.parent / "mlflow")).engine.dispose()
        with suppress(FileExistsError):
            os.link(part, file)


def _check_database(file: Path) -> None:
    """Raises sqlite3.Error at once for a file that is no database or cannot be read: MLflow tries for two minutes."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        database.execute("PRAGMA schema_version")


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
    with closing(sqlite3.connect(Path(storage.url) / _DATABASE)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, experiment_id))
        database.execute(
            "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?) WHERE experiment_id = ?",
            (before, now, experiment_id),
        )


def _log_params(client: MlflowClient, run: Any, params: Mapping[str, Any]) -> None:
    """Sends the params that the run does not have yet, since MLflow never changes one."""
    from mlflow.entities import Param

    new = [Param(key, str(value)) for key, value in _flat(params) if key not in run.data.params]
    for start in range(0, len(new), _MOST_PARAMS):
        client.log_batch(run.info.run_id, params=new[start : start + _MOST_PARAMS])


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


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(" [SQL: ")[0]  # SQLAlchemy adds the statement
    if "Max retries exceeded" in text:
        return "the server does not answer; check MLFLOW_TRACKING_URI"
    return text[:300]
