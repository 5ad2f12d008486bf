"""Exported programs behind their route: loaded, checked, asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from heliostat.infra.drift import verdict
from heliostat.infra.drift.reference import LABEL, SCORE, Reference, number_bins
from heliostat.infra.errors import ModelError
from heliostat.infra.registry import programs
from heliostat.serve.config import ServeConfig
from heliostat.serve.drift import loading, watch
from heliostat.serve.http.app import Service, create_app
from heliostat.serve.models.bundles import FetchedModel
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.programs import program_service
from tests.tiny_programs import LABELS, ROW, TABLE, WRITERS, OfTable, description, in_base64
from tests.unit.serve.conftest import Client, Recorded, error_of
from tests.waiting import until

pytestmark = pytest.mark.anyio
Load = Callable[..., Service]
ASKED: dict[str, list[dict[str, Any]]] = {
    "table": [{"row": {**ROW, "age": age}} for age in (20, 40, 60)],
    "image": [{"image": in_base64(torch.full((4, 3, 3), tone, dtype=torch.uint8))} for tone in (0, 100, 255)],
    "text": [{"text": text} for text in ("a joy", "dull film", "film")],
}


@pytest.fixture
def load(tmp_path: Path, served: ServedModels, config: ServeConfig, recorded: Recorded) -> Iterator[Load]:
    """Loads the program of a kind, with its probe or another description."""
    services = []

    def loaded(
        kind: str, write: Callable[[Path], Any] | None = None, reference: Reference | None = None, **more: Any
    ) -> Service:
        probe = WRITERS[kind](tmp_path)
        if write:
            write(tmp_path)
        found = FetchedModel(tmp_path, description(kind, probe, **more), reference=reference)
        services.append(program_service(found, config, served, recorded.metrics))
        return services[-1]

    yield loaded
    for service in services:
        service.check_health()
        service.close()


def client(service: Service, served: ServedModels, config: ServeConfig, recorded: Recorded) -> Client:
    return Client(create_app(served, service, config, None, recorded.metrics))


@pytest.mark.parametrize("kind", list(WRITERS))
async def test_the_probe_of_training_is_answered_as_then(load: Load, kind: str, tmp_path: Path) -> None:
    service = load(kind)
    probe = description(kind, WRITERS[kind](tmp_path)).probe
    await service.check_probe(probe, "tiny")


@pytest.mark.parametrize("kind", list(ASKED))
async def test_answers_in_a_batch_are_those_of_each_input_alone(
    load: Load, kind: str, served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    asked = client(load(kind), served, config, recorded)
    alone = [(await asked.post("/v1/predict", one)).json() for one in ASKED[kind]]
    field = next(iter(ASKED[kind][0]))
    body = (await asked.post("/v1/predict", {f"{field}s": [one[field] for one in ASKED[kind]]})).json()
    for one, found in zip(alone, body["predictions"], strict=True):
        assert found["scores"] == pytest.approx(one["predictions"][0]["scores"], abs=1e-5)
        assert sum(found["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert set(found["scores"]) == set(LABELS)
    assert len({one["predictions"][0]["score"] for one in alone}) > 1
    assert (body["model"], body["version"]) == ("tiny", "7")
    assert body["usage"] == ({"prompt_tokens": 5, "total_tokens": 5} if kind == "text" else {"inputs": 3})
    assert recorded.of("heliostat_batch_size") == [1, 1, 1, 3]


async def test_requests_at_once_share_passes(
    load: Load, served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    asked = client(load("table"), served, config, recorded)
    rows = [{"row": {**ROW, "age": age}} for age in range(12)]
    responses = await asyncio.gather(*(asked.post("/v1/predict", row) for row in rows))
    assert {response.status_code for response in responses} == {200}
    assert sum(recorded.of("heliostat_batch_size")) == 12
    assert max(recorded.of("heliostat_batch_size")) <= config.max_batch_size


async def test_a_probe_with_another_answer_is_refused(load: Load, tmp_path: Path) -> None:
    service = load("table")
    probe = WRITERS["table"](tmp_path)
    scores = probe["output"]["scores"]
    shifted = {name: score + 0.02 * (1 if score > 0.5 else -1) for name, score in scores.items()}
    with pytest.raises(ModelError, match=r"probabilities differ by 0\.020, 0\.01 is allowed"):
        await service.check_probe({**probe, "output": {**probe["output"], "scores": shifted}}, "tiny")
    with pytest.raises(ModelError, match=r"does not take its probe \(row.age: missing"):
        await service.check_probe({**probe, "input": {"row": {"size": "large"}}}, "tiny")


def test_labels_that_do_not_fit_the_outputs_are_refused(load: Load) -> None:
    with pytest.raises(ModelError, match=r"^tiny: heliostat.json names 3 labels, the model has outputs \[2\]$"):
        load("table", labels=("a", "b", "c"))


def test_a_program_that_takes_something_else_is_refused(load: Load) -> None:
    other = TABLE.model_copy(update={"columns": TABLE.columns[:1]})
    with pytest.raises(ModelError, match=r"^tiny: the program does not take what heliostat.json says") as caught:
        load("table", inputs=other)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_program_or_its_tokenizer_is_refused(load: Load) -> None:
    with pytest.raises(ModelError, match=r"program.pt2: no exported program"):
        load("table", lambda folder: (folder / "program.pt2").write_bytes(b"x"))
    with pytest.raises(ModelError, match=r"tokenizer.json: cannot be read"):
        load("text", lambda folder: (folder / "tokenizer.json").unlink())


async def test_an_answer_that_is_not_finite_is_the_requests_fault_alone(
    load: Load, served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    def write(folder: Path) -> None:
        model = OfTable()
        nn.init.constant_(model.linear.weight, 10.0)
        programs.save(model, {"features": torch.zeros(2, TABLE.width)}, folder)

    asked = client(load("table", write), served, config, recorded)
    far = {**ROW, "age": 3e39}
    both = await asyncio.gather(asked.post("/v1/predict", {"row": far}), asked.post("/v1/predict", {"row": ROW}))
    assert [response.status_code for response in both] == [422, 200]
    assert error_of(both[0])["message"] == "row: the model has no finite answer to it"
    response = await asked.post("/v1/predict", {"rows": [ROW, far]})
    assert (response.status_code, error_of(response)["param"]) == (422, "rows.1")


async def test_a_text_is_cut_when_it_may_be_and_unknown_words_count_as_in_training(
    load: Load, served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    asked = client(load("text"), served, config, recorded)
    response = await asked.post("/v1/predict", {"texts": ["joy", "joy " * 7]})
    assert (response.status_code, error_of(response)["param"]) == (422, "texts.1")
    assert error_of(response)["message"].startswith("texts.1: 7 tokens given; 6 are allowed")
    body = (await asked.post("/v1/predict", {"texts": ["joy " * 7, "joy " * 6, "yyy", "zzz"], "truncate": True})).json()
    long, full, one, other = body["predictions"]
    assert [found["truncated"] for found in body["predictions"]] == [True, False, False, False]
    assert long["scores"] == full["scores"]
    assert one["scores"] == other["scores"]
    assert body["usage"]["prompt_tokens"] == 14
    assert recorded.of("heliostat_tokens_total") == [2, 14], "unknown ones, and all"


COUNTED = {
    "table": ["age", "weight in kg"],
    "image": ["brightness", "contrast"],
    "text": ["length", "unknown_share", "common_share"],
}


@pytest.mark.parametrize("kind", COUNTED)
async def test_what_is_asked_and_answered_is_compared_with_the_training_split(
    load: Load,
    kind: str,
    served: ServedModels,
    config: ServeConfig,
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three inputs, which are enough here; the answers are counted too."""
    monkeypatch.setattr(verdict, "LEAST_ROWS", 3)
    monkeypatch.setattr(watch, "COUNT_SECONDS", 0.01)
    monkeypatch.setattr(watch, "JUDGE_SECONDS", 0.01)
    monkeypatch.setattr(loading, "LedgerClient", lambda kind, endpoint: lambda *report: None)
    names = [*COUNTED[kind], LABEL, SCORE]
    bins = tuple(number_bins(name, np.linspace(0, 1, 100)) for name in names)
    asked = client(load(kind, reference=Reference(columns=bins)), served, config, recorded)
    assert recorded.labels_of("heliostat_drift_psi", "column")[: len(names)] == names
    assert recorded.of("heliostat_drift_columns")[2] == len(names)
    for body in ASKED[kind]:
        assert (await asked.post("/v1/predict", body)).status_code == 200
    await asyncio.to_thread(
        until, lambda: recorded.of("heliostat_drift_columns")[-2] == 0, "each column has its rows", 30
    )


async def test_a_model_that_was_published_without_reference_is_not_compared(
    load: Load, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    load("table")
    assert not recorded.of("heliostat_drift_columns")
    assert caplog.text.count("drift is not watched") == 1
