"""The background thread that runs a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ModelThread:
    """Calls `turn` in a background thread as long as `has_work` returns true, and waits for work otherwise.

    State shared with other threads is accessed with `lock` held; `has_work` is called with it held.
    """

    def __init__(self, name: str, has_work: Callable[[], object], turn: Callable[[], None]) -> None:
        self.lock = threading.Condition()
        self._closed = False
        self._has_work = has_work
        self._turn = turn
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

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

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
