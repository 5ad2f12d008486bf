from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.infra.storage.store import open_store
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import add_key, digest_of
from heliostat.serve.app import EXTRA_ONGOING_REQUESTS, application, build
from heliostat.serve.args import AppArgs
from heliostat.serve.config import ServeConfig
from heliostat.serve.replica.replica import access_control
from heliostat.serve.replica.scaling import draining

ARGS = {"name": "sentiment", "url": "/models/sentiment/r", "digest": "0" * 64, "version": "3"}
KEY = "0123456789abcdef"
HASHED = f"team:{hashlib.sha256(b'another key, long enough').hexdigest()}"


def deployment(args: Any) -> Any:
    built = application(args) if isinstance(args, AppArgs) else build(args)
    return built._bound_deployment


def test_an_application_is_built_from_arguments_or_from_a_mapping() -> None:
    import ray

    config = {
        "replicas": {"min": 2, "max": 5},
        "target_ongoing_requests": 3,
        "max_ongoing_requests": 10,
        "cpus_per_replica": 0.5,
        "upscale_delay_seconds": 1,
        "downscale_delay_seconds": 2,
    }
    for args in ({**ARGS, "config": config}, AppArgs.model_validate({**ARGS, "config": config})):
        built = deployment(args)
        scaling = built._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (2, 2, 5)
        assert (scaling.target_ongoing_requests, scaling.upscale_delay_s, scaling.downscale_delay_s) == (3, 1, 2)
        assert built.max_ongoing_requests == EXTRA_ONGOING_REQUESTS + 10
        assert built.ray_actor_options["num_cpus"] == 0.5
        assert built.init_args[0]["name"] == "sentiment"
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"digest": None}, "digest: None given"),
        ({"config": {"replicas": {"min": 3, "max": 1}}}, "min 3 is above max 1"),
    ],
)
def test_wrong_arguments_are_one_line(change: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build({**ARGS, **change})


def test_the_route_is_the_name_unless_given() -> None:
    assert AppArgs.model_validate(ARGS).route == "/sentiment"
    assert AppArgs.model_validate({**ARGS, "config": {"route": "/v2/mood"}}).route == "/v2/mood"


def test_the_same_arguments_give_the_same_deployment_wherever_they_come_from() -> None:
    """Else deploying again, or going back after a failure, would replace replicas for nothing."""
    args = AppArgs.model_validate(ARGS)
    first = deployment(args)
    again = deployment(first.init_args[0])
    assert again._version == first._version
    assert repr(again.ray_actor_options) == repr(first.ray_actor_options)
    assert again._deployment_config == first._deployment_config
    assert deployment(args.model_copy(update={"version": "4"}))._version != first._version


def test_a_replica_drains_for_as_long_as_an_answer_may_take() -> None:
    config = ServeConfig(timeout_seconds=40)
    assert draining(config)["graceful_shutdown_timeout_s"] > 40


def test_keys_of_arguments_environment_and_storage_open_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    local = {**ARGS, "storage": {"url": str(tmp_path)}}
    with pytest.raises(ConfigError, match=f"{ENVIRONMENT}.*heliostat keys add"):
        access_control(AppArgs.model_validate(local))
    monkeypatch.setenv(ENVIRONMENT, KEY)
    stored = add_key(open_store(str(tmp_path)), "shop")
    found = access_control(AppArgs.model_validate({**local, "keys": [HASHED]}))
    assert found
    digests = [HASHED.partition(":")[2], digest_of(KEY), digest_of(stored)]
    assert [found.keys.find(digest) is not None for digest in (*digests, "0" * 64)] == [True, True, True, False]
    found.close()
    assert access_control(AppArgs.model_validate({**local, "config": {"auth": "none"}})) is None


def test_no_key_is_in_what_is_shown_of_an_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, KEY)
    built = deployment({**ARGS, "keys": [HASHED]})
    assert KEY not in repr((built.init_args, built.ray_actor_options))
