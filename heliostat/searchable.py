"""Which keys of a spec a search may vary."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from heliostat.train.config import CHANGEABLE

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
    "train.early_stopping",
    "train.stages",
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


def check_keys(keys: list[str], spec: type[BaseModel]) -> None:
    """Raises ValueError for a key that a search cannot vary, that `spec` has not, or that is named twice."""
    known: dict[str, str] = {}
    for key in keys:
        _check(key, spec)
        if (other := known.setdefault(full_key(key), key)) != key:
            raise ValueError(f"tune.space.{key}: the same key as tune.space.{other}; one of them is allowed")


def check_changes(keys: list[str], scheduler: str) -> None:
    """Raises ValueError for a key that cannot change on the same weights, as `scheduler` does."""
    for key in keys:
        if full_key(key) not in {f"train.{one}" for one in CHANGEABLE}:
            raise ValueError(
                f"tune.space.{key}: {scheduler} changes values while a trial is trained, which is possible for "
                f"{', '.join(CHANGEABLE)}"
            )


def _check(key: str, spec: type[BaseModel]) -> None:
    full = full_key(key)
    section, *path = full.split(".")
    if section not in SECTIONS:
        raise ValueError(f"tune.space.{key}: a trial reads the sections {', '.join(SECTIONS)} only")
    fixed = [one for one in FIXED if full == one or full.startswith(f"{one}.")]
    if fixed:
        raise ValueError(f"tune.space.{key}: {fixed[0]} is the same for all trials of a search")
    _check_path(key, spec, [section, *path])


def _check_path(key: str, model: Any, path: list[str]) -> None:
    name, *below = path
    if name not in model.model_fields:
        allowed = ", ".join(model.model_fields)
        raise ValueError(f"tune.space.{key}: the spec has no {name!r} there (allowed: {allowed})")
    inner = _models(model.model_fields[name].annotation)
    if below and inner:
        _check_path(key, inner[0], below)


def _models(annotation: Any) -> list[Any]:
    """The models in an annotation, such as that of `AdapterConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
