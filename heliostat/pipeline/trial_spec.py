"""The spec of a trial: that of the search, with the trial's values at their keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.searchable import full_key
from heliostat.spec import Spec
from heliostat.train.config import CHANGEABLE
from heliostat.tune.lineage import Schedule


def with_values(spec: Spec, values: Mapping[str, Any], past: Schedule = ()) -> Spec:
    """`spec` with a trial's values, and what it was trained with before as `train.stages`.

    Raises ConfigError, which names the key, if they are not valid together.
    """
    changed: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        *path, last = full_key(key).split(".")
        section = changed
        for name in path:
            section[name] = dict(section.get(name) or {})
            section = section[name]
        section[last] = value
    rate = _scaled_rate(spec, values)
    if rate is not None:
        changed["train"]["learning_rate"] = rate
    if stages := stages_of(spec, values, past):
        changed["train"] = {**changed.get("train", {}), "stages": stages}
    return build(Spec, changed)


def stages_of(spec: Spec, values: Mapping[str, Any], past: Schedule) -> list[dict[str, Any]]:
    """The `train.stages` of a trial that has `values` after its `past`; empty if it always had them."""
    keys = [
        key for key in CHANGEABLE if any({key, f"train.{key}"} & one.keys() for one in (values, *dict(past).values()))
    ]
    own = spec.train.model_dump(mode="json", include=set(keys))
    found: list[dict[str, Any]] = []
    for until, part in [*past, (1.0, values)]:
        full = {full_key(key): value for key, value in part.items()}
        stage = {key: full.get(f"train.{key}", own[key]) for key in keys}
        if found and {**found[-1], "until": None} == {**stage, "until": None}:
            found.pop()
        found.append({"until": until, **stage})
    return found[:-1]


def trial_spec(spec: Spec, values: Mapping[str, Any], past: Schedule = ()) -> Spec:
    """As `with_values`, with the epochs of the longest trial."""
    epochs = spec.tune.epochs or spec.train.epochs
    full = {full_key(key): value for key, value in values.items()}
    return with_values(spec, {"train.epochs": epochs, **full}, past)


def check_space(spec: Spec) -> None:
    """Raises ConfigError if there is nothing to search, or for a value that the spec refuses."""
    if not spec.tune.space:
        raise ConfigError("tune.space: empty; give at least one key, such as learning_rate: {loguniform: [1e-5, 1e-3]}")
    if not spec.data.split.validation:
        raise ConfigError(
            "data.split.validation: 0 given; a search compares its trials by that split, so it needs more"
        )
    check_stages(spec)
    for key, domain in spec.tune.space.items():
        parents = {parent: domain.alternatives(parent)[0] for parent in domain.when}
        for value in domain.to_check():
            if value == "auto" and full_key(key) == "train.precision":
                raise ConfigError(f"tune.space.{key}: 'auto' given; bf16 and fp32 are allowed, since trials compare")
            try:
                trial_spec(spec, {**parents, key: value})
            except ConfigError as error:
                raise ConfigError(f"tune.space.{key}: {value!r} given; {error}") from None


def check_stages(spec: Spec) -> None:
    """Raises ConfigError for a searched key that `train.stages` gives too, so that a trial would not have its value."""
    given = {f"train.{key}" for stage in spec.train.stages for key in stage.changes}
    for key in spec.tune.space:
        if full_key(key) in given:
            raise ConfigError(f"tune.space.{key}: train.stages gives {full_key(key)} too; one of them is allowed")


def _scaled_rate(spec: Spec, values: Mapping[str, Any]) -> float | None:
    """The learning rate that follows the trial's global batch (Krizhevsky 2014: sqrt; Goyal et al. 2017: linear)."""
    full = {full_key(key): value for key, value in values.items()}
    how = spec.tune.scale_learning_rate
    if how == "none" or "train.learning_rate" in full or "train.global_batch_size" not in full:
        return None
    ratio = full["train.global_batch_size"] / spec.train.global_batch_size
    return spec.train.learning_rate * (math.sqrt(ratio) if how == "sqrt" else ratio)
