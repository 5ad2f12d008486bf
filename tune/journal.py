"""The record of a search in storage: decisions and results in their order, from which a search goes on after any end.

        runs/<model>/<search>/journal/00000001.json, …   each a list of events, never changed once written

Numbers are granted to one writer only, so a driver that was suspended and wakes after another one has gone on with its
search cannot write any more. Events are written in the background, all of those that have come up since the last time
together: a slow storage delays the record, not the search.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from heliostat.infra.errors import AlreadyExistsError, ResourceError, StorageError
from heliostat.infra.storage.base import Store
from heliostat.tune.trials import Origin, Score
from heliostat.tune.work import Result, Work

READERS = 16
"""Objects that are read at the same time."""


@dataclass(frozen=True)
class Event:
    """What has happened: `kind` says what `data` is."""

    kind: str
    data: Mapping[str, Any]


class Journal:
    """The events of a search; one driver at a time writes."""

    def __init__(self, store: Store, prefix: str, what: str) -> None:
        """`what` names the search in messages."""
        self.store, self._prefix, self._what = store, f"{prefix}/journal", what
        self._last = 0
        self._unwritten: list[Event] = []
        self._writer = ThreadPoolExecutor(1, "journal")
        self._writing: Future[None] | None = None
        self._is_lost = False
        self.seconds: Callable[[], Mapping[str, float]] = dict
        """What has been spent by this driver; written with each group of events."""

    def read(self) -> list[Event]:
        """All events, oldest first; new ones are written after these."""
        keys = [entry.key for entry in self.store.list(self._prefix)]
        self._last = max((_number(key) for key in keys), default=0)
        with ThreadPoolExecutor(READERS) as readers:
            groups = list(readers.map(self._read, keys))
        return [Event(one["kind"], one["data"]) for group in groups for one in group]

    def add(self, kind: str, data: Any) -> None:
        """Adds an event, which is written as soon as the ones before are."""
        self._unwritten.append(Event(kind, data if isinstance(data, Mapping) else asdict(data)))
        self.keep_writing()

    def keep_writing(self) -> None:
        """Begins to write what is there, if nothing is being written; raises what the last writing failed with.

        ResourceError if the search has been taken over.
        """
        if self._is_lost:
            raise ResourceError(self._taken_over)
        if self._writing and not self._writing.done():
            return
        writing, self._writing = self._writing, None
        if writing:
            writing.result()
        if self._unwritten:
            events, self._unwritten = self._unwritten, []
            self._writing = self._writer.submit(self._write, [*events, Event("spent", self.seconds())])

    def flush(self) -> None:
        """Returns once everything is written."""
        while self._writing or self._unwritten:
            self.keep_writing()
            if self._writing:
                self._writing.result()

    def close(self) -> None:
        """Ends the writing; what is not written by then is lost."""
        self._writer.shutdown(wait=True)

    def lose(self) -> None:
        """Notes that another driver has taken the search over; may be called from another thread."""
        self._is_lost = True

    def check_owner(self) -> None:
        """Raises ResourceError if another driver has written since: the search has been taken over."""
        if self._writing and not self._writing.done():
            return  # which finds out by itself
        newest = max((_number(entry.key) for entry in self.store.list(self._prefix)), default=0)
        if newest > self._last:
            raise ResourceError(self._taken_over)

    @property
    def _taken_over(self) -> str:
        return f"{self._what}: another process has taken it over, since this one gave no sign of life"

    def _read(self, key: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = json.loads(self.store.read_bytes(key))
        except ValueError as error:
            raise StorageError(f"{self.store.url}/{key}: damaged, no JSON: {error}") from error
        return found

    def _write(self, events: Iterable[Event]) -> None:
        key = f"{self._prefix}/{self._last + 1:08d}.json"
        data = json.dumps([asdict(event) for event in events]).encode()
        try:
            self.store.write_bytes(key, data, if_absent=True)
        except AlreadyExistsError:
            raise ResourceError(self._taken_over) from None
        self._last += 1


def _number(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))


def score_from(data: Mapping[str, Any]) -> Score:
    """The score of an event."""
    return Score(data["share"], data["step"], data["metrics"], data["seconds"], data.get("steps", 0))


def work_from(data: Mapping[str, Any]) -> Work:
    """The work of an event."""
    origin = Origin(**data["origin"]) if data["origin"] else None
    new = {name: data[name] for name in ("repeats", "confirms", "again") if name in data}  # earlier journals have none
    return Work(data["number"], data["trial"], data["values"], data["until"], origin, tuple(data["seen"]), **new)


def result_from(data: Mapping[str, Any]) -> Result:
    """The result of an event."""
    scores = tuple(map(score_from, data["scores"]))
    return Result(data["work"], scores, data["error"], data["steps_again"], data["micro_batch"])
