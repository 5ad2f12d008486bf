"""A gang: workers that stay alive between trials, as the driver sees them.

Starting workers, importing frameworks and loading data takes far longer than a short trial. A gang does it once. Its
workers live in a placement group of their own and end with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.infra.errors import StoppedError
from heliostat.train.config import TrainConfig
from heliostat.tune.objectives import MEASURED
from heliostat.tune.trials import Objective
from heliostat.tune.work import Place

START_SECONDS = 600.0
"""For workers to start, and for a trial to begin: models may be read from a slow storage."""
STILL_SECONDS = 60.0
"""A worker that has done nothing for so long, and for five of its steps, hangs."""
WATCH_SECONDS = 5.0
TOGETHER_SECONDS = 5.0
"""After one worker has raised an error, the others do too within this time, or they wait for it for ever."""


class GangLostError(Exception):
    """A worker died or hangs, or workers no longer agree: the gang has to be replaced, its trial can go on."""


class TrialStoppedError(Exception):
    """The trial was stopped after a checkpoint, as it was asked to."""


class TrialError(Exception):
    """The trial cannot work."""

    def __init__(self, reason: str, keeps_gang: bool = True) -> None:
        super().__init__(reason)
        self.keeps_gang = keeps_gang
        """Whether the gang can go on with another one."""


class MemoryOutError(Exception):
    """Memory ran out: the gang has to be replaced, its trial goes on with micro-batches of at most `limit` records."""

    def __init__(self, reason: str, limit: int) -> None:
        super().__init__(reason)
        self.limit = limit


@dataclass(frozen=True)
class Crew:
    """Where gangs come from, and what each is made of."""

    workers: int
    cpus: int
    gpus: float
    measures: tuple[str, ...] = ()
    """What workers measure of a trial, of `objectives.MEASURED`."""

    @classmethod
    def of(
        cls, train: TrainConfig, use_gpu: bool, gpus: float | None = None, objectives: Sequence[Objective] = ()
    ) -> Crew:
        """Of the `train` section: the least workers that it allows, each with `gpus` of a GPU, or all of it.

        They measure what `objectives` need.
        """
        measures = tuple(one.metric for one in objectives if one.metric in MEASURED)
        return cls(train.workers.min, train.cpus_per_worker, (gpus or 1.0) if use_gpu else 0.0, measures)

    @property
    def bundle(self) -> dict[str, float]:
        """Resources of a worker."""
        return {"CPU": float(self.cpus), **({"GPU": self.gpus} if self.gpus else {})}

    def has_room(self) -> bool:
        """Whether the cluster has room for one more gang now."""
        import ray

        free = ray.available_resources()
        return all(free.get(name, 0.0) >= amount * self.workers for name, amount in self.bundle.items())

    def hire(self) -> Gang:
        """A gang, which is still to be started."""
        return Gang(self)


class Gang:
    """Workers in a process group."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.holds: tuple[int, float] | None = None
        """The trial that is in its memory, and the share up to which it is trained."""
        self.micro_batch = 1
        """Records in a micro-batch of the trial."""
        self.is_ready = False
        """Whether its workers have started."""
        self._members: list[Any] = []
        self._group: Any = None

    @property
    def is_up(self) -> bool:
        """Whether it has its resources."""
        return bool(self._members)

    async def start(self) -> None:
        """Waits for resources and starts the workers; raises GangLostError if they do not come up."""
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        from heliostat.tune.member import TRAINS, Member

        crew = self._crew
        self._group = placement_group([crew.bundle] * crew.workers, strategy="PACK")
        while not await asyncio.to_thread(self._group.wait, 1):
            pass
        actor: Any = ray.remote(**TRAINS)(Member)
        for index in range(crew.workers):
            place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)
            options = {"num_cpus": crew.cpus, "num_gpus": crew.gpus, "scheduling_strategy": place}
            self._members.append(actor.options(**options).remote(crew.cpus, crew.gpus, crew.measures))
        host, port = (await self._answers([self._members[0].address.remote()], START_SECONDS))[0]
        joins = [one.join.remote(rank, crew.workers, host, port) for rank, one in enumerate(self._members)]
        await self._answers(joins, START_SECONDS)
        self.is_ready = True

    async def begin(self, job: dict[str, Any], share: float, place: Place, limit: int | None) -> int:
        """Starts a trial, or goes on with one; returns the step that it is at. See `Member.begin`."""
        self.holds = None
        calls = [one.begin.remote(job, share, place, limit) for one in self._members]
        begun = (await self._watched(calls, START_SECONDS, has_steps=False))[0]
        self.micro_batch = begun["micro_batch"]
        return int(begun["step"])

    async def advance(self) -> dict[str, Any]:
        """Trains to the next validation; see `Member.advance`. Raises GangLostError if a worker dies or hangs."""
        calls = [one.advance.remote() for one in self._members]
        found: dict[str, Any] = (await self._watched(calls, None, has_steps=True))[0]
        return found

    async def _watched(self, calls: Sequence[Any], seconds: float | None, has_steps: bool) -> list[Any]:
        """The answers, while it is watched that workers answer and, if that is to be, take steps."""
        watching = asyncio.create_task(self._watch(has_steps))
        try:
            return await self._answers(calls, seconds, watching)
        finally:
            watching.cancel()

    def stop(self) -> None:
        """Makes `advance` end with a TrialStoppedError, after a checkpoint."""
        for member in self._members:
            member.stop.remote()

    async def settle(self) -> None:
        """Waits until the last checkpoints are stored."""
        await self._answers([one.settle.remote() for one in self._members], START_SECONDS)

    def close(self) -> None:
        """Ends the workers and gives their resources back. Idempotent."""
        import ray
        from ray.util.placement_group import remove_placement_group

        for member in self._members:
            ray.kill(member)
        self._members = []
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None

    async def _answers(
        self, calls: Sequence[Any], seconds: float | None, watching: asyncio.Task[None] | None = None
    ) -> list[Any]:
        """The answers of all workers; the first error of one decides, once the others have ended too or do not."""
        tasks = [asyncio.ensure_future(_of(call)) for call in calls]
        every = asyncio.ensure_future(asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION))
        try:
            await asyncio.wait({every, *([watching] if watching else [])}, return_when=asyncio.FIRST_COMPLETED)
            if watching and watching.done():
                watching.result()
            if any(task.done() and task.exception() for task in tasks):
                await asyncio.wait(tasks, timeout=TOGETHER_SECONDS)
                raise self._error([_outcome(task) for task in tasks])
            if not all(task.done() for task in tasks):
                raise GangLostError(f"no answer in {seconds:.0f} s")
            return [task.result() for task in tasks]
        finally:
            for task in (every, *tasks):
                task.cancel()

    def _error(self, outcomes: Sequence[Any]) -> Exception:
        """What the outcomes of workers, of which one is an error, mean for the gang and its trial."""
        from heliostat.tune.failures import failure

        if any(isinstance(one, StoppedError) for one in outcomes):
            return TrialStoppedError()
        found = failure(outcomes, self.micro_batch)
        assert found is not None
        if found.kind == "lost":
            return GangLostError(found.reason)
        if found.limit:
            return MemoryOutError(found.reason, found.limit)
        return TrialError(found.reason, found.keeps_gang)

    async def _watch(self, has_steps: bool) -> None:
        """Returns never; raises GangLostError once a worker has done nothing for too long."""
        import ray

        since, before = time.monotonic(), [0]
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            calls = [_of(one.pulse.remote()) for one in self._members]
            try:
                pulses = await asyncio.wait_for(asyncio.gather(*calls), STILL_SECONDS)
            except asyncio.TimeoutError:
                raise GangLostError(f"a worker has not answered for {STILL_SECONDS:.0f} s") from None
            except ray.exceptions.RayError:
                continue  # a worker has died: the call that trains says so
            passes = [pulse.passes for pulse in pulses]
            if passes != before or not has_steps:
                since, before = time.monotonic(), passes
            still = max(STILL_SECONDS, 5 * max(pulse.step_seconds for pulse in pulses))
            if time.monotonic() - since > still:
                raise GangLostError(f"no step in {still:.0f} s")


async def _of(call: Any) -> Any:
    return await call


def _outcome(task: asyncio.Task[Any]) -> Any:
    """What a worker's call has come to: a value or an error, that of the worker's own code if there is one; or None."""
    if not task.done():
        return None
    error = task.exception()
    return task.result() if error is None else getattr(error, "cause", None) or error
