"""The background thread that runs a model, and whether the model still answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from heliostat.infra import log

Output = TypeVar("Output")
_log = log.get(__name__)


class ModelThread:
    """Calls `turn` in a background thread as long as `has_work` returns true, and waits for work otherwise.

    State shared with other threads is accessed with `lock` held; `has_work` is called with it held.

    Each pass of the model runs through `attempt`, by which `check` tells whether the model is well. A pass that takes
    longer than `pass_seconds` is stuck. After one that failed, `trial`, a pass that must work, tells a model that is
    broken from a request that cannot be computed.
    """

    def __init__(
        self,
        name: str,
        has_work: Callable[[], object],
        turn: Callable[[], None],
        *,
        trial: Callable[[], object],
        pass_seconds: float,
    ) -> None:
        self.lock = threading.Condition()
        self.pass_seconds = pass_seconds
        self._closed = False
        self._has_work = has_work
        self._turn = turn
        self._trial = trial
        self._pass_began: float | None = None
        self._failed = False
        """The last pass did."""
        self._broken = False
        """The last trial failed, and no pass has worked since."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Holds the lock while work is added, then wakes the thread; raises RuntimeError once it is closed."""
        with self.lock:
            if self._closed:
                raise RuntimeError("the model is shutting down")
            yield
            self.lock.notify()

    def attempt(self, run: Callable[[], Output]) -> Output:
        """Runs a pass of the model in the current turn; raises what it raises."""
        self._pass_began, self._failed = time.monotonic(), True
        try:
            found = run()
        finally:
            self._pass_began = None
        self._failed = self._broken = False
        return found

    def check(self) -> None:
        """Raises RuntimeError if the thread has ended, a pass is stuck, or the model fails at every pass."""
        if not self._thread.is_alive():
            raise RuntimeError("the thread that runs the model has ended")
        began = self._pass_began
        if began is not None and time.monotonic() - began > self.pass_seconds:
            raise RuntimeError(
                f"a pass of the model has not ended after {self.pass_seconds:g} s (serve.timeout_seconds)"
            )
        if self._broken:
            raise RuntimeError("every pass of the model fails; the log says why")

    def close(self) -> None:
        """Stops the thread after the current turn; pending work is dropped."""
        with self.lock:
            self._closed = True
            self.lock.notify()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self._closed or self._has_work())
                if self._closed:
                    return
            self._turn()
            if self._failed:
                self._try()

    def _try(self) -> None:
        try:
            self.attempt(self._trial)
        except Exception:
            _log.exception("the model fails at an input that it must take: the replica is unhealthy")
            self._broken = True
