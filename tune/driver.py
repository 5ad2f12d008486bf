"""The loop of a search: gangs take works, train them, and tell what came of them.

    pool ──work──▶ gang ──scores──▶ journal, decisions ──▶ next work

Each gang is a task of one event loop. A gang that dies or hangs is replaced, and its trial goes on from its checkpoint.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from heliostat.infra import log
from heliostat.infra.errors import HeliostatError, TrainingError
from heliostat.tune.decisions import Decisions
from heliostat.tune.gang import Crew, Gang, GangLostError, MemoryOutError, TrialError, TrialStoppedError
from heliostat.tune.journal import Journal
from heliostat.tune.lineage import schedule
from heliostat.tune.outage import if_storage_answers
from heliostat.tune.requests import Request, asked
from heliostat.tune.retention import retain
from heliostat.tune.settings import MakeJob, Settings
from heliostat.tune.spending import Spending
from heliostat.tune.trials import Origin, Score, Trial
from heliostat.tune.work import Place, Progress, Result, Work, score_of

TICK_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""How long a gang waits for a checkpoint that another gang is storing."""
REQUEST_SECONDS = 2.0
SAVE_SECONDS = 120.0
"""How long a search that is stopped waits for checkpoints of its running trials."""
SUSPENDED_SECONDS = 10.0
"""A driver that did nothing for so long was suspended, and looks whether the search is still its own."""
FAILURES_IN_A_ROW = 5
"""So many trials that fail, with none that does not in between, end a search."""
FAILED_STARTS = 3
"""So many gangs that do not come up, one after the other, end a search."""
RETAIN_SECONDS = 15.0
"""Between looks at the size of checkpoints."""
_log = log.get(__name__)


