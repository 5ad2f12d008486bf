"""Whether an endpoint fits the ingress of the Ray where it is deployed."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.cluster.haproxy.ingress import DEADLINES
from heliostat.cluster.haproxy.settings import HARD_STOP_VARIABLE, SOURCE_VARIABLE
from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.serve.config import ServeConfig
from heliostat.serve.replica import replica
from heliostat.serve.replica.ingress import check_ingress, ingress_variables

ON = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}


def config(**fields: Any) -> ServeConfig:
    return build(ServeConfig, fields)


def test_an_ingress_that_was_started_for_a_spec_fits_it() -> None:
    for one in (config(), config(timeout_seconds=7200), config(ingress={"header_seconds": 2.5, "max_connections": 9})):
        check_ingress(one, {**ON, **ingress_variables(one)})


def test_answers_that_the_ingress_would_cut_are_refused() -> None:
    check_ingress(config(timeout_seconds=3600), {**ON, **DEADLINES})
    with pytest.raises(ConfigError, match=r"^serve.timeout_seconds: 600 given; at most 110 is allowed on this Ray"):
        check_ingress(config(timeout_seconds=600), ON)  # a Ray with Ray's own settings
    with pytest.raises(ConfigError, match=rf"^serve.timeout_seconds: 7200 given; .*{HARD_STOP_VARIABLE}"):
        check_ingress(config(timeout_seconds=7200), {**ON, **DEADLINES})
    check_ingress(config(timeout_seconds=7200), {})  # without HAProxy


def test_limits_that_the_address_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^serve.ingress.header_seconds: 3 given; .* was started with 10"):
        check_ingress(config(ingress={"header_seconds": 3}), {**ON, **DEADLINES})
    with pytest.raises(
        ConfigError, match=rf"^serve.ingress.max_connections_per_source: 1024 given; .*{SOURCE_VARIABLE}"
    ):
        check_ingress(config(), {**ON, **DEADLINES, SOURCE_VARIABLE: "7"})


def test_a_replica_checks_it_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is deployed: by `heliostat serve`, or by `serve deploy` on a cluster of the images."""
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv(HARD_STOP_VARIABLE, "120")
    args = {"name": "a", "url": "/nowhere", "digest": "0", "version": "1", "config": {"timeout_seconds": 600}}
    with pytest.raises(ConfigError, match=r"^serve.timeout_seconds: 600 given"):
        replica.Replica(args)
