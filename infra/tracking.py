"""Where MLflow is: an SQLite file next to the stored data, or the server in MLFLOW_TRACKING_URI; and how it fails.

MLflow takes seconds to import, so this module imports it only when it is asked for something.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from heliostat.infra import log
from heliostat.infra.config.strict import build
from heliostat.infra.errors import StorageError, UnreachableError
from heliostat.infra.failures import is_database_error
from heliostat.infra.storage.config import DEFAULT_FOLDER, StorageConfig, is_s3

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
_SQLITE = "sqlite:///"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # With MLflow's defaults, an unreachable server could block a command for many minutes. What waits is tried again
    # later, so one attempt is enough, and it can be a patient one.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
_UNREACHABLE = ("Max retries exceeded", "failed with timeout exception", "Connection aborted")
"""What MLflow says of a server that does not answer."""
_making = threading.Lock()
_log = log.get(__name__)


def tracking_uri(storage: StorageConfig) -> str:
    """MLFLOW_TRACKING_URI, or an SQLite file in the storage folder (`./heliostat-data` for a bucket).

    Raises ConfigError if MLflow cannot have a database in this working directory.
    """
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    here = build(StorageConfig, {"url": DEFAULT_FOLDER}, "MLflow's database") if is_s3(storage.url) else storage
    return f"{_SQLITE}{Path(here.url) / DATABASE}"


def is_inside(storage: StorageConfig) -> bool:
    """Whether MLflow's database lies in the storage's folder, and so goes where that goes."""
    return tracking_uri(storage) == f"{_SQLITE}{Path(storage.url) / DATABASE}"


def client(storage: StorageConfig) -> MlflowClient:
    """An MLflow client for tracking and registry; raises StorageError if its database cannot be created."""
    if storage.endpoint_url:
        os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", storage.endpoint_url)
    with _making:  # MLflow creates its tables by Alembic, whose context is one for all threads of a process
        return _client(tracking_uri(storage))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns exceptions of MLflow and its database in the block into one StorageError line."""
    _set_environment()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except Exception as error:
        if not (isinstance(error, MlflowException | OSError) or is_database_error(error) or _is_of_artifacts(error)):
            raise
        if any(sign in str(error) for sign in _UNREACHABLE):
            raise UnreachableError(
                f"{what}: MLflow fails: the server does not answer; check MLFLOW_TRACKING_URI"
            ) from error
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


def _is_of_artifacts(error: Exception) -> bool:
    """Whether the client of a bucket raised it, in which a server may keep the files of runs."""
    return type(error).__module__.partition(".")[0] in ("boto3", "botocore")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).partition(" [SQL: ")[0][:300]  # SQLAlchemy adds the statement
