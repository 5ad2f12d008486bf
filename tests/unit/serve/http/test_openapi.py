"""What each endpoint says of itself in /openapi.json holds: schemathesis asks by it, and beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import schemathesis
from fastapi import APIRouter
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.result import Ok

from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.openai_api import OpenAIApi
from heliostat.serve.experiment.feedback import feedback_route
from heliostat.serve.experiment.middleware import ExperimentMiddleware
from heliostat.serve.http.app import create_app
from heliostat.serve.models.bundles import FetchedModel
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.programs import program_service
from tests.tiny_programs import WRITERS, description
from tests.unit.serve.conftest import KEY, Recorded, service_of
from tests.unit.serve.engines.test_openai_api import Parrot
from tests.unit.serve.predictors.test_classification_api import WordCounter, text_api

EXAMPLES = 60
HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def api(
    served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded
) -> schemathesis.BaseSchema:
    """Every route of ours in one application, by its own description."""
    config = config.model_copy(update={"max_body_bytes": 1_000_000})
    router = APIRouter()
    router.include_router(OpenAIApi(Parrot(), served, config, recorded.metrics).router)
    router.include_router(text_api(WordCounter(), served, config, recorded.metrics).router)
    router.include_router(feedback_route(ExperimentMiddleware("tiny", config, recorded.metrics)))
    app = create_app(served, service_of(router), config, access, recorded.metrics)
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_each_route_does_what_it_says(api: schemathesis.BaseSchema, mode: schemathesis.GenerationMode) -> None:
    operations = [found.ok() for found in api.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == 7
    check_operations(operations, mode)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("kind", list(WRITERS))
def test_so_does_the_route_of_a_program(
    tmp_path: Path,
    served: ServedModels,
    config: ServeConfig,
    recorded: Recorded,
    kind: str,
    mode: schemathesis.GenerationMode,
) -> None:
    wide = config.model_copy(update={"max_body_bytes": 1_000_000})
    found = FetchedModel(tmp_path, description(kind, WRITERS[kind](tmp_path)))
    service = program_service(found, wide, served, recorded.metrics)
    app = create_app(served, service, wide, None, recorded.metrics)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    paths = {"/v1/predict", "/v1/explain"}
    check_operations([one for one in operations if one.path in paths], mode)
    service.check_health()
    service.close()


def check_operations(operations: Sequence[schemathesis.APIOperation], mode: schemathesis.GenerationMode) -> None:
    """Asks each by its description, or beside it."""
    for operation in operations:
        if mode.is_negative and not operation.body:
            continue  # nothing in the request could be wrong

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            # What fits the schema may still be too long for the model, or no image.
            case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])

        check()
