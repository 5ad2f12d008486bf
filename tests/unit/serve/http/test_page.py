from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re

import pytest
from fastapi import APIRouter

from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.unit.serve.conftest import Client, Recorded, service_of

pytestmark = pytest.mark.anyio


def client(served: ServedModels, access: AccessControl | None, recorded: Recorded, **config: object) -> Client:
    settings = ServeConfig.model_validate(config)
    made = Client(create_app(served, service_of(APIRouter()), settings, access, recorded.metrics), "/tiny")
    del made.http.headers["authorization"]
    return made


async def test_the_page_needs_no_key_and_says_what_is_served(
    served: ServedModels, access: AccessControl, recorded: Recorded
) -> None:
    response = await client(served, access, recorded).http.get("/")
    assert response.status_code == 200
    about = re.search(r"const served = ({.*?});", response.text)
    assert about
    assert json.loads(about[1]) == {
        "name": "tiny", "version": "7", "task": "text-classification", "needs_key": True,
        "explains": False, "chats": True,
    }  # fmt: skip


async def test_the_page_loads_nothing_and_runs_nothing_but_its_own(served: ServedModels, recorded: Recorded) -> None:
    response = await client(served, None, recorded).http.get("/")
    policy = response.headers["content-security-policy"]
    script = re.search("<script>(.*?)</script>", response.text, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"(src|href)=|url\(|@import", response.text)


@pytest.mark.parametrize(
    ("config", "status"),
    [({"host": "0.0.0.0"}, 404), ({"host": "0.0.0.0", "page": True}, 200), ({"page": False}, 404), ({}, 200)],
)
async def test_others_see_the_page_only_where_it_is_asked_for(
    served: ServedModels, access: AccessControl, recorded: Recorded, config: dict[str, object], status: int
) -> None:
    assert (await client(served, access, recorded, **config).http.get("/")).status_code == status


@pytest.mark.parametrize(
    ("task", "shows"), [("text-classification", False), ("tabular-classification", False), ("image-generation", True)]
)
async def test_pictures_are_shown_where_there_are_some_and_come_from_nowhere(
    served: ServedModels, recorded: Recorded, task: str, shows: bool
) -> None:
    response = await client(dataclasses.replace(served, task=task), None, recorded).http.get("/")
    policy = response.headers["content-security-policy"].split("; ")
    assert [one for one in policy if one.startswith("img-src")] == (["img-src data:"] if shows else [])
