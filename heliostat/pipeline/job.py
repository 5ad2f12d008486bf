"""Builds the description of a run that its workers receive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.infra.config.strict import dump_yaml
from heliostat.spec import Spec

if TYPE_CHECKING:
    from heliostat.train.data.prepared import Prepared
    from heliostat.train.job import Job


def make_job(spec: Spec, prepared: Prepared, run_id: str, search: str | None = None) -> Job:
    """The job for a run's workers, with the values of `search` (`SEARCH/TRIAL`) if there is one.

    Raises ConfigError if the base model does not support the layout in `train`.
    """
    from heliostat.train.job import Job
    from heliostat.train.models.bases import base_folder
    from heliostat.train.models.compatibility import check_labels
    from heliostat.train.parallel.sharding import check_model

    folder = base_folder(spec.model, spec.data, prepared, spec.storage)
    check_model(spec.train, folder)
    if spec.model.source:
        check_labels(folder, spec.task, len(prepared.labels))
    return Job(
        name=spec.name,
        task=spec.task,
        run_id=run_id,
        model=spec.model,
        data=spec.data,
        data_fingerprint=prepared.fingerprint,
        train=spec.train,
        storage=spec.storage,
        search=search,
        spec=dump_yaml(spec),
    )
