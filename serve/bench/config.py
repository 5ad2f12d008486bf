"""Settings of `heliostat bench`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from heliostat.infra.config.strict import StrictModel

Kind = Literal["chat", "completions", "predict"]
Positive = Annotated[int, Field(gt=0)]


class BenchConfig(StrictModel):
    """How much, how fast, and of what."""

    url: Annotated[str, Field(pattern="^https?://")]
    """The endpoint, without a path."""
    kind: Literal["auto"] | Kind = "auto"
    """`auto` goes by the routes in the endpoint's OpenAPI description."""
    model: str | None = None
    """The first that the endpoint names where left out."""
    concurrency: Positive = 8
    """Users at a time, each of whom asks again once it is answered (closed loop)."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """Requests/s that arrive at random, answered or not (open loop); takes the place of `concurrency`."""
    requests: Positive = 100
    warm_up: Annotated[int, Field(ge=0)] = 1
    """Requests before, which do not count."""
    words: Positive = 64
    """In each text, drawn at random, where no file of texts is given."""
    max_tokens: Positive = 64
    """Of an answer that is generated."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    """For one request."""
    seed: int = 0
    """Of the texts and the arrivals."""
