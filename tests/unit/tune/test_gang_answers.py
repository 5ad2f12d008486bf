"""What a gang makes of the answers of its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from heliostat.infra.errors import ModelError, StoppedError
from heliostat.train.micro_batch import PassTooLargeError
from heliostat.tune import gang as gangs
from heliostat.tune.gang import Crew, Gang, GangLostError, MemoryOutError, TrialError, TrialStoppedError
from heliostat.tune.member import Pulse


class Method:
    """A method of an actor."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self.remote = call


class Worker:
    """An actor whose `advance` ends as `end` says, and whose pulse is one ahead each time while it works."""

    def __init__(self, end: Any, works: bool = True) -> None:
        self._end, self._works, self._passes = end, works, 0
        self.advance, self.pulse = Method(self._advance), Method(self._pulse)

    async def _advance(self) -> Any:
        if self._end is None:
            await asyncio.sleep(3600)
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end

    async def _pulse(self) -> Pulse:
        self._passes += self._works
        return Pulse(self._passes, 0.0)


def failed(cause: Exception) -> RayTaskError:
    """What Ray raises for an error in an actor."""
    error = RayTaskError("advance", f"Traceback\n{type(cause).__name__}: {cause}", cause)
    return error.as_instanceof_cause()


def advance(*workers: Worker) -> Any:
    gang = Gang(Crew(len(workers), 1, 0.0))
    gang._members = list(workers)
    return asyncio.run(gang.advance())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("STILL_SECONDS", 0.3), ("WATCH_SECONDS", 0.05), ("TOGETHER_SECONDS", 0.2)):
        monkeypatch.setattr(gangs, name, seconds)


def test_the_first_worker_answers_for_all() -> None:
    assert advance(Worker({"step": 2}), Worker({"step": 3})) == {"step": 2}


def test_an_error_of_all_workers_is_the_trials() -> None:
    with pytest.raises(TrialError, match="no such activation"):
        advance(*[Worker(failed(ModelError("no such activation")))] * 2)


def test_an_error_of_one_worker_for_which_the_others_wait_costs_the_gang() -> None:
    with pytest.raises(TrialError, match="no space left") as caught:
        advance(Worker(failed(OSError("no space left"))), Worker(None))
    assert not caught.value.keeps_gang


def test_a_worker_that_died_costs_the_gang_whatever_the_others_raise() -> None:
    with pytest.raises(GangLostError, match="died"):
        advance(Worker(failed(RuntimeError("connection closed by peer"))), Worker(ActorDiedError()))


def test_out_of_memory_and_a_stop_are_told_apart() -> None:
    with pytest.raises(MemoryOutError) as caught:
        advance(Worker(failed(PassTooLargeError(8, 0))), Worker(None))
    assert caught.value.limit == 4
    with pytest.raises(TrialStoppedError):
        advance(*[Worker(failed(StoppedError("stopped after step 3")))] * 2)


def test_a_worker_that_does_not_answer_costs_the_gang_before_it_takes_steps_too() -> None:
    class Suspended(Worker):
        async def _pulse(self) -> Pulse:
            await asyncio.sleep(3600)
            raise AssertionError

    async def begin(*workers: Worker) -> Any:
        gang = Gang(Crew(1, 1, 0.0))
        gang._members = list(workers)
        return await gang._watched([one.advance.remote() for one in workers], 60, has_steps=False)

    with pytest.raises(GangLostError, match="a worker has not answered for 0 s"):
        asyncio.run(begin(Suspended(None)))
    slow = Worker(None, works=False)
    slow.advance = Method(lambda: asyncio.sleep(1, "ready"))
    assert asyncio.run(begin(slow)) == ["ready"]


def test_workers_that_do_nothing_cost_the_gang_and_slow_ones_do_not() -> None:
    with pytest.raises(GangLostError, match=r"no step in 0 s"):
        advance(Worker(None, works=False), Worker(None, works=False))

    async def slow() -> Any:
        await asyncio.sleep(1)  # longer than three times STILL_SECONDS
        return {"step": 1}

    patient = Worker(None)
    patient.advance = Method(slow)
    assert advance(patient) == {"step": 1}
