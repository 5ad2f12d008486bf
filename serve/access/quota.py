"""Usage of keys, and their limits per minute: requests are counted when they come, tokens reserved before they are
written."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Protocol

from heliostat.serve.access.keys import ApiKey
from heliostat.serve.access.usage import REQUESTS, TOKENS, Bucket, UsageCounter
from heliostat.serve.errors import App, Receive, RequestError, Scope, Send, invalid, send_error

_spending: ContextVar[Spending | None] = ContextVar("spending", default=None)
_observing: ContextVar[Callable[..., None] | None] = ContextVar("observing", default=None)


class Observe(Protocol):
    """Told what keys use."""

    def __call__(self, key: str, requests: int = 0, tokens: int = 0) -> None:
        """Takes what the key of this name has used."""


class Spending:
    """The tokens of one request, charged to its key."""

    def __init__(self, counter: UsageCounter, key: ApiKey) -> None:
        self._counter = counter
        self._key = key
        self._reserved: Bucket | None = None
        self._left = 0

    def reserve(self, tokens: int, field: str) -> None:
        """Charges tokens ahead; what is not used of them is given back by `settle`.

        Raises RequestError 429 if they are more than the key has left now, 422 for `field` if they always are.
        """
        use, limit = (self._key.name, TOKENS), self._key.tokens_per_minute
        if limit is not None and tokens > limit:
            reason = f"up to {tokens} tokens asked for; key {self._key.name!r} may use {limit} a minute"
            raise invalid(field, f"{field}: {reason}; ask for fewer")
        check(self._counter, self._key, TOKENS, tokens)
        self._reserved, self._left = self._counter.add(use, tokens), tokens

    def count(self, tokens: int) -> None:
        """Charges tokens, first those that are reserved."""
        reserved = min(tokens, self._left)
        self._left -= reserved
        if tokens > reserved:
            self._counter.add((self._key.name, TOKENS), tokens - reserved)

    def settle(self) -> None:
        """Gives back what is left of the reservation, at the end of the request."""
        if self._reserved:
            self._counter.give_back(self._reserved, self._left)
            self._left = 0


def count_tokens(tokens: int) -> None:
    """Counts tokens of the key of the current request, and charges them to it if it is limited."""
    if observe := _observing.get():
        observe(tokens=tokens)
    if spending := _spending.get():
        spending.count(tokens)


def reserve_tokens(tokens: int, field: str) -> None:
    """Reserves tokens of the key of the current request, if it is limited; see `Spending.reserve`."""
    if spending := _spending.get():
        spending.reserve(tokens, field)


def check(counter: UsageCounter, key: ApiKey, kind: str, count: int) -> None:
    """Raises RequestError 429, with the seconds until they fit, if `count` more are too many in a minute for a key."""
    limit = {REQUESTS: key.requests_per_minute, TOKENS: key.tokens_per_minute}[kind]
    if limit is None or counter.used((key.name, kind)) + count <= limit:
        return
    seconds = max(1, math.ceil(counter.seconds_until((key.name, kind), limit - count)))
    more = f", and {count} more asked for" if count > 1 else " and used up"
    raise RequestError(
        429,
        f"key {key.name!r}: {limit} {kind} in 60 s are allowed{more}; try again in {seconds} s",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(seconds)},
    )


class KeyLimitMiddleware:
    """Answers 429, with the seconds until there is room, when a key has used up its limit of the last minute.

    `observe` is told what each key uses, limited or not.
    """

    def __init__(self, app: App, counter: UsageCounter, on_limited: Callable[[], None], observe: Observe) -> None:
        self.app = app
        self.counter = counter
        self.on_limited = on_limited
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; only POST counts."""
        key: ApiKey | None = scope.get("heliostat.key")
        if key is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        self.observe(key.name, requests=1)
        token = _observing.set(partial(self.observe, key.name))
        try:
            await (self._limit(key, scope, receive, send) if key.is_limited else self.app(scope, receive, send))
        finally:
            _observing.reset(token)

    async def _limit(self, key: ApiKey, scope: Scope, receive: Receive, send: Send) -> None:
        self.on_limited()
        try:
            for kind in (REQUESTS, TOKENS):
                check(self.counter, key, kind, 1)
        except RequestError as error:
            await send_error(scope, send, error)
            return
        self.counter.add((key.name, REQUESTS))
        spending = Spending(self.counter, key)
        token = _spending.set(spending)
        try:
            await self.app(scope, receive, send)
        finally:
            _spending.reset(token)
            spending.settle()
