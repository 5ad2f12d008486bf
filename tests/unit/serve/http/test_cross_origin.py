"""Which pages may ask from a browser."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter

from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.unit.serve.conftest import Client, Recorded, service_of

pytestmark = pytest.mark.anyio
GOOD, OTHER = "https://app.example.com", "https://elsewhere.example.com"


@pytest.fixture
def client_of(served: ServedModels, access: AccessControl, recorded: Recorded) -> Any:
    """Builds a client of an endpoint with these `cors_origins`."""

    def build(*origins: str) -> Client:
        config = ServeConfig(cors_origins=origins)
        return Client(create_app(served, service_of(APIRouter()), config, access, recorded.metrics))

    return build


async def asked_beforehand(client: Client, origin: str) -> tuple[int, str | None]:
    """Status and allowed origin of what a browser asks, without a key, before it sends a request with one."""
    wishes = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}
    response = await client.http.options("/v1/predict", headers={"authorization": "", "origin": origin, **wishes})
    return response.status_code, response.headers.get("access-control-allow-origin")


async def test_pages_of_the_origins_that_are_named_may_ask_and_no_others(client_of: Any) -> None:
    client = client_of(GOOD)
    assert await asked_beforehand(client, GOOD) == (200, GOOD)
    assert await asked_beforehand(client, OTHER) == (400, None)
    answer = await client.http.get("/v1/models", headers={"origin": GOOD})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, GOOD)
    refused = await client.http.get("/v1/models", headers={"origin": GOOD, "authorization": ""})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, GOOD), "a page reads why"


async def test_any_page_may_ask_where_the_spec_says_so(client_of: Any) -> None:
    assert await asked_beforehand(client_of("*"), OTHER) == (200, "*")


async def test_no_page_of_another_origin_may_ask_unless_the_spec_says_so(client_of: Any) -> None:
    status, allowed = await asked_beforehand(client_of(), GOOD)
    assert (status, allowed) == (401, None)
