from __future__ import annotations

import io
import json
import re
import shlex
from typing import Any

import pytest
from rich.console import Console

from heliostat.infra.registry.inputs import CategoryColumn, NumberColumn, TableInputs
from heliostat.infra.registry.published import PublishedModel
from heliostat.pipeline.example_call import example_call
from heliostat.serve.deploy.launch import Endpoint
from heliostat.view.terminal import View
from tests.tiny_programs import KINDS, TABLE, TASKS, description

URL = "http://127.0.0.1:8000/tiny"
ODD = TableInputs(
    columns=(NumberColumn(name="area [m2]", mean=1 / 3, std=1.0), CategoryColumn(name="owner's", values=("[bold]",)))
)


def words_of(model: PublishedModel, needs_key: bool = False) -> list[str]:
    return shlex.split(example_call(URL, "tiny", model, needs_key))


def body_of(words: list[str]) -> Any:
    return json.loads(words[words.index("-d") + 1])


def test_a_row_has_every_column() -> None:
    body = body_of(words_of(description("table", {})))
    assert body == {"row": {"age": 40.5, "weight in kg": 70.0, "size": "1", "colour": "black"}}
    assert TABLE.features(body["row"])


def test_an_image_is_a_file_and_a_picture_is_kept() -> None:
    assert words_of(description("image", {})) == ["curl", f"{URL}/v1/predict", "-F", "image=@image.png"]
    words = words_of(description("noise", {}))
    assert body_of(words) == {"seed": 0, "count": 16}
    assert words[words.index("-o") : words.index("-o") + 2] == ["-o", "images.png"]
    assert "Accept: image/png" in words


@pytest.mark.parametrize("inputs", [None, KINDS["text"]])
def test_a_text_is_the_same_for_every_classifier(inputs: Any) -> None:
    assert body_of(words_of(description("text", {}, inputs=inputs))) == {"text": "A film to remember."}


def test_a_chat_names_its_model() -> None:
    chat = description("text", {}, task="causal-lm", inputs=None)
    words = words_of(chat)
    assert words[1] == f"{URL}/v1/chat/completions"
    assert body_of(words)["model"] == "tiny"
    assert set(TASKS.values()) >= {"text-classification"}


@pytest.mark.parametrize(
    ("keys", "variable"),
    [
        ("a-key-of-the-tests", "HELIOSTAT_API_KEYS"),
        ("a-key-of-the-tests,another-key-of-them", "HELIOSTAT_API_KEY"),
        (f"tests:{'0' * 64}", "HELIOSTAT_API_KEY"),
        ("", "HELIOSTAT_API_KEY"),
    ],
)
def test_the_variable_of_the_endpoints_is_asked_with_where_it_is_a_key(
    monkeypatch: pytest.MonkeyPatch, keys: str, variable: str
) -> None:
    monkeypatch.setenv("HELIOSTAT_API_KEYS", keys)
    assert f"Authorization: Bearer ${variable}" in words_of(description("text", {}), needs_key=True)


def test_a_model_without_conversations_goes_on_with_a_text_of_its_kind() -> None:
    probe = {"input": {"prompt": "It's night.", "max_tokens": 8}, "output": {"text": " Stay."}}
    plain = description("text", probe, task="causal-lm", inputs=None, has_chat_template=False)
    words = words_of(plain)
    assert words[1] == f"{URL}/v1/completions"
    assert body_of(words) == {"model": "tiny", "prompt": "It's night.", "max_tokens": 8}


def test_names_of_columns_survive_the_shell_and_the_terminal() -> None:
    shown = io.StringIO()
    call = example_call(URL, "tiny", description("table", {}, inputs=ODD), needs_key=False)
    View(Console(file=shown, width=40)).serving(Endpoint(URL, "tiny", "1"), call)
    line = next(line for line in shown.getvalue().splitlines() if line.startswith("  curl"))
    assert body_of(shlex.split(line)) == {"row": {"area [m2]": 0.3333, "owner's": "[bold]"}}
    assert re.search("tiny version 1 answers at http", shown.getvalue())
