"""Looks at a storage: one listing, and the records of runs that have changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.infra.errors import NotFoundError
from heliostat.infra.exporter.inventory import Folder, Run, folders, runs
from heliostat.infra.storage.base import Entry, Store

MOST_RUNS = 100
"""Those that stored something last are shown."""
MOST_READS = 16
"""Records of runs that one look reads; the others are read by the next ones."""


@dataclass(frozen=True)
class Inventory:
    """What is in a storage."""

    folders: Mapping[str, Folder]
    runs: tuple[Run, ...]
    states: Mapping[str, str | None]
    """By key of a run's record, what it says; None where it could not be understood."""
    runs_left_out: int


class StorageLook:
    """Makes inventories of a storage, each from a listing and few reads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[tuple[str, str], str | None] = {}
        """Status by key and version of a record."""

    def __call__(self) -> Inventory:
        """An inventory; raises StorageError."""
        entries = self.store.list()
        every = runs(entries)
        shown = every[:MOST_RUNS]
        known = {(run.record.key, run.record.version) for run in shown}
        self._known = {record: status for record, status in self._known.items() if record in known}
        for run in [run for run in shown if (run.record.key, run.record.version) not in self._known][:MOST_READS]:
            self._known[run.record.key, run.record.version] = self._read(run.record)
        states = {key: status for (key, _), status in self._known.items()}
        return Inventory(folders(entries), tuple(shown), states, len(every) - len(shown))

    def _read(self, record: Entry) -> str | None:
        """`running` or `finished`; None for a record that is gone or damaged."""
        try:
            status = json.loads(self.store.read_bytes(record.key))["status"]
        except (NotFoundError, ValueError, LookupError, TypeError):
            return None
        return status if status in ("running", "finished") else None
