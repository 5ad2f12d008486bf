"""Evaluates a published model on a test split, in this process: no Ray, no DeepSpeed."""

from __future__ import annotations

from typing import Any

from heliostat.infra.errors import ConfigError
from heliostat.infra.registry.fetching import fetch_model
from heliostat.infra.registry.published import WEIGHTS
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.scratch import scratch
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.train import tasks
from heliostat.train.data.prepared import Prepared
from heliostat.train.evaluation.evaluate import evaluate, findings
from heliostat.train.models.bases import rows_of
from heliostat.train.parallel.distributed import World


def assess(model: ModelVersion, storage: StorageConfig, prepared: Prepared) -> dict[str, Any]:
    """Test results of the model version on `prepared`: see `findings`.

    Raises IntegrityError if the model's files have changed, ConfigError if its labels differ from those of the data.
    """
    with scratch("evaluate") as temporary:
        folder = temporary / "model"
        store = open_store(model.url, storage.endpoint_url)
        described = fetch_model(store, "", folder, model.digest, storage.endpoint_url)
        if described.labels != tuple(prepared.labels):
            raise ConfigError(
                f"data.source: its labels are {', '.join(prepared.labels)}; {model.name} version {model.version} "
                f"knows {', '.join(described.labels)}"
            )
        task = tasks.get(described.task)
        rows = rows_of(prepared, "test")
        model_itself = task.load_model(folder / WEIGHTS, described.labels, None)
        return findings(task, evaluate(task, model_itself, rows, World(0, 1, "cpu")), rows, folder / WEIGHTS)
