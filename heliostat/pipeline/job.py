"""A run as its workers are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.infra.config.strict import dump_yaml
from heliostat.spec import Spec

if TYPE_CHECKING:
    from heliostat.train.data.prepared import Prepared
    from heliostat.train.job import Job


def make_job(spec: Spec, prepared: Prepared, run_id: str) -> Job:
    """What each worker of a run is told; ConfigError where the base model cannot be laid out as `train` says."""
    from heliostat.train.job import Job
    from heliostat.train.models.bases import base_folder
    from heliostat.train.parallel.sharding import check_model

    check_model(spec.train, base_folder(spec.model, spec.data, prepared, spec.storage))
    return Job(
        name=spec.name,
        task=spec.task,
        run_id=run_id,
        model=spec.model,
        data=spec.data,
        data_fingerprint=prepared.fingerprint,
        train=spec.train,
        storage=spec.storage,
        spec=dump_yaml(spec),
    )
