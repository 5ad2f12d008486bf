"""What docs/recipes.md shows of a recipe: a part of the report of its run, as a headless Chromium draws it."""

from __future__ import annotations

import base64
from pathlib import Path

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
    PICTURES.mkdir(exist_ok=True)
    with chromium() as browser:
        browser.set_window_size(1128, 900)  # as wide as the page gets
        browser.get(report.as_uri())
        place = browser.execute_script(PLACE, browser.find_element(By.CSS_SELECTOR, PARTS.get(recipe, CLASSES)))
        asked = {"captureBeyondViewport": True, "clip": {**place, "scale": 1}}
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
    (PICTURES / f"{recipe}.png").write_bytes(base64.b64decode(picture))
