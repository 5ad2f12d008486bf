"""What docs/recipes.md shows of a recipe: a part of the report of its run, as a headless Chromium draws it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By

from tests.browser import chromium

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
PARTS = {
    "digits": "div.scroll:has(> table.matrix)",
    "images": "div.scroll:has(> table.matrix)",
    "gan": "table.examples img",
    "language-model": "section:has(> div > svg)",
    "chat": "section:has(> div > svg)",
}
"""CSS selector of the first element to show: a confusion matrix, images, a curve."""
CLASSES = "div.pair:has(table.matrix)"
"""Of classifiers of two or three classes: confusion matrix, precision and recall, reliability."""
PLACE = "const at = arguments[0].getBoundingClientRect(); return {x: at.x, y: at.y, width: at.width, height: at.height}"


def take_picture(recipe: str, report: Path) -> None:
    """Keeps the recipe's part of a report as `docs/pictures/RECIPE.png`."""
    with chromium() as browser:
        opened(browser, report.as_uri())
        place = browser.execute_script(PLACE, browser.find_element(By.CSS_SELECTOR, PARTS.get(recipe, CLASSES)))
        keep(browser, recipe, place)


def opened(browser: WebDriver, url: str) -> None:
    """Shows a page as wide as it gets."""
    browser.set_window_size(1128, 900)
    browser.get(url)


def keep(browser: WebDriver, name: str, place: Mapping[str, float]) -> None:
    """Keeps a part of the page that is shown as `docs/pictures/NAME.png`; `place` is in CSS pixels."""
    asked = {"captureBeyondViewport": True, "clip": {**place, "scale": 1}}
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.png").write_bytes(base64.b64decode(picture))
