"""What docs/recipes.md shows of a recipe: a part of the report of its run, as a headless Chromium draws it."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver.common.by import By

from tests.browser import chromium

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
PARTS = {
    "digits": "section:has(> div > table.matrix)",
    "images": "section:has(> div > table.matrix)",
    "gan": "table.examples",
    "language-model": "section:has(> div > svg)",
    "chat": "section:has(> div > svg)",
}
"""CSS selector of the first element to show: a confusion matrix, images, a curve."""
CLASSES = "div.pair:has(table.matrix)"
"""Of classifiers of two or three classes: confusion matrix, precision and recall, reliability."""
WINDOW = 1128, 2000
"""Width and height in pixels: the page's own width, and enough for the tallest part."""


def take_picture(recipe: str, report: Path) -> Path:
    """Keeps the recipe's part of a report, and returns where."""
    PICTURES.mkdir(exist_ok=True)
    target = PICTURES / f"{recipe}.png"
    with chromium() as browser:
        browser.set_window_size(*WINDOW)
        browser.get(report.as_uri())
        browser.find_element(By.CSS_SELECTOR, PARTS.get(recipe, CLASSES)).screenshot(str(target))
    return target
