"""The checkpoints of a trial: it begins at a chosen one, which another gang, driver or trial may have stored.

trials/<number>/<owner>/<step>-<attempt>/…   as in train/checkpoints; one folder for each driver that owned the
                                             search, so that none touches what another one stores
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from heliostat.infra import log
from heliostat.infra.errors import StorageError
from heliostat.infra.storage.base import Store
from heliostat.train.checkpoints.checkpoint import RECORD, Checkpoints
from heliostat.train.config import CHANGEABLE, TrainConfig
from heliostat.train.parallel.distributed import World
from heliostat.train.stages import schedule_until
from heliostat.tune.work import Place

POLL_SECONDS = 0.2
_log = log.get(__name__)


class TrialCheckpoints(Checkpoints):
    """Those of one trial, on one rank; that at its end, which nobody goes on from, is not stored."""

    def __init__(self, store: Store, place: Place, world: World, train: TrainConfig, steps: int, task: Any) -> None:
        contract = {"steps": steps, "train": train.model_dump(mode="json", include={*CHANGEABLE, "stages"})}
        super().__init__(store, place.prefix, world, contract, keep=2, mode=task.mode, metric=task.metric)
        self._place, self._steps, self._train = place, steps, train
        self._bound = place.step + (train.validate_every or 0 if place.is_own else 1)
        self._start: dict[str, Any] | None = None
        self._looked = False

    def find_start(self) -> int:
        """The step that the trial goes on from; all ranks must ask together."""
        if not self._looked:
            self._start, self._looked = self.world.from_first(self._find), True
        return self._start["step"] if self._start else 0

    def restore(self, engine: Any, record: Mapping[str, Any] | None = None) -> int:
        """Loads the chosen checkpoint into `engine`; returns its step, 0 if there is none."""
        self.find_start()
        return super().restore(engine, self._start) if self._start else 0

    def save(
        self, engine: Any, step: int, metrics: Mapping[str, float], patience: Mapping[str, Any] | None = None
    ) -> None:
        """Stores a checkpoint in the background, except at the end of the trial."""
        if step < self._steps:
            super().save(engine, step, metrics, patience)

    def best(self) -> dict[str, Any] | None:
        """None: a trial only ever goes on from its newest ones."""
        return None

    def released(self) -> TrialCheckpoints:
        """Itself, for `wait`: it stores what it has begun to, and then its thread ends."""
        self._uploader.shutdown(wait=False)
        return self

    def wait(self) -> None:
        """Waits until the last checkpoint is stored; one that could not be is left to who needs it, and told of."""
        try:
            super().wait()
        except StorageError as error:
            _log.warning("%s", error)

    def _find(self) -> dict[str, Any] | None:
        until = time.monotonic() + self._place.patience_seconds
        while True:
            known = [one for one in self._known() if one["step"] < self._bound and self._led_here(one)]
            newest = max(known, key=lambda record: record["step"], default=None)
            if (newest["step"] if newest else 0) >= self._place.step or time.monotonic() > until:
                return newest
            time.sleep(POLL_SECONDS)

    def _led_here(self, record: Mapping[str, Any]) -> bool:
        """Whether the checkpoint was trained as this trial was until there: not with values that it gave up.

        That of a trial with another number of steps, which a clone may begin from, is not compared.
        """
        step, contract = record["step"], record["contract"]
        if contract.get("steps") != self._steps:
            return True
        then = TrainConfig.model_validate(contract["train"])
        return schedule_until(then, step, self._steps) == schedule_until(self._train, step, self._steps)

    def _check(self, record: Mapping[str, Any], engine: Any) -> None:
        super()._check({**record, "contract": {}}, engine)  # what it was trained with was looked at before

    def _known(self) -> list[dict[str, Any]]:
        keys = [entry.key for entry in self.store.list(self._place.source) if entry.key.endswith("/" + RECORD)]
        return [record for record in map(self._read, keys) if record]

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            return json.loads(self.store.read_bytes(key))
        except StorageError:  # its gang has stored a newer one and deleted it
            return None
