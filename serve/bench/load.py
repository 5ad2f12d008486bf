"""Load on an endpoint: closed-loop, by users who ask again once they are answered, or open-loop, at a rate of arrivals.

Under open load a request counts from when it should have been sent, so that an answer that makes the next request late
is not forgotten.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.target import Sample, Target, find_target, read_answer

Ask = Callable[[int, float], Awaitable[None]]
"""Sends the request of that number, due at that second, and waits for its answer."""


async def drive(
    config: BenchConfig, key: str | None, texts: Sequence[str], on_done: Callable[[int], None]
) -> tuple[Target, list[Sample], float]:
    """Asks with `texts` in turns: what was asked, the requests in the order in which they were due, seconds in all.

    `on_done` hears how many are answered. Raises as `find_target` does.
    """
    timeout, connector = aiohttp.ClientTimeout(config.timeout_seconds), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        target = await find_target(config, key, session)
        bodies = [target.body(text, config.max_tokens) for text in texts]
        for at in range(config.warm_up):
            await _ask(session, target, bodies[at % len(bodies)], 0.0, time.perf_counter())
        done: list[Sample] = []
        started = time.perf_counter()

        async def ask(at: int, due: float) -> None:
            done.append(await _ask(session, target, bodies[at % len(bodies)], due, started))
            on_done(len(done))

        await (_closed(ask, config, started) if config.rate is None else _open(ask, config, config.rate, started))
        return target, sorted(done, key=lambda sample: sample.due), time.perf_counter() - started


async def _closed(ask: Ask, config: BenchConfig, started: float) -> None:
    left = iter(range(config.requests))

    async def user() -> None:
        for at in left:
            await ask(at, time.perf_counter() - started)

    await asyncio.gather(*(user() for _ in range(min(config.concurrency, config.requests))))


async def _open(ask: Ask, config: BenchConfig, rate: float, started: float) -> None:
    """Arrivals of a Poisson process: the times between them are exponential."""
    draw, due, asked = random.Random(config.seed), 0.0, []
    for at in range(config.requests):
        await asyncio.sleep(started + due - time.perf_counter())
        asked.append(asyncio.ensure_future(ask(at, due)))
        due += draw.expovariate(rate)
    await asyncio.gather(*asked)


async def _ask(
    session: aiohttp.ClientSession, target: Target, body: dict[str, object], due: float, started: float
) -> Sample:
    sample = Sample(due)
    try:
        async with session.post(target.url, json=body, headers=target.headers) as response:
            await read_answer(response, sample, lambda: time.perf_counter() - started)
    except asyncio.TimeoutError:
        sample.error = "timed out"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        sample.error = type(error).__name__
    sample.ended = time.perf_counter() - started
    return sample
