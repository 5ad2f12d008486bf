"""Supported requests of the OpenAI API, with the allowed values of each field.

Null means "not given" in every field, as clients send it. An unsupported field that would change the response is
refused by name, never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Ignored = Any
"""Accepted without effect: the client's own annotations, and hints that change no response."""


def _whole(value: Any) -> Any:
    """5.0 as 5, since to JSON they are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _truth(value: Any) -> Any:
    """Refuses 0 for false, to which it is equal."""
    if not isinstance(value, bool):
        raise ValueError("must be false")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
One = Annotated[Whole, Field(ge=1, le=1)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]
Zero = Annotated[float, Field(ge=0, le=0)]
No = Annotated[Literal[False], BeforeValidator(_truth)]


def _refuse(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported_parameter", "not supported by this model's engine; leave it out")


Unsupported = Annotated[None, BeforeValidator(_refuse)]
"""A field of the OpenAI API that would change the response; only null is allowed."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Strict):
    """What a stream has besides the text."""

    include_usage: bool | None = None
    include_obfuscation: No | None = None


class _Generation(_Strict):
    """What both kinds of request have."""

    model: str | None = None
    """The model itself where left out."""
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[Whole, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    n: One | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None

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
    """One turn of a conversation; an answer of the model fits as the client's object dumps it, with its nulls."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    refusal: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: Unsupported = None
    tool_call_id: Unsupported = None

    def plain(self) -> dict[str, str]:
        """The message in the form that chat templates take."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        name = {} if self.name is None else {"name": self.name}
        return {"role": "system" if self.role == "developer" else self.role, "content": text, **name}


class ChatRequest(_Generation):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[Whole, Field(ge=1)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    tool_choice: Literal["none"] | None = None
    audio: Unsupported = None
    function_call: Unsupported = None
    functions: Unsupported = None
    moderation: Unsupported = None
    parallel_tool_calls: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    tools: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None

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


Prompt = Annotated[str, Field(min_length=1)]


class CompletionRequest(_Generation):
    """`POST /v1/completions`."""

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=1)]
    echo: No | None = None
    best_of: One | None = None
    logprobs: Annotated[Whole, Field(ge=0, le=5)] | None = None
    suffix: Literal[""] | None = None

    @property
    def text(self) -> str:
        """The prompt, which may come alone in a list."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def num_logprobs(self) -> int | None:
        """How many likeliest tokens to return log-probabilities for; None for no log-probabilities."""
        return self.logprobs
