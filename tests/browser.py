"""A headless Chromium, as a person would use one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.tools import need

ARTIFACTS = Path(__file__).parents[1] / "build" / "screenshots"


@contextmanager
def chromium() -> Iterator[Chrome]:
    """The browser, which is gone afterwards; the test is skipped where there is none."""
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,900"):
        options.add_argument(argument)
    options.binary_location = need("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(need("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def visit(browser: Chrome, url: str) -> None:
    """Opens the page of an endpoint."""
    browser.get(url)
    assert browser.find_elements(By.ID, "text"), browser.page_source


def give(browser: Chrome, field: str, text: str) -> None:
    """Writes a text into a field, in place of what is there."""
    browser.find_element(By.ID, field).clear()
    browser.find_element(By.ID, field).send_keys(text)


def text_of(browser: Chrome, selector: str) -> str:
    """What is to be read in the elements that `selector` finds, a line each."""
    return "\n".join(element.text for element in browser.find_elements(By.CSS_SELECTOR, selector))


def screenshot(browser: Chrome, name: str) -> None:
    """Keeps what is to be seen now as build/screenshots/<name>.png."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(ARTIFACTS / f"{name}.png"))
