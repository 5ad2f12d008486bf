"""The OpenAI API: `/v1/chat/completions` and `/v1/completions`, streamed or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from heliostat.infra import log
from heliostat.serve.access.quota import count_tokens, reserve_tokens
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.base import Delta, Engine, Sampling, TokenScore
from heliostat.serve.engines.openai_types import ChatRequest, CompletionRequest
from heliostat.serve.errors import RequestError, invalid, openai_error, sse_event
from heliostat.serve.http.limits import parse_body, read_body, timed_out, with_timeout
from heliostat.serve.http.openapi import body_of
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels

_log = log.get(__name__)
Asked = ChatRequest | CompletionRequest
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Tells proxies on the way not to buffer the stream."""
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


class OpenAIApi:
    """The routes of an engine."""

    def __init__(self, engine: Engine, served: ServedModels, config: ServeConfig, metrics: ServeMetrics) -> None:
        self.engine = engine
        self.served = served
        self.config = config
        self.metrics = metrics
        self.router = APIRouter()
        for path, schema, route, is_there in (
            ("/v1/chat/completions", ChatRequest, self.chat, served.chats),
            ("/v1/completions", CompletionRequest, self.complete, True),
        ):
            describe = self.router.post(
                path, openapi_extra=body_of(schema), responses=STREAMED, include_in_schema=is_there
            )
            describe(route)

    async def chat(self, request: Request) -> Response:
        """The next message of a conversation."""
        return await self.respond(request, ChatRequest)

    async def complete(self, request: Request) -> Response:
        """What follows a text."""
        return await self.respond(request, CompletionRequest)

    async def respond(self, request: Request, schema: type[Asked]) -> Response:
        """Answers either kind of request, with the statuses that clients of the OpenAI API know."""
        try:
            return await self.answer(request, schema)
        except RequestError as error:
            raise openai_error(error) from None

    async def answer(self, request: Request, schema: type[Asked]) -> Response:
        """Answers either kind of request, in one response or as a stream."""
        started = time.perf_counter()
        asked = parse_body(schema, await read_body(request, self.config.max_body_bytes))
        model = self.served.pick(asked.model, request.scope)
        prompt = await with_timeout(self.encode(asked), self.config.timeout_seconds)
        sampling = self.sampling(asked, len(prompt))
        reserve_tokens(len(prompt) + sampling.max_tokens, asked.requested_tokens[0])
        self.metrics.tokens("prompt", len(prompt), model.label)
        count_tokens(len(prompt))
        reply = Reply(asked, model, len(prompt))
        deltas = self.within_time(self.engine.generate(prompt, sampling, model.name), started, model.label)
        if asked.stream:
            # Await the first chunk here, so that an error before it still gets its own status code.
            first = await anext(deltas)
            return StreamingResponse(reply.stream(first, deltas), media_type="text/event-stream", headers=UNBUFFERED)
        return JSONResponse(reply.whole([delta async for delta in deltas]))

    async def encode(self, asked: Asked) -> list[int]:
        """The prompt as token ids."""
        if isinstance(asked, CompletionRequest):
            return await self.engine.encode_prompt(asked.text)
        messages = [message.plain() for message in asked.messages]
        prompt = await self.engine.encode_chat(messages)
        await self.check_names(messages, prompt)
        return prompt

    async def check_names(self, messages: Sequence[dict[str, str]], prompt: list[int]) -> None:
        """Raises RequestError if names do not come through the chat template into the prompt, role by role."""
        first: dict[str, int] = {}
        for at, message in enumerate(messages):
            if "name" in message:
                first.setdefault(message["role"], at)
        for role, at in first.items():
            if await self._encodes_as([_unnamed(one, role) for one in messages], prompt):
                field = f"messages.{at}.name"
                reason = f"{field}: the model's chat template has no names for the role {role!r}; leave it out"
                raise invalid(field, reason, code="unsupported_parameter")

    async def _encodes_as(self, messages: Sequence[dict[str, str]], prompt: list[int]) -> bool:
        try:
            return await self.engine.encode_chat(messages) == prompt
        except RequestError:  # the template asks for names
            return False

    def sampling(self, asked: Asked, prompt_tokens: int) -> Sampling:
        """The sampling parameters; raises RequestError if prompt and response would be too long."""
        field, wanted = asked.requested_tokens
        context, most = self.engine.context_tokens, self.config.max_tokens
        source = "messages" if isinstance(asked, ChatRequest) else "prompt"
        if wanted is not None and wanted > most:
            raise invalid(field, f"{field}: {wanted} given; {most} are allowed (serve.max_tokens)")
        if prompt_tokens + (wanted or 1) > context:
            raise invalid(
                source,
                f"{source}: this model's maximum context length is {context} tokens; {prompt_tokens} tokens were "
                f"given, and {wanted or 1} asked for in answer",
                code="context_length_exceeded",
            )
        defaults = self.engine.defaults
        return replace(
            defaults,
            max_tokens=wanted or min(most, context - prompt_tokens),
            temperature=defaults.temperature if asked.temperature is None else asked.temperature,
            top_p=defaults.top_p if asked.top_p is None else asked.top_p,
            seed=asked.seed,
            stop=asked.stops,
            top_logprobs=asked.num_logprobs,
        )

    async def within_time(self, deltas: AsyncIterator[Delta], started: float, adapter: str) -> AsyncIterator[Delta]:
        """Streams the chunks and records metrics for the adapter; raises RequestError 504 if the last one is late."""
        limit, tokens, last = self.config.timeout_seconds, 0, 0.0
        try:
            while True:
                left = started + limit - time.perf_counter()
                delta = await asyncio.wait_for(anext(deltas), max(left, 0.001))
                now, new = time.perf_counter(), delta.completion_tokens - tokens
                if not last:
                    self.metrics.first_token(now - started, adapter)
                elif new:
                    self.metrics.inter_token(now - last, adapter, new)
                last, tokens = now, delta.completion_tokens
                yield delta
                if delta.finish_reason:
                    return
        except asyncio.TimeoutError:
            raise timed_out(limit) from None
        finally:
            self.metrics.tokens("completion", tokens, adapter)
            count_tokens(tokens)
            await deltas.aclose()  # type: ignore[attr-defined]


