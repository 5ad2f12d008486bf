from __future__ import annotations

import asyncio
import time

import pytest

from heliostat.serve.engines.vllm_health import Watchdog

pytestmark = pytest.mark.anyio


class Engine:
    """Answers a trial, or is stuck."""

    def __init__(self) -> None:
        self.stuck = False
        self.trials = 0
        self.watchdog = Watchdog(self.trial, 0.02)

    async def trial(self) -> None:
        self.trials += 1
        if self.stuck:
            await asyncio.sleep(60)
        self.watchdog.answered()

    async def request(self) -> None:
        """A request that is not answered in time, and the trial after it."""
        self.watchdog.timed_out(time.monotonic())
        if self.watchdog._task:
            await self.watchdog._task


async def test_an_engine_that_answers_nobody_is_stuck_until_it_does() -> None:
    engine = Engine()
    engine.stuck = True
    await engine.request()
    with pytest.raises(RuntimeError, match=r"answered nobody for 0.02 s \(serve.timeout_seconds\)"):
        engine.watchdog.check()
    engine.watchdog.answered()
    engine.watchdog.check()


async def test_a_request_that_takes_too_long_by_itself_leaves_the_engine_healthy() -> None:
    engine = Engine()
    await engine.request()
    engine.watchdog.check()
    assert engine.trials == 1


async def test_an_engine_that_answered_others_meanwhile_is_not_suspected() -> None:
    engine = Engine()
    engine.stuck, began = True, time.monotonic() - 10
    engine.watchdog.timed_out(began)
    assert engine.watchdog._task is None
    engine.watchdog.check()


async def test_others_that_are_answered_during_a_trial_that_waits_count() -> None:
    engine = Engine()
    engine.stuck = True
    asked = asyncio.ensure_future(engine.request())
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    engine.watchdog.answered()
    await asked
    engine.watchdog.check()
    assert engine.trials == 1
