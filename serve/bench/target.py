"""The endpoint under load: its route (OpenAI API, streamed, or `/v1/predict`), and how its responses are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.serve.bench.config import BenchConfig, Kind

PATHS: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/predict": "predict",
}
"""In the order of preference of `auto`."""
BODIES = {"row", "rows", "image", "images", "seed"}
"""Non-text fields of requests to `/v1/predict`: a line of JSON with one of them is sent as it is."""


@dataclass
class Sample:
    """One request; times are seconds since the load began."""

    due: float
    """When it should have been sent."""
    error: str = ""
    """Short description of the error; empty if there was none."""
    ended: float = 0.0
    pieces: list[float] = field(default_factory=list)
    """Arrival time of each chunk of text in a stream."""
    tokens: int = 0
    """Number of generated tokens."""


@dataclass(frozen=True)
class Target:
    """A route, and the model behind it."""

    url: str
    kind: Kind
    model: str | None
    headers: Mapping[str, str]

    def body(self, text: str, max_tokens: int) -> dict[str, Any]:
        """The JSON body of a request: greedy, streamed generation, or a prediction."""
        model = {"model": self.model} if self.model else {}
        if self.kind == "predict":
            return {**(row_or_image(text) or {"text": text, "truncate": True}), **model}
        asked = {"prompt": text} if self.kind == "completions" else {"messages": [{"role": "user", "content": text}]}
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        return {**asked, "max_tokens": max_tokens, "temperature": 0, **stream, **model}


def row_or_image(line: str) -> dict[str, Any] | None:
    """The request body in a line of JSON such as `{"row": {...}}`; None if `line` is a text."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() & BODIES else None


async def find_target(config: BenchConfig, key: str | None, session: aiohttp.ClientSession) -> Target:
    """Finds the route and the model at `config.url`.

    Raises ResourceError if nothing answers there or the key is refused, ConfigError if no known route is found.
    """
    root, headers = config.url.rstrip("/"), {"Authorization": f"Bearer {key}"} if key else {}
    kind = config.kind if config.kind != "auto" else await _kind(root, headers, session)
    path = next(path for path, known in PATHS.items() if known == kind)
    models = await _json(f"{root}/v1/models", headers, session)
    names = [one["id"] for one in (models or {}).get("data", ())]
    if config.model and names and config.model not in names:
        raise ConfigError(f"bench: model {config.model!r} given; {root} has {', '.join(names)}")
    return Target(root + path, kind, config.model or next(iter(names), None), headers)


async def _kind(root: str, headers: Mapping[str, str], session: aiohttp.ClientSession) -> Kind:
    description = await _json(f"{root}/openapi.json", headers, session)
    found = next((kind for path, kind in PATHS.items() if path in (description or {}).get("paths", ())), None)
    if found is None:
        raise ConfigError(
            f"bench: {root}/openapi.json names none of {', '.join(PATHS)}; say which with --kind "
            f"{', '.join(PATHS.values())}"
        )
    return found


async def _json(url: str, headers: Mapping[str, str], session: aiohttp.ClientSession) -> Any:
    """The JSON at `url`; None if there is no such route."""
    try:
        async with session.get(url, headers=headers) as response:
            if response.status in (401, 403):
                raise ResourceError(f"{url}: the key is refused ({response.status}); HELIOSTAT_API_KEY holds it")
            return await response.json(content_type=None) if response.status == 200 else None
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
        raise ResourceError(f"{url}: no answer ({type(error).__name__})") from error


async def read_answer(response: aiohttp.ClientResponse, sample: Sample, now: Callable[[], float]) -> None:
    """Reads a response to its end; `now` gives the arrival time of a chunk."""
    if response.status != 200:
        sample.error = f"HTTP {response.status}"
        await response.read()
    elif response.content_type == "text/event-stream":
        await _read_stream(response, sample, now)
    else:
        await response.read()


async def _read_stream(response: aiohttp.ClientResponse, sample: Sample, now: Callable[[], float]) -> None:
    sample.error = "stream cut off"
    async for event in _events(response):
        if event == "[DONE]":
            sample.error = ""
            return
        body = json.loads(event)
        if "error" in body:
            sample.error = "error event"
            return
        for choice in body.get("choices", ()):
            if choice.get("text") or choice.get("delta", {}).get("content"):
                sample.pieces.append(now())
            if choice.get("finish_reason"):
                sample.error = ""  # not all servers send [DONE] after it
        if usage := body.get("usage"):
            sample.tokens = usage["completion_tokens"]


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The data of each server-sent event."""
    async for line in response.content:
        if line.startswith(b"data:"):
            yield line[5:].strip().decode()
