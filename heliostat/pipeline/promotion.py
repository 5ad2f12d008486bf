"""The gate between a new version and production: it must be better than the version that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.infra import log
from heliostat.infra.errors import ConfigError
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.train.data.prepared import Prepared

_log = log.get(__name__)


def gate(spec: Spec, model: ModelVersion, prepared: Prepared, view: View) -> ModelVersion:
    """With `train.promote: better`, makes `model` production if it is better; returns it with its aliases.

    Both versions are measured in this process on the same records, those of this run's test split: what the other
    one's own run measured is of other records where the data have changed. A version in production that cannot be
    measured on them, such as one with other labels, stays, and so does one that is equal.
    """
    from heliostat.infra.registry import registry

    if spec.train.promote != "better" or registry.PRODUCTION in model.aliases:
        return model
    if not model.version:
        _log.warning("%s: not compared with production, since it is not registered yet", spec.name)
        return model
    production = registry.resolve(spec.storage, f"models:/{spec.name}@{registry.PRODUCTION}")
    try:
        is_better, why = compared(spec, model, production, prepared, view)
    except ConfigError as error:
        is_better, why = False, str(error)
    if not is_better:
        view.say(f"version {production.version} of {spec.name} stays in production: {why}")
        return model
    promoted = registry.promote(spec.storage, spec.name, model.version)
    view.say(f"version {model.version} of {spec.name} is production now: {why}")
    return promoted


def compared(
    spec: Spec, model: ModelVersion, production: ModelVersion, prepared: Prepared, view: View
) -> tuple[bool, str]:
    """Whether `model` has a better metric than `production`, and both values in words; NaN is never better.

    Raises ConfigError if one of them does not know the labels of the data.
    """
    from heliostat.train import tasks
    from heliostat.train.evaluation.assess import assess

    task = tasks.get(spec.task)
    with view.progress("compare") as advance:
        advance(f"versions {production.version} and {model.version} on the test split", 0, 0)
        before, after = (assess(one, spec.storage, prepared)["metrics"][task.metric] for one in (production, model))
    is_better = after > before if task.mode == "max" else after < before
    return bool(is_better), f"{task.metric} {after:.4g}, and {before:.4g} of version {production.version}"
