from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from heliostat.infra import tracking
from heliostat.infra.storage.config import StorageConfig


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making its tables takes over a second, so tests copy this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        storage = StorageConfig(url=str(tmp_path_factory.mktemp("mlflow")))
        tracking.client(storage)
    return Path(storage.url) / "mlflow.db"


@pytest.fixture
def storage(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    """Local storage of the test's own, with an empty MLflow database in it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "storage"
    folder.mkdir()
    shutil.copy(mlflow_database, folder / "mlflow.db")
    return StorageConfig(url=str(folder))
