"""What a listing of storage says: how much there is, and of each run how far it is. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heliostat.infra.metrics.of_storage import FOLDERS, OTHER
from heliostat.infra.storage.base import Entry

LOST_SECONDS = 120.0
"""A run whose driver gave no sign of life for so long has none; drivers give one every five seconds."""
_RECORD, _DRIVER, _CHECKPOINTS, _CHECKPOINT = "run.json", "driver", "checkpoints", "checkpoint.json"


@dataclass
class Folder:
    """The objects below one folder of the storage."""

    bytes: int = 0
    objects: int = 0


@dataclass
class Run:
    """A run as the listing shows it; times are Unix times."""

    model: str
    run: str
    record: Entry
    """`run.json`, which says whether it has finished."""
    bytes: int = 0
    progress: float = 0.0
    """When anything was stored last, signs of life left out."""
    alive: float = 0.0
    """When its driver last gave a sign of life."""
    drivers: int = 0
    """Processes that have driven it."""
    checkpoints: list[float] = field(default_factory=list)
    """When each complete checkpoint was stored, in order of steps."""

    @property
    def interval(self) -> float | None:
        """Seconds between the newest two checkpoints; None if there are fewer."""
        newest = sorted(self.checkpoints)[-2:]
        return newest[1] - newest[0] if len(newest) == 2 else None

    def state(self, status: str | None, now: float) -> str:
        """One of `STATES`; `status` is what its record says, None if that has not been read."""
        if status != "running":
            return status or "unread"
        return "running" if now - self.alive < LOST_SECONDS else "interrupted"


def folders(entries: Iterable[Entry]) -> Mapping[str, Folder]:
    """The folders of a storage, those without objects too."""
    found = {name: Folder() for name in (*FOLDERS, OTHER)}
    for entry in entries:
        first = entry.key.partition("/")[0]
        name = "mlflow" if first.startswith("mlflow.db") else first
        folder = found.get(name, found[OTHER])
        folder.bytes += entry.size_bytes
        folder.objects += 1
    return found


def runs(entries: Iterable[Entry]) -> list[Run]:
    """All runs that have a record, the one that stored something last first."""
    parts: dict[tuple[str, str], list[tuple[list[str], Entry]]] = {}
    for entry in entries:
        folder, *rest = entry.key.split("/")
        if folder == "runs" and len(rest) > 2:
            parts.setdefault((rest[0], rest[1]), []).append((rest[2:], entry))
    found = [_run(*name, ones) for name, ones in parts.items() if any(path == [_RECORD] for path, _ in ones)]
    return sorted(found, key=lambda run: (-run.progress, run.model, run.run))


def _run(model: str, name: str, ones: list[tuple[list[str], Entry]]) -> Run:
    run = Run(model, name, next(entry for path, entry in ones if path == [_RECORD]))
    for path, entry in ones:
        run.bytes += entry.size_bytes
        if path[0] == _DRIVER:
            run.alive = max(run.alive, entry.modified)
            run.drivers = max(run.drivers, _number(path[-1]))
            continue
        run.progress = max(run.progress, entry.modified)
        if path[0] == _CHECKPOINTS and path[-1] == _CHECKPOINT:
            run.checkpoints.append(entry.modified)
    return run


def _number(name: str) -> int:
    """The number of a lease's object, `000001.json`; 0 for what is none."""
    number = name.removesuffix(".json")
    return int(number) if number.isdecimal() else 0
