"""The spec of a trial: that of the search, with the trial's values at their keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.spec import Spec

SECTIONS = ("train", "data", "model")
"""What training reads."""
FIXED = (
    "train.workers",
    "train.cpus_per_worker",
    "train.use_gpu",
    "train.sequence_parallel",
    "train.tensor_parallel",
    "train.resume",
    "train.promote",
    "train.max_failures",
    "train.keep_checkpoints",
    "train.checkpoint_every",
    "train.validate_every",
    "train.seed",
    "data.source",
    "data.split",
    "data.columns",
    "model.source",
)
"""Keys that a search cannot vary: its gangs share these, it sets them itself, or trials would not compare."""


def full_key(key: str) -> str:
    """The dotted key of the spec that a searched key names."""
    return key if "." in key else f"train.{key}"


def with_values(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """`spec` with a trial's values; raises ConfigError, which names the key, if they are not valid together."""
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
    return build(Spec, changed)


def trial_spec(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """As `with_values`, with the epochs of the longest trial."""
    epochs = spec.tune.epochs or spec.train.epochs
    return with_values(spec, {"train.epochs": epochs, **{full_key(key): value for key, value in values.items()}})


def check_space(spec: Spec) -> None:
    """Raises ConfigError for a key that training never reads, or a value that the spec refuses."""
    if not spec.tune.space:
        raise ConfigError("tune.space: empty; give at least one key, such as learning_rate: {loguniform: [1e-5, 1e-3]}")
    if not spec.data.split.validation:
        raise ConfigError(
            "data.split.validation: 0 given; a search compares its trials by that split, so it needs more"
        )
    known: dict[str, str] = {}
    for key, domain in spec.tune.space.items():
        check_key(key)
        if (other := known.setdefault(full_key(key), key)) != key:
            raise ConfigError(f"tune.space.{key}: the same key as tune.space.{other}; one of them is allowed")
        parents = {parent: domain.alternatives(parent)[0] for parent in domain.when}
        for value in domain.to_check():
            try:
                trial_spec(spec, {**parents, key: value})
            except ConfigError as error:
                raise ConfigError(f"tune.space.{key}: {value!r} given; {error}") from None


def check_key(key: str) -> None:
    """Raises ConfigError for a key that a search cannot vary."""
    full = full_key(key)
    section, *path = full.split(".")
    if section not in SECTIONS:
        raise ConfigError(f"tune.space.{key}: a trial reads the sections {', '.join(SECTIONS)} only")
    fixed = [one for one in FIXED if full == one or full.startswith(f"{one}.")]
    if fixed:
        raise ConfigError(f"tune.space.{key}: {fixed[0]} is the same for all trials of a search")
    _check_path(key, Spec, [section, *path])


def _check_path(key: str, model: Any, path: list[str]) -> None:
    """Raises ConfigError if there is no such key in the spec."""
    name, *below = path
    if name not in model.model_fields:
        raise ConfigError(
            f"tune.space.{key}: the spec has no {name!r} there (allowed: {', '.join(model.model_fields)})"
        )
    inner = _models(model.model_fields[name].annotation)
    if below and inner:
        _check_path(key, inner[0], below)


def _models(annotation: Any) -> list[Any]:
    """The models in an annotation, such as that of `AdapterConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _scaled_rate(spec: Spec, values: Mapping[str, Any]) -> float | None:
    """The learning rate that follows the trial's global batch (Krizhevsky 2014: sqrt; Goyal et al. 2017: linear)."""
    full = {full_key(key): value for key, value in values.items()}
    how = spec.tune.scale_learning_rate
    if how == "none" or "train.learning_rate" in full or "train.global_batch_size" not in full:
        return None
    ratio = full["train.global_batch_size"] / spec.train.global_batch_size
    return spec.train.learning_rate * (math.sqrt(ratio) if how == "sqrt" else ratio)