class Driver:
    """Runs a search to its end, or until it is stopped."""

    def __init__(
        self, decisions: Decisions, journal: Journal, make_job: MakeJob, crew: Crew, settings: Settings
    ) -> None:
        self.decisions, self._journal, self._make_job = decisions, journal, make_job
        self._crew, self._settings = crew, settings
        self.on_change: Callable[[Driver], None] = lambda _: None
        """Called after whatever happens to a trial, and each second."""
        self.running: set[int] = set()
        """Numbers of the works that a gang trains."""
        self.ended: str | None = None
        """Why the search ends before nothing is left to do; None if it does not."""
        self._spending = Spending(crew.workers, settings.worker_hour_usd)
        self._waiting: list[Work] = []
        self._progress: dict[int, Progress] = {}
        self._gangs: dict[Gang, asyncio.Task[None]] = {}
        self._idle: set[Gang] = set()
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticked, self._asked, self._retained = time.monotonic(), 0.0, 0.0
        self._handled: set[str] = set()
        self._failed_in_a_row: list[str] = []
        self._failed_starts = 0
        journal.seconds = self.spent

    def spent(self) -> dict[str, float]:
        """By all drivers of the search; see `Spending.total`."""
        return self._spending.total

    def _count(self) -> None:
        """Counts the time until now, in which as many gangs were up and idle as are now."""
        self._spending.count(sum(gang.is_up for gang in self._gangs), len(self._idle))

    async def _serve_others(self) -> None:
        """Does what other processes ask for, and deletes checkpoints that nobody needs, now and then."""
        if time.monotonic() - self._asked >= REQUEST_SECONDS:
            self._asked = time.monotonic()
            await if_storage_answers(self._take_requests())
        if time.monotonic() - self._retained >= RETAIN_SECONDS:
            self._retained = time.monotonic()
            await if_storage_answers(self._retain())

    async def _take_requests(self) -> None:
        store, prefix = self._journal.store, self._settings.prefix
        for request in await asyncio.to_thread(asked, store, prefix):
            if request.key not in self._handled:
                self._handled.add(request.key)
                self._journal.add("request", {"key": request.key})
                self._do(request)
            await asyncio.to_thread(store.delete, request.key)

    def _do(self, request: Request) -> None:
        trial = next((one for one in self.trials() if one.number == request.trial), None)
        if trial and request.kind == "stop":
            self._stop_trial(trial.number)
        elif trial and request.kind == "clone" and trial.scores:
            self._clone(trial, request.values)
        else:
            _log.warning("%s of trial %d is asked for, which cannot be", request.kind, request.trial)

    async def _retain(self) -> None:
        what = (self._settings.prefix, self.trials(), self._settings.objectives, self._settings.checkpoint_bytes)
        for number in await asyncio.to_thread(retain, self._journal.store, *what):
            _log.warning("trial %d: its checkpoint is deleted for tune.checkpoint_bytes; it would start over", number)

    def _stop_trial(self, trial: int) -> None:
        reason = "stopped by a user"
        self.decisions.stop(trial, reason)
        self._journal.add("stop", {"trial": trial, "reason": reason})
        for work in [work for work in self._waiting if work.trial == trial]:
            self._waiting.remove(work)
            self._end(work, self._progress.get(work.number, Progress()), None)

    def _clone(self, trial: Trial, values: Mapping[str, Any]) -> None:
        until = min(1.0, round(trial.share + self._settings.grace, 9))
        work = self.decisions.clone(Origin(trial.number, trial.share), values, until)
        self._journal.add("work", work)
        self._waiting.append(work)

    def resume(self, scores: Mapping[int, list[Score]], spent: Mapping[str, float], handled: Collection[str]) -> None:
        """Puts the works that have no result yet in front, with the `scores` that are known of them.

        Earlier drivers have `spent` so much, and `handled` these requests.
        """
        self._handled.update(handled)
        self._spending.add(spent)
        self._waiting = self.decisions.open_works
        self._progress = {
            work.number: Progress(list(scores.get(work.number, ())), limit=self.decisions.micro_batch(work.trial))
            for work in self._waiting
        }

    def stop(self, reason: str) -> None:
        """Ends the search; what is trained by then is kept. May be called from a signal handler or another thread."""
        self.ended = self.ended or reason
        if self._loop:
            self._loop.call_soon_threadsafe(self._wake)

    async def run(self) -> None:
        """Trains until nothing is left to do, a budget is used up or `stop` is called; gives all resources back."""
        self._loop = asyncio.get_running_loop()
        try:
            while not self._is_over():
                self._tick()
                await self._serve_others()
                if self.decisions.has_lag or not self._gangs or self._crew.has_room():
                    self._decide()  # others are decided when a gang asks for one
                self._hire()
                await self._change()
                self._check_gangs()
            if self.ended:
                await self._save()
        finally:
            self._count()
            await self._dismiss()
        await if_storage_answers(self._retain())
        self.on_change(self)
        self._journal.add("end", {"reason": self.ended or self.decisions.note})
        await asyncio.to_thread(self._journal.flush)

    def _is_over(self) -> bool:
        return bool(self.ended) or (self.decisions.is_over and not self._waiting and not self.running)

    def _wake(self) -> None:
        """Ends the waiting of the loop, and of gangs without work."""
        self._news.set()
        self._news = asyncio.Event()

    async def _change(self) -> None:
        """Waits for news, a second at most."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), TICK_SECONDS)

    def _tick(self) -> None:
        before, self._ticked = self._ticked, time.monotonic()
        if self._ticked - before > SUSPENDED_SECONDS:
            self._journal.check_owner()
        self._count()
        self._journal.keep_writing()
        if used_up := self._settings.budget(self.spent()):
            self.stop(used_up)
        self.on_change(self)

    def _decide(self) -> None:
        """Asks for as many works as gangs could take; without a lag, for one at a time."""
        most = self._settings.most_gangs if self.decisions.has_lag else 1
        while len(self._waiting) < most and not self.ended:
            work = self.decisions.next()
            if work is None:
                return
            self._journal.add("work", work)
            self._waiting.append(work)

    def _hire(self) -> None:
        """Starts a gang if there is work and room for one more; the first one waits for room."""
        wanted = len(self._waiting) + len(self.running)
        if self.ended or len(self._gangs) >= min(wanted, self._settings.most_gangs):
            return
        if not self._gangs or self._crew.has_room():
            gang = self._crew.hire()
            self._gangs[gang] = asyncio.create_task(self._employ(gang))

    def _check_gangs(self) -> None:
        """Forgets gangs that are gone; raises what ended one if no trial is to blame for it."""
        for gang in [gang for gang, task in self._gangs.items() if task.done()]:
            self._gangs.pop(gang).result()

    async def _employ(self, gang: Gang) -> None:
        """A gang's life: it starts, takes one work after the other, and ends with the search or its workers."""
        try:
            await self._start(gang)
            while (work := await self._take(gang)) is not None:
                await self._train(gang, work)
            await gang.settle()
        except GangLostError as error:
            _log.warning("a gang is replaced: %s", error)
        except TrialStoppedError:
            await gang.settle()
        finally:
            gang.close()
            self._wake()

    async def _start(self, gang: Gang) -> None:
        """Starts a gang; raises TrainingError if that fails again and again, or always will."""
        try:
            await gang.start()
        except TrialError as error:
            raise TrainingError(f"workers do not start: {error}") from error
        except GangLostError as error:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise TrainingError(f"workers do not start: {error}") from error
            raise
        self._failed_starts = 0

    async def _take(self, gang: Gang) -> Work | None:
        """The next work for a gang, rather the one whose trial it holds; None at the end of the search."""
        while not self._is_over():
            if self._waiting:
                trials = self.decisions.trials
                own = [one for one in self._waiting if gang.holds == (one.trial, trials[one.trial].share)]
                work = (own or self._waiting)[0]
                self._waiting.remove(work)
                return work
            self._decide()
            if not self._waiting:
                await self._idle_until_news(gang)
        return None

    async def _idle_until_news(self, gang: Gang) -> None:
        self._count()
        self._idle.add(gang)
        try:
            await self._change()
        finally:
            self._count()
            self._idle.discard(gang)

    async def _train(self, gang: Gang, work: Work) -> None:
        """Trains a work on a gang and notes how it ended; puts it back if the gang is lost."""
        progress = self._progress.setdefault(work.number, Progress(limit=self.decisions.micro_batch(work.trial)))
        self.running.add(work.number)
        self.on_change(self)
        error: str | None = None
        try:
            error = await self._advance(gang, work, progress)
        except TrialStoppedError:
            self.running.discard(work.number)
            raise
        except TrialError as failed:
            error, gang.holds = str(failed), None
            if not failed.keeps_gang:
                self._end(work, progress, error)
                raise GangLostError(error) from failed
        except (GangLostError, MemoryOutError) as lost:
            self._put_back(work, progress, lost)
            raise GangLostError(str(lost)) from lost
        self._end(work, progress, error)

    def _put_back(self, work: Work, progress: Progress, lost: Exception) -> None:
        """Lets a work whose gang was lost go on with another one; too many losses are its end."""
        if isinstance(lost, MemoryOutError):
            progress.limit = lost.limit
            _log.warning("trial %d: %s; it goes on with %d", work.trial, lost, lost.limit)
        else:
            progress.failures += 1
        if progress.failures > self._settings.max_failures:
            self._end(work, progress, str(lost))
        else:
            self.running.discard(work.number)
            self._waiting.insert(0, work)

    async def _advance(self, gang: Gang, work: Work, progress: Progress) -> str | None:
        """Trains until the work's share is reached; returns why the trial cannot go on, None if it can."""
        known = [*self.decisions.trials[work.trial].scores, *progress.scores]
        share = known[-1].share if known else 0.0
        if gang.holds != (work.trial, share) or work.origin:
            job = await self._job(work)
            step = await gang.begin(job, self._settings.grace, self._place(work, known), progress.limit)
            progress.steps_again += self._lost_steps(work, known, step)
        gang.holds = None
        while share < work.until:
            score = score_of(await gang.advance(), self._settings.grace)
            if score.share <= share:
                continue  # trained again after a loss
            share = score.share
            progress.scores.append(score)
            self._journal.add("score", {"work": work.number, "score": asdict(score)})
            self.on_change(self)
            if self.decisions.trials[work.trial].stopped:
                break
            for metric in (one.metric for one in self._settings.objectives):
                if not math.isfinite(score.metrics.get(metric, math.nan)):
                    return f"{metric}: not finite at step {score.step}"
        gang.holds = (work.trial, share)
        return None

    async def _job(self, work: Work) -> dict[str, Any]:
        """Its past is with it: by that a checkpoint that is lost is trained again."""
        begun = work.origin or Origin(work.trial, self.decisions.trials[work.trial].share)
        past = schedule(self.trials(), begun.trial, begun.share)
        try:
            return await asyncio.to_thread(self._make_job, work.values, past)
        except HeliostatError as error:
            raise TrialError(str(error)) from error

    def _place(self, work: Work, known: list[Score]) -> Place:
        own = f"{self._settings.prefix}/trials/{work.trial}"
        source, step = own, known[-1].step if known else 0
        if work.origin and not self._progress[work.number].scores:
            source = f"{self._settings.prefix}/trials/{work.origin.trial}"
            step = self.trials()[work.origin.trial].at(work.origin.share).scores[-1].step
        return Place(
            f"{own}/{self._settings.owner:03d}", source, step, PATIENCE_SECONDS if len(self._gangs) > 1 else 1.0
        )

    def _lost_steps(self, work: Work, known: list[Score], step: int) -> int:
        """Steps that were trained and are not in the checkpoint, which are trained once more."""
        lost = (known[-1].step if known else 0) - step
        if lost <= 0:
            return 0
        _log.warning("trial %d: no checkpoint of step %d, goes on from step %d", work.trial, known[-1].step, step)
        return lost

    def _end(self, work: Work, progress: Progress, error: str | None) -> None:
        self.running.discard(work.number)
        result = Result(work.number, tuple(progress.scores), error, progress.steps_again, progress.limit)
        self._progress.pop(work.number, None)
        self.decisions.arrived(result)
        self._journal.add("result", result)
        self._failed_in_a_row = [*self._failed_in_a_row, error] if error else []
        if len(self._failed_in_a_row) >= FAILURES_IN_A_ROW:
            raise TrainingError(f"{FAILURES_IN_A_ROW} trials in a row failed; the first: {self._failed_in_a_row[0]}")
        self.on_change(self)
        self._wake()

    async def _save(self) -> None:
        """Waits until running trials have stopped at a checkpoint and all of them are stored."""
        ready = [gang for gang in self._gangs if gang.is_ready]
        for gang in ready:
            gang.stop()
        if ready:
            await asyncio.wait([self._gangs[gang] for gang in ready], timeout=SAVE_SECONDS)

    async def _dismiss(self) -> None:
        """Ends all gangs."""
        for task in self._gangs.values():
            task.cancel()
        await asyncio.gather(*self._gangs.values(), return_exceptions=True)

    def trials(self) -> list[Trial]:
        """All trials as they are now, with the scores of works on their way."""
        return self.decisions.current({number: one.scores for number, one in self._progress.items()})
