"""The page of a search while it runs: on the loopback only, made anew as it is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

from heliostat.cluster.folders import LOOPBACK
from heliostat.cluster.loopback import Answer, LoopbackHandler, LoopbackServer, RefusedError
from heliostat.tune.reports.importance import Importances, of_page
from heliostat.tune.reports.search_report import render
from heliostat.tune.state import PageState

REFRESH_SECONDS = 5
"""How often a browser asks anew."""
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PART = 10
"""A page of thousands of trials takes a second: at most one part in so many of the time is spent on it."""
_GROWTH = 1.1
"""By how much the trials must have grown before their importances are found out anew."""


@contextmanager
def serve_page(state: Callable[[], PageState], port: int = 0, refresh_seconds: int = REFRESH_SECONDS) -> Iterator[str]:
    """The page's address, which answers for the length of the block.

    Where the block ends without an exception, a browser that looks is given the last page first, which it keeps.
    """
    with _Server(port, Pages(state, refresh_seconds)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="page of a search", daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}/"
            server.pages.end()
        finally:
            server.shutdown()
            thread.join()


class Pages:
    """The page as of now, or of a moment ago."""

    def __init__(self, state: Callable[[], PageState], refresh_seconds: int) -> None:
        self._state, self._refresh_seconds = state, refresh_seconds
        self._lock = threading.Lock()
        self._html = b""
        self._keeps_until = 0.0
        self._importances: tuple[int, Sequence[Importances]] | None = None
        self._asked_at: float | None = None
        self._is_over = False
        self._is_last = False
        self._was_told = threading.Event()

    def html(self) -> tuple[bytes, bool]:
        """The page, UTF-8, and whether it is the last one."""
        with self._lock:
            begun = self._asked_at = time.monotonic()
            if begun >= self._keeps_until:
                self._html = self._made().encode("utf-8", "replace")
                ended = time.monotonic()
                self._keeps_until = ended + (ended - begun) * _PART
            return self._html, self._is_last

    def last_was_sent(self) -> None:
        """A browser has the last page now."""
        self._was_told.set()

    def end(self) -> None:
        """From now on the page no longer renews itself; returns once a browser that was looking has that one."""
        with self._lock:
            self._is_over, self._keeps_until = True, 0.0
            asked_at = self._asked_at
            is_known = self._is_last
        patience = self._refresh_seconds + 2.0
        if not is_known and asked_at is not None and time.monotonic() - asked_at < patience:
            self._was_told.wait(patience)

    def _made(self) -> str:
        page = self._state()
        self._is_last = page.is_over or self._is_over
        return render(page, None if self._is_last else self._refresh_seconds, self._known(page))

    def _known(self, page: PageState) -> Sequence[Importances]:
        """The importances, which a few more trials do not change."""
        count = sum(not trial.is_training for trial in page.search.trials)
        if self._importances is None or count > _GROWTH * self._importances[0]:
            self._importances = count, of_page(page)
        return self._importances[1]


class _Server(LoopbackServer):
    def __init__(self, port: int, pages: Pages) -> None:
        self.pages = pages
        super().__init__(port, _Handler)


class _Handler(LoopbackHandler):
    server: _Server
    policy = POLICY
    is_last = False

    def answered(self) -> None:
        """Lets the end go on once the last page was sent."""
        if self.is_last:
            self.server.pages.last_was_sent()

    def answer(self) -> Answer:
        """The page, under / only."""
        if urlsplit(self.path).path != "/":
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is one page, /")
        html, self.is_last = self.server.pages.html()
        return Answer("text/html; charset=utf-8", html)
