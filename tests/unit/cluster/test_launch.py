from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

import heliostat.cluster

FOLDER = Path(next(iter(heliostat.cluster.__path__))) / "launch"
FILES = sorted(FOLDER.iterdir())
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(yaml.safe_load(request.param.read_text()))


def test_there_are_files_and_nothing_else() -> None:
    assert FILES
    assert {file.suffix for file in FILES} == {".yaml"}


def test_ray_takes_it(config: dict[str, Any]) -> None:
    jsonschema.validate(config, SCHEMA)
    validate_config(prepare_config(deepcopy(config)))


def test_the_image_is_pinned(config: dict[str, Any]) -> None:
    assert re.fullmatch(r"ghcr\.io/heliostat/heliostat:\d+\.\d+\.\d+", config["docker"]["image"])


def test_it_grows_and_shrinks_within_limits(config: dict[str, Any]) -> None:
    prepared = prepare_config(deepcopy(config))
    assert 0 < config["idle_timeout_minutes"] <= 30
    for kind in prepared["available_node_types"].values():
        assert 0 <= kind["min_workers"] <= kind["max_workers"] <= config["max_workers"]


def test_every_node_starts_ray_with_the_token_and_the_dashboard_stays_inside(config: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in config["file_mounts"]
    for role in ("head", "worker"):
        start = config[f"{role}_start_ray_commands"][-1]
        assert start.startswith("export RAY_AUTH_MODE=token ")
        assert "ray start" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
