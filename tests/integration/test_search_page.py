"""The page of a search in Chromium: of thousands of trials, of none, of failed ones only, and while it runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from heliostat.tune.reports.live import serve_page
from heliostat.tune.reports.search_report import render
from heliostat.tune.state import PageState
from heliostat.tune.trials import Objective, Score, Trial
from tests.browser import chromium, screenshot, text_of
from tests.page import colours, pixels, set_scheme
from tests.trials import ACCURACY, state, trial
from tests.waiting import until

ATTACK = "<img src=x onerror=\"document.title='run'\">"
KEYS = ("learning_rate", "global_batch_size", "schedule", "warmup")
SECTIONS = ("curves", "parallel", "importance", "slices", "times", "sums", "trials")
INSIDE = "return document.documentElement.scrollWidth <= innerWidth"
OVERLAPPING = """
const marks = [...document.querySelectorAll('#parallel text.name')].map(one => one.getBoundingClientRect());
return marks.some((one, at) => at && one.left < marks[at - 1].right);
"""


def values(rng: random.Random) -> dict[str, Any]:
    schedule = rng.choice(["cosine", "linear", ATTACK])
    found = {"learning_rate": 10 ** rng.uniform(-5, -2), "global_batch_size": rng.choice([16, 32, 64])}
    return {**found, "schedule": schedule, **({"warmup": rng.random()} if schedule == "cosine" else {})}


def searched(count: int) -> list[Trial]:
    rng = random.Random(1)
    return [
        trial(number, [rng.random() for _ in range(rng.choice([1, 2, 4]))], values(rng), **_error(number))
        for number in range(count)
    ]


def _error(number: int) -> dict[str, str]:
    return {"error": f"RuntimeError: {ATTACK}"} if number % 9 == 8 else {}


def page_of(trials: Sequence[Trial], **more: Any) -> PageState:
    found = state(trials, keys=KEYS, wanted=len(trials), gang_hour_price=2.5, cost=1.25, **more)
    return PageState(found, "Search of movie reviews", {}, ["learning_rate"], ["global_batch_size"], 1, 3, "name: x\n")


def failed(count: int) -> list[Trial]:
    rng = random.Random(2)
    return [trial(number, [], values(rng), until=1, error=ATTACK * 20) for number in range(count)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as browser:
        browser.set_window_size(1128, 900)
        yield browser


def opened(browser: Chrome, page: PageState, folder: Path) -> Chrome:
    file = folder / "report.html"
    file.write_text(render(page), encoding="utf-8")
    browser.get(file.as_uri())
    return browser


def section(browser: Chrome, name: str) -> WebElement:
    found = browser.find_element(By.ID, name)
    browser.execute_script("arguments[0].scrollIntoView()", found)
    return found


def complaints(browser: Chrome) -> list[str]:
    return [one["message"] for one in browser.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_thousands_of_trials_are_to_be_seen_from_all_sides(browser: Chrome, tmp_path: Path, scheme: str) -> None:
    set_scheme(browser, scheme)
    opened(browser, page_of(searched(2000)), tmp_path)
    for name in SECTIONS:
        assert colours(pixels(section(browser, name))) > 2000, name
        screenshot(browser, f"search-{name}-{scheme}")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#trials tr")) == 2001
    assert "trials are drawn: the best, and others evenly." in text_of(browser, "#parallel p")
    assert browser.execute_script(INSIDE)
    assert not browser.execute_script(OVERLAPPING)
    assert complaints(browser) == []


def test_values_and_errors_stay_text(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, page_of(searched(40)), tmp_path)
    assert browser.title == "sentiment: search"
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert f"RuntimeError: {ATTACK}" in text_of(browser, "#trials td.reason")


def test_a_search_without_trials_says_so_and_is_not_blank(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, page_of([]), tmp_path)
    assert "No trial has begun." in text_of(browser, "main")
    assert "0 of 0" in text_of(browser, "dl.facts")
    assert complaints(browser) == []


def test_failed_trials_alone_are_drawn_and_listed(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, page_of(failed(30)), tmp_path)
    assert "No trial has a number for accuracy." in text_of(browser, "main")
    for name in ("parallel", "importance", "sums", "trials"):
        assert colours(pixels(section(browser, name))) > 1000, name
    assert text_of(browser, "#trials td.reason").count(ATTACK) == 30 * 20
    assert browser.execute_script(INSIDE)


def test_two_objectives_show_their_front(browser: Chrome, tmp_path: Path) -> None:
    rng = random.Random(4)
    trials = [
        trial(
            number, [], values(rng), until=1, scores=(Score(1, 9, {"accuracy": rng.random(), "latency": rng.random()}),)
        )
        for number in range(60)
    ]
    opened(browser, page_of(trials, objectives=(ACCURACY, Objective("latency", "min"))), tmp_path)
    assert colours(pixels(section(browser, "pareto"))) > 2000
    assert len(browser.find_elements(By.CSS_SELECTOR, "#pareto circle.top")) >= 2
    assert len(browser.find_elements(By.CSS_SELECTOR, "#pareto path.front")) == 1


def test_a_narrow_screen_needs_no_scrolling_sideways(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, page_of(searched(60)), tmp_path)
    browser.set_window_size(500, 900)
    try:
        assert browser.execute_script(INSIDE)
    finally:
        browser.set_window_size(1128, 900)


def test_a_page_that_is_live_renews_itself_and_stays_when_the_search_is_over(browser: Chrome) -> None:
    trials, count = searched(40), 0
    with serve_page(lambda: page_of(trials[:count]), refresh_seconds=1) as url:
        browser.get(url)
        assert "No trial has begun yet." in text_of(browser, "main")
        count = 12
        until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#trials tr")) == 13, "the new trials", 30)
        assert "renews itself every 1 seconds" in text_of(browser, "#live")
        count = 40
    assert len(browser.find_elements(By.CSS_SELECTOR, "#trials tr")) == 41, "the last page, which it keeps"
    assert browser.find_elements(By.ID, "live") == []
    assert complaints(browser) == []
