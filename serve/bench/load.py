"""Load generation: closed-loop, by users who wait for each response, or open-loop, with random arrivals at a rate.

In open loop, a request is timed from when it was due, so that delays caused by slow earlier responses count.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from heliostat.infra.memory import frozen_heap
from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.target import Sample, Target, find_target, read_answer

Ask = Callable[[int, float], Awaitable[None]]
"""Sends the request with this number, due at this second, and waits for its response."""


async def drive(
    config: BenchConfig, key: str | None, texts: Sequence[str], on_done: Callable[[int], None]
) -> tuple[Target, list[Sample], float]:
    """Sends the requests, cycling through `texts`; returns the target, the samples by due time, and the seconds.

    `on_done` is called with the number of responses so far. Raises what `find_target` raises.
    """
    timeout, connector = aiohttp.ClientTimeout(config.timeout_seconds), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        target = await find_target(config, key, session)
        bodies = [target.body(text, config.max_tokens) for text in texts]
        for at in range(config.warm_up):
            await _ask(session, target, bodies[at % len(bodies)], 0.0, time.perf_counter())
        done: list[Sample] = []
        with frozen_heap():  # what a collection takes would count as the endpoint's latency
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
    """Poisson arrivals: the times between them are exponentially distributed."""
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
