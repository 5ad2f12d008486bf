"""A training run as its workers are told of it."""

from __future__ import annotations

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.storage.config import StorageConfig
from heliostat.train.config import TrainConfig
from heliostat.train.data.config import DataConfig
from heliostat.train.models.architectures.config import ModelConfig


class Job(StrictModel):
    """All that a worker must know, on whatever node it starts."""

    name: str
    task: str
    run_id: str
    model: ModelConfig
    data: DataConfig
    data_fingerprint: str
    train: TrainConfig
    storage: StorageConfig
    spec: str
    """The resolved spec as YAML, kept with the published model."""

    @property
    def prefix(self) -> str:
        """Where the run's files are in storage."""
        return f"runs/{self.name}/{self.run_id}"
