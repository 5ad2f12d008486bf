"""The dashboards' page as a person sees it: a server of it, and a headless Chromium in front."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from heliostat.cluster.monitor.page.server import Server
from tests.waiting import until

WIDTH, HEIGHT = 1400, 4800
"""So high that all panels are in sight: those that are not are not asked for."""
STATES = "return [...document.querySelectorAll('.panel')].map(one => [one.querySelector('h3').textContent, one.dataset.state, one.querySelector('.says')?.textContent ?? '', one.querySelector('.unknown').textContent])"  # noqa: E501


@contextmanager
def page_server(prometheus: str, dashboards: Path, scrape_seconds: float = 1) -> Iterator[str]:
    """The address of a page that asks `prometheus`. A rate is over four scrapes, a point for each or for more."""
    with Server(0, prometheus, dashboards, scrape_seconds) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def open_dashboard(browser: Chrome, url: str) -> None:
    """Opens a dashboard's address, and returns once each panel has its answer."""
    browser.set_window_size(WIDTH, HEIGHT)
    browser.get(url)
    until(lambda: (now := states(browser)) and "loading" not in {state for _, state, *_ in now}, "all panels", 60)


def states(browser: Chrome) -> list[tuple[str, str, str, str]]:
    """Of each panel: title, state, what it says in place of data, and what it says that the page does not know."""
    return [tuple(one) for one in browser.execute_script(STATES)]


def panel(browser: Chrome, title: str) -> WebElement:
    """The panel of this title."""
    found = browser.find_elements(By.CSS_SELECTOR, ".panel")
    return next(one for one in found if one.find_element(By.TAG_NAME, "h3").text == title)


def pixels(element: WebElement) -> Any:
    """An image of the element as it is to be seen now."""
    return Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")


def colours(image: Any) -> int:
    """How many pixels differ from the commonest colour, which is the ground."""
    counts = sorted(count for count, _ in image.getcolors(maxcolors=image.width * image.height))
    return sum(counts[:-1])


def set_scheme(browser: Chrome, scheme: str) -> None:
    """As a person's system says: `light` or `dark`."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def take_picture(browser: Chrome, file: Path) -> None:
    """Keeps the whole page as a PNG of few colours."""
    browser.set_window_size(WIDTH, browser.execute_script("return document.body.scrollHeight") + 8)
    size = {name: browser.execute_script(f"return document.body.{name}") for name in ("scrollWidth", "scrollHeight")}
    clip = {"x": 0, "y": 0, "width": size["scrollWidth"], "height": size["scrollHeight"], "scale": 1}
    asked = {"captureBeyondViewport": True, "clip": clip}
    image = Image.open(io.BytesIO(base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"])))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.convert("RGB").quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, optimize=True)
