"""The description of a training run that its workers receive."""

from __future__ import annotations

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.storage.config import StorageConfig
from heliostat.train.config import TrainConfig
from heliostat.train.data.config import DataConfig
from heliostat.train.models.architectures.config import ModelConfig


class Job(StrictModel):
    """Everything that a worker needs to know, on whatever node it starts."""

    name: str
    task: str
    run_id: str
    model: ModelConfig
    data: DataConfig
    data_fingerprint: str
    train: TrainConfig
    storage: StorageConfig
    search: str | None = None
    """`SEARCH/TRIAL` that the values come from, if any."""
    spec: str
    """The resolved spec as YAML, kept with the published model."""

    @property
    def prefix(self) -> str:
        """Prefix of the run's files in storage."""
        return f"runs/{self.name}/{self.run_id}"
