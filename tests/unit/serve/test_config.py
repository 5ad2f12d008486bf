from __future__ import annotations

from typing import Any

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.serve.config import ServeConfig


@pytest.mark.parametrize("route", ["/", "/chat", "/teams/a-1/chat_v2"])
def test_routes_that_are_allowed(route: str) -> None:
    assert ServeConfig(route=route).route == route


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"route": "chat"}, "route: 'chat' given; .*starts with a slash"),
        ({"route": "/chat/"}, "route: '/chat/' given"),
        ({"route": "/a b"}, "route: '/a b' given"),
        ({"port": 0}, "port: 0 given"),
        ({"port": 70000}, "port: 70000 given; .*65535"),
        ({"auth": "off"}, "auth: 'off' given; .*keys"),
        ({"replicas": {"min": -1}}, "replicas.min: -1 given"),
        ({"replicas": {"min": 0, "max": 0}}, "replicas.max: 0 given"),
        ({"replicas": {"min": 2, "max": 1}}, "serve.replicas: min 2 is above max 1"),
        ({"precision": "fp16"}, "precision: 'fp16' given; .*bf16"),
        ({"cors_origins": ["example.com"]}, r"cors_origins\.0: 'example.com' given; .*https://app.example.com"),
        ({"cors_origins": ["https://example.com/"]}, r"cors_origins\.0: .* given"),
        ({"ingress": {"header_seconds": 0}}, "ingress.header_seconds: 0 given"),
        ({"objectives": {"latency_seconds": {"p42": 1}}}, "objectives.latency_seconds.p42: 'p42' given; .*'p95'"),
        ({"objectives": {"first_token_seconds": {"p95": 0}}}, "objectives.first_token_seconds.p95: 0 given"),
        ({"objectives": {"availability": 1}}, "objectives.availability: 1 given; must be less than 1"),
        ({"objectives": {"lateny": {}}}, "objectives.lateny: unknown key .*latency_seconds"),
        ({"body_timeout_seconds": 3601}, "body_timeout_seconds: 3601 given; must be less than or equal to 3600"),
        ({"timeout": 5}, "timeout: unknown key; did you mean 'timeout_seconds'"),
    ],
)
def test_what_is_wrong_is_one_line(value: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build(ServeConfig, value)
    assert "\n" not in str(caught.value)
