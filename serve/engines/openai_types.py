"""Supported requests of the OpenAI API, with the allowed values of each field.

An unsupported field that would change the response is refused, never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Ignored = Any
"""Accepted without effect: the client's own annotations."""
StopString = Annotated[str, Field(min_length=1, max_length=256)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StreamOptions(_Strict):
    """What a stream has besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class _Generation(_Strict):
    """What both kinds of request have."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    n: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> _Generation:
        if self.stream_options is not None and not self.stream:
            raise ValueError('stream_options: allowed only with "stream": true')
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def requested_tokens(self) -> tuple[str, int | None]:
        """Name and value of the field that limits the length of the response."""
        return "max_tokens", self.max_tokens


class TextPart(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """The message in the form that chat templates take."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(_Generation):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _told_with_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError('top_logprobs: allowed only with "logprobs": true')
        return self

    @property
    def num_logprobs(self) -> int | None:
        """How many likeliest tokens to return log-probabilities for; None for no log-probabilities."""
        return self.top_logprobs or 0 if self.logprobs else None

    @property
    def requested_tokens(self) -> tuple[str, int | None]:
        """`max_completion_tokens`, the newer name, takes precedence."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().requested_tokens


class CompletionRequest(_Generation):
    """`POST /v1/completions`."""

    prompt: Annotated[str, Field(min_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def num_logprobs(self) -> int | None:
        """How many likeliest tokens to return log-probabilities for; None for no log-probabilities."""
        return self.logprobs
