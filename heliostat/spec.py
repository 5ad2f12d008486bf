"""The spec, one YAML file per model, composed of its sections. Imports neither torch nor ray."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.cluster.config import ClusterConfig
from heliostat.infra.config.strict import StrictModel, apply_overrides, build, read_yaml
from heliostat.infra.errors import ConfigError
from heliostat.infra.storage.config import StorageConfig
from heliostat.searchable import check_changes, check_keys
from heliostat.serve.config import ServeConfig, check_names
from heliostat.train.config import TrainConfig, check_network, check_task
from heliostat.train.data.config import DataConfig
from heliostat.train.data.keys import check_data
from heliostat.train.models.architectures.config import ModelConfig
from heliostat.tune.choice import check_rule
from heliostat.tune.config import TuneConfig
from heliostat.tune.objectives import objectives_of
from heliostat.tune.schedulers.catalog import KINDS

RECIPES = Path(__file__).parent / "recipes"


class Spec(StrictModel):
    """Everything about one model, from its data to its endpoint."""

    name: str
    """Name of the published model and, by default, of its route: a-z, 0-9 and dashes."""
    task: Literal[
        "tabular-classification", "image-classification", "text-classification", "image-generation", "causal-lm"
    ]
    model: ModelConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    storage: StorageConfig = Field(default_factory=StorageConfig)

    @property
    def tokens_of_a_record(self) -> int:
        """Maximum tokens of a record; 1 for records without tokens, such as table rows and images."""
        return self.data.max_length if self.task in ("text-classification", "causal-lm") else 1

    @field_validator("name")
    @classmethod
    def _is_a_label(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
            raise ValueError("a-z, 0-9 and dashes are allowed, 63 at most, first and last no dash")
        return name

    @model_validator(mode="after")
    def _adapters_have_names_of_their_own(self) -> Spec:
        if self.serve.adapters and self.task != "causal-lm":
            raise ValueError(f"serve.adapters: given, and task is {self.task}; causal-lm is needed")
        check_names(self.name, self.serve.adapters)
        return self

    @model_validator(mode="after")
    def _task_can_be_trained(self) -> Spec:
        self.model.check_task(self.task)
        check_task(self.train, self.task)
        if self.model.network:
            check_network(self.train, self.model.network)
        return self

    @model_validator(mode="after")
    def _a_search_varies_what_it_can(self) -> Spec:
        check_keys(list(self.tune.space), type(self))
        check_rule(self.tune.choose, objectives_of(self.tune.objectives, self.task))
        if KINDS[self.tune.scheduler].changes_values:
            check_changes(list(self.tune.space), self.tune.scheduler)
        return self

    @model_validator(mode="after")
    def _trials_can_share_a_gpu(self) -> Spec:
        share, workers = self.tune.gpus_per_trial, self.train.workers.min
        if share and self.train.use_gpu is False:
            raise ValueError(f"tune.gpus_per_trial: {share:g} given, and train.use_gpu is false")
        if share and share < 1 and workers > 1:
            raise ValueError(
                f"tune.gpus_per_trial: {share:g} given, and a trial has {workers} workers (train.workers), of which "
                "NCCL takes one on a GPU; 1 is allowed"
            )
        return self

    @model_validator(mode="after")
    def _no_key_is_for_another_task(self) -> Spec:
        check_data(self.data, self.task, takes_chats=self.model.decoder is None)
        return self

    @model_validator(mode="after")
    def _classes_are_there(self) -> Spec:
        label = self.data.columns.label
        classifies, generates = (self.task.endswith(kind) for kind in ("classification", "generation"))
        if classifies and label is None:
            raise ValueError(f"data.columns.label: null given, and task is {self.task}; the classes' column is needed")
        if self.data.split.stratify and not (classifies or (generates and label)):
            raise ValueError(f"data.split.stratify: true given, and task {self.task} has no classes here")
        if self.train.early_stopping and not self.data.split.validation:
            raise ValueError(
                "train.early_stopping: given, and data.split.validation is 0; what no longer improves is seen on that "
                "split, so it needs more"
            )
        if self.train.promote == "better" and not self.data.split.test:
            raise ValueError(
                "train.promote: better given, and data.split.test is 0; versions are compared on that split"
            )
        if self.train.is_balanced and not classifies:
            raise ValueError(f"train.class_weights: given, and task is {self.task}; a classification is needed")
        return self


def load_spec(path: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """The spec in the YAML file `path`, or the shipped recipe of that name, with overrides applied.

    Sources in the file that begin with `./` or `../` are relative to its folder; all other paths, and those in
    overrides, to the working directory.

    Raises ConfigError with one line that names the key, its value and what is allowed.
    """
    file = _file(path)
    values = resolve_sources(
        read_yaml(file), lambda source: file.parent / source if re.match(r"\.\.?/", source) else None
    )
    return build(Spec, resolve_sources(apply_overrides(values, overrides), working_directory), source=str(path))


def _file(path: str | Path) -> Path:
    """The YAML file at `path`, or of the recipe of that name; raises ConfigError if there is neither."""
    file, recipe = Path(path), RECIPES / f"{path}.yaml"
    if (file.is_dir() or not file.exists()) and recipe.exists():
        return recipe
    if not file.exists():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise ConfigError(f"{path}: no such spec; give a YAML file or a recipe ({known})")
    return file


def sources_here(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Path]:
    """The files and folders of this machine that `data.source` and `model.source` name, by `data` and `model`.

    Paths that are written as absolute are those of any machine that the spec is used on, so they are left out. Raises
    ConfigError as `load_spec` does, and for a relative path where there is nothing.
    """
    spec, written = load_spec(path, overrides), apply_overrides(read_yaml(_file(path)), overrides)
    found = {}
    for key, source in (("data", spec.data.source), ("model", spec.model.source)):
        given = (written.get(key) or {}).get("source")
        if source and given and os.path.isabs(source) and not os.path.isabs(given):
            if not os.path.exists(source):
                raise ConfigError(f"{key}.source: {given!r} given; no such file or folder here to send: {source}")
            found[key] = Path(source)
    return found


def resolve_sources(values: Mapping[str, Any], place: Callable[[str], Path | None]) -> dict[str, Any]:
    """`values` with `data.source` and `model.source` replaced by absolute paths if `place` returns one."""
    found = dict(values)
    for key in ("data", "model"):
        match found.get(key):
            case {"source": str(source), **rest} if path := place(source):
                found[key] = {**rest, "source": str(path.absolute())}
    return found


def working_directory(source: str) -> Path | None:
    """The path `source` if it exists, relative to the current directory; workers have other working directories."""
    path = os.path.expanduser(source)
    return Path(path) if os.path.exists(path) else None