class Reply:
    """Builds the response bodies of one request."""

    def __init__(self, asked: Asked, served: ServedModels, prompt_tokens: int) -> None:
        self.chat = isinstance(asked, ChatRequest)
        self.with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        self.prompt_tokens = prompt_tokens
        self.told = asked.num_logprobs is not None
        self.offset = 0
        self.head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": f"{served.name}@{served.version}",
        }

    def whole(self, deltas: list[Delta]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        text, reason = "".join(delta.text for delta in deltas), deltas[-1].finish_reason
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": self.logprobs(deltas), "finish_reason": reason}
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self.head, "object": kind, "choices": [choice], "usage": self.usage(deltas[-1])}

    async def stream(self, first: Delta, rest: AsyncIterator[Delta]) -> AsyncIterator[bytes]:
        """The response as server-sent events. An error half-way is sent as an event, as the status is out already."""
        try:
            if self.chat:
                yield self.event({"role": "assistant", "content": ""}, None)
            delta = first
            yield self.piece(delta)
            async with aclosing(rest):  # type: ignore[type-var]
                async for delta in rest:
                    yield self.piece(delta)
            if self.with_usage:
                yield sse_event({**self.head, "object": self.kind, "choices": [], "usage": self.usage(delta)})
            yield b"data: [DONE]\n\n"
        except RequestError as error:
            yield sse_event(error.body)
        except Exception:
            _log.exception("an answer failed while it was streamed")
            yield sse_event(RequestError(500, "the answer failed half-way", code="internal_error").body)

    @property
    def kind(self) -> str:
        """The `object` field of a streamed chunk."""
        return "chat.completion.chunk" if self.chat else "text_completion"

    def piece(self, delta: Delta) -> bytes:
        """One chunk of the response as an event."""
        content = {"content": delta.text} if delta.text else {}
        return self.event(content, delta.finish_reason, self.logprobs([delta]))

    def event(self, content: dict[str, str], reason: str | None, logprobs: dict[str, Any] | None = None) -> bytes:
        """One event with one choice."""
        body = {"delta": content} if self.chat else {"text": content.get("content", "")}
        choice = {"index": 0, **body, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self.with_usage else {}
        return sse_event({**self.head, "object": self.kind, "choices": [choice], **usage})

    def logprobs(self, deltas: list[Delta]) -> dict[str, Any] | None:
        """The log-probabilities in the format of the request's kind; None if not requested."""
        if not self.told:
            return None
        scores = [score for delta in deltas for score in delta.scores]
        if self.chat:
            return {"content": [_scored(score) for score in scores], "refusal": None}
        offsets = []
        for score in scores:
            offsets.append(self.offset)
            self.offset += len(score.text)
        return {
            "tokens": [score.text for score in scores],
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": [dict(score.likeliest) for score in scores],
            "text_offset": offsets,
        }

    def usage(self, last: Delta) -> dict[str, int]:
        """The `usage` object: token counts."""
        done = last.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": done,
            "total_tokens": self.prompt_tokens + done,
        }


def _unnamed(message: dict[str, str], role: str) -> dict[str, str]:
    return {key: value for key, value in message.items() if key != "name"} if message["role"] == role else message


def _scored(score: TokenScore) -> dict[str, Any]:
    likeliest = [{**_token(text), "logprob": logprob} for text, logprob in score.likeliest]
    return {**_token(score.text), "logprob": score.logprob, "top_logprobs": likeliest}


def _token(text: str) -> dict[str, Any]:
    """Text and bytes of a token; null bytes for an incomplete character, whose bytes are not known."""
    return {"token": text, "bytes": None if "\ufffd" in text else list(text.encode())}
