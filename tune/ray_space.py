"""Converts the spec's search space to Ray Tune's, and checks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heliostat.infra.errors import ConfigError
from heliostat.train.config import TrainConfig
from heliostat.tune.config import Domain, TuneConfig


def build_space(config: TuneConfig) -> dict[str, Any]:
    """Ray Tune's domain for each `train` key; raises ConfigError if the space is empty."""
    if not config.space:
        raise ConfigError("tune.space: empty; give at least one key, such as learning_rate: {loguniform: [1e-5, 1e-3]}")
    return {key: _domain(domain) for key, domain in config.space.items()}


def _domain(domain: Domain) -> Any:
    from ray import tune

    if domain.choice is not None:
        return tune.choice(domain.choice)
    if domain.uniform is not None:
        return tune.uniform(*domain.uniform)
    assert domain.loguniform is not None
    return tune.loguniform(*domain.loguniform)


def trial_config(train: TrainConfig, tune: TuneConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The `train` section of one trial: `values` merged over `train`, with the epochs of the longest trial.

    Raises pydantic's ValidationError if the values are not valid.
    """
    epochs = tune.epochs or train.epochs
    return TrainConfig.model_validate({**train.model_dump(), "epochs": epochs, **values})


def check_space(train: TrainConfig, tune: TuneConfig) -> None:
    """Raises ConfigError if the space contains a value that is not valid in the `train` section."""
    from pydantic import ValidationError

    for key, domain in tune.space.items():
        for value in domain.choice or domain.uniform or domain.loguniform or ():
            try:
                trial_config(train, tune, {key: value})
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ConfigError(f"tune.space.{key}: {value!r} given; {message}") from None
