"""An endpoint at which a model and two adapters answer by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone
from typing import Any

import pytest

from heliostat.serve.access.control import AccessControl
from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.keys import ApiKey, digest_of
from heliostat.serve.access.sync import UsageSync
from heliostat.serve.access.usage import UsageCounter
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.base import Delta, Sampling
from heliostat.serve.engines.openai_api import OpenAIApi
from heliostat.serve.errors import App
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.unit.serve.conftest import KEY, Client, Recorded, error_of, service_of

pytestmark = pytest.mark.anyio
CREATED = datetime(2026, 1, 1, tzinfo=timezone.utc)
LIMITED = "another-key-of-the-tests-012345"


class Mirror:
    """An engine that answers with the name of the model that is asked."""

    context_tokens = 100
    defaults = Sampling(1)

    async def encode_prompt(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        return [1, 2, 3]

    async def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        return [1, 2, 3]

    async def generate(self, prompt: Sequence[int], sampling: Sampling, model: str) -> AsyncIterator[Delta]:
        yield Delta(model, 1, "stop")

    def check_health(self) -> None: ...

    def close(self) -> None: ...


class Keys(KeyRing):
    """A key for everything, and one for some models."""

    def __init__(self, *models: str) -> None:
        super().__init__(())
        self._known = {
            digest_of(KEY): ApiKey(name="all", sha256=digest_of(KEY), created=CREATED),
            digest_of(LIMITED): ApiKey(name="some", sha256=digest_of(LIMITED), created=CREATED, models=models),
        }


@pytest.fixture
def served() -> ServedModels:
    beside = [
        ServedModels(name, version, "causal-lm", f"run-{name}", CREATED, parent="tiny")
        for name, version in (("legal", "3"), ("support", "5"))
    ]
    return ServedModels("tiny", "7", "causal-lm", "run-1", CREATED, adapters=tuple(beside))


def app_of(served: ServedModels, config: ServeConfig, recorded: Recorded, *models: str) -> App:
    api = OpenAIApi(Mirror(), served, config, recorded.metrics)
    counter = UsageCounter()
    access = AccessControl(Keys(*models), counter, UsageSync(counter, "tiny"))
    return create_app(served, service_of(api.router), config, access, recorded.metrics)


@pytest.fixture
def app(served: ServedModels, config: ServeConfig, recorded: Recorded) -> App:
    return app_of(served, config, recorded)


@pytest.mark.parametrize(("model", "version"), [("tiny", "tiny@7"), ("legal", "legal@3"), ("support", "support@5")])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_model_field_picks_who_answers_and_the_answer_says_who_it_was(
    app: App, recorded: Recorded, model: str, version: str, stream: bool
) -> None:
    response = await Client(app).post("/v1/completions", {"model": model, "prompt": "x", "stream": stream})
    assert response.status_code == 200
    assert response.headers["x-model-version"] == version
    assert f'"text":"{model}"' in response.text.replace('": ', '":')
    assert f'"model":"{model}"' in response.text.replace('": ', '":')
    label = "" if model == "tiny" else version
    for name in ("requests_total", "request_seconds", "tokens_total", "time_to_first_token_seconds"):
        assert set(recorded.labels_of(f"heliostat_{name}", "adapter")) == {label}
        assert set(recorded.labels_of(f"heliostat_{name}", "version")) == {"7"}


async def test_all_models_are_listed_and_shown(app: App) -> None:
    client = Client(app)
    cards = (await client.http.get("/v1/models")).json()["data"]
    assert [(card["id"], card["version"], card.get("parent")) for card in cards] == [
        ("tiny", "7", None),
        ("legal", "3", "tiny"),
        ("support", "5", "tiny"),
    ]
    assert (await client.http.get("/v1/models/support")).json() == cards[2]
    assert (await client.http.get("/health")).json()["adapters"] == {"legal": "3", "support": "5"}


async def test_an_unknown_name_is_404_and_tells_the_known_ones(app: App) -> None:
    response = await Client(app).post("/v1/completions", {"model": "tax", "prompt": "x"})
    assert (response.status_code, response.headers["x-model-version"]) == (404, "tiny@7")
    assert error_of(response)["message"] == "model: 'tax' is not served here; 'tiny', 'legal', 'support' are"


@pytest.mark.parametrize(
    ("models", "opened"),
    [
        ((), ["tiny", "legal", "support"]),
        (("tiny",), ["tiny"]),
        (("legal", "elsewhere"), ["legal"]),
        (("tiny", "support"), ["tiny", "support"]),
        (("elsewhere",), []),
    ],
)
async def test_a_key_for_some_models_opens_those_and_no_others(
    served: ServedModels, config: ServeConfig, recorded: Recorded, models: tuple[str, ...], opened: list[str]
) -> None:
    client = Client(app_of(served, config, recorded, *models))
    client.http.headers["authorization"] = f"Bearer {LIMITED}"
    for one in served.all_models:
        response = await client.post("/v1/completions", {"model": one.name, "prompt": "x"})
        assert response.status_code == (200 if one.name in opened else 403)
        if response.status_code == 403:
            assert error_of(response)["code"] == "model_not_allowed"
    listed = await client.http.get("/v1/models")
    assert listed.status_code == (200 if opened else 403)
    if opened:
        assert [card["id"] for card in listed.json()["data"]] == opened
        unknown = await client.post("/v1/completions", {"model": "tax", "prompt": "x"})
        assert unknown.status_code == 404
        assert all((name in unknown.text) == (name in opened) for name in ("tiny", "legal", "support"))
