"""An example call of an endpoint, to be copied to a terminal."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from heliostat.infra.registry.inputs import ImageInputs, NoiseInputs, TableInputs
from heliostat.serve.access.auth import ENVIRONMENT

if TYPE_CHECKING:
    from heliostat.infra.registry.published import PublishedModel


def example_call(url: str, name: str, model: PublishedModel, needs_key: bool) -> str:
    """A `curl` command for the endpoint at `url` that fits the model's task."""
    key = f' -H "Authorization: Bearer ${_key_variable()}"' if needs_key else ""
    return f"curl {url}/{_path(model)}{key} {_sent(name, model)}"


def _key_variable() -> str:
    """The variable that holds an API key: the endpoint's, if that holds a single plain key, or else the client's."""
    keys = os.environ.get(ENVIRONMENT, "")
    return ENVIRONMENT if keys and not set(keys) & set(",:") else "HELIOSTAT_API_KEY"


def _path(model: PublishedModel) -> str:
    if model.task != "causal-lm":
        return "v1/predict"
    return "v1/chat/completions" if model.has_chat_template else "v1/completions"


def _sent(name: str, model: PublishedModel) -> str:
    if isinstance(model.inputs, ImageInputs):
        return "-F image=@image.png"
    if isinstance(model.inputs, NoiseInputs):
        return f"-H 'Accept: image/png' -o images.png {_json({'seed': 0, 'count': 16})}"
    if isinstance(model.inputs, TableInputs):
        from heliostat.serve.predictors.tables import example_row

        return _json({"row": example_row(model.inputs)})
    if model.task == "causal-lm":
        chat = {"messages": [{"role": "user", "content": "Hello"}]}
        return _json({"model": name, **(chat if model.has_chat_template else model.probe["input"])})
    return _json({"text": "A film to remember."})


def _json(body: dict[str, Any]) -> str:
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return f"-H 'Content-Type: application/json' -d '{quoted}'"
