"""The page of a search that runs: what its server answers, to whom, and until when."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from heliostat.tune.reports.importance import Importances
from heliostat.tune.reports.live import Pages, serve_page
from heliostat.tune.state import PageState
from tests.trials import state, trial
from tests.waiting import until

TRIALS = [trial(number, [0.5 + number / 100]) for number in range(12)]
REFRESH = 'http-equiv="refresh"'
OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""The loopback is behind no proxy."""


def ask(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with OPEN(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


class Search:
    """A search whose trials are added one after another."""

    def __init__(self) -> None:
        self.count = 0
        self.is_over = False
        self.asked = 0

    def __call__(self) -> PageState:
        self.asked += 1
        return PageState(state(TRIALS[: self.count]), is_over=self.is_over)


@pytest.fixture
def search() -> Search:
    return Search()


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end does not wait for a browser."""
    monkeypatch.setattr(Pages, "end", lambda self: None)


@pytest.mark.usefixtures("no_wait")
def test_the_page_shows_the_search_as_it_is_now(search: Search) -> None:
    with serve_page(search) as url:
        assert url.startswith("http://127.0.0.1:")
        status, html, headers = ask(url)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "No trial has begun yet." in html
        assert REFRESH in html
        search.count = 3
        until(lambda: "3 of 8" in ask(url)[1], "the new trials", 30)


@pytest.mark.usefixtures("no_wait")
def test_only_this_machine_under_its_own_name_is_answered(search: Search) -> None:
    with serve_page(search) as url:
        assert ask(url, Host="evil.example")[0] == 421
        assert ask(f"{url}trials.csv")[0] == 404
        _, _, headers = ask(url)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        post = urllib.request.Request(url, data=b"x")
        with pytest.raises(urllib.error.HTTPError, match="501"):
            OPEN(post, timeout=30)
    assert search.asked == 1, "requests that are refused cost nothing"


def test_a_search_that_is_over_has_a_page_that_stays_and_nothing_is_waited_for(search: Search) -> None:
    search.is_over = True
    with serve_page(search, refresh_seconds=3600) as url:
        assert REFRESH not in ask(url)[1]


def test_a_browser_that_looks_has_the_last_page_before_the_server_goes(search: Search) -> None:
    seen: list[str] = []
    with serve_page(search, refresh_seconds=1) as url:
        seen.append(ask(url)[1])
        browser = threading.Timer(0.5, lambda: seen.append(ask(url)[1]))
        browser.start()
        search.count = 7
    browser.join()
    assert REFRESH in seen[0]
    assert "7 of 8" in seen[1]
    assert REFRESH not in seen[1]
    with pytest.raises(urllib.error.URLError):
        ask(url)


@contextmanager
def never_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float | None]]:
    """Notes how long the end waits for a browser, without waiting."""
    waited: list[float | None] = []

    def wait(event: threading.Event, timeout: float | None = None) -> bool:
        waited.append(timeout)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(threading.Event, "wait", wait)
        yield waited


def test_where_nobody_looks_the_end_waits_for_nobody(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody, somebody = Pages(search, 5), Pages(search, 5)
    somebody.html()
    with never_waiting(monkeypatch) as waited:
        nobody.end()
        assert waited == []
        somebody.end()
        assert waited == [7]


def test_a_search_that_breaks_off_does_not_wait_for_a_browser(search: Search) -> None:
    def run() -> None:
        with serve_page(search, refresh_seconds=3600) as url:
            ask(url)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()


def test_a_page_that_takes_long_is_not_made_for_each_request(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def taking(*_: object) -> str:
        now[0] += 2.0
        return "page"

    monkeypatch.setattr("heliostat.tune.reports.live.time.monotonic", lambda: now[0])
    monkeypatch.setattr("heliostat.tune.reports.live.render", taking)
    pages = Pages(search, 5)
    for _ in range(10):
        pages.html()
    assert search.asked == 1
    now[0] += 19.9
    pages.html()
    assert search.asked == 1
    now[0] += 0.2
    pages.html()
    assert search.asked == 2


def test_importances_are_found_out_anew_for_some_more_trials_only(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def of_page(page: PageState) -> tuple[Importances, ...]:
        found.append(len(page.search.trials))
        return ()

    monkeypatch.setattr("heliostat.tune.reports.live.of_page", of_page)
    monkeypatch.setattr("heliostat.tune.reports.live.render", lambda *_: "page")
    pages = Pages(lambda: replace(search(), search=state([TRIALS[0]] * search.count)), 5)
    for search.count in range(200):
        pages._keeps_until = 0.0
        pages.html()
    assert found[:4] == [0, 1, 2, 3]
    assert len(found) < 50
    assert found == sorted(set(found))
