"""What docs/tuning.md shows of a search: its page while it runs and its report, of a real search.

python -m tests.benchmarks.search_pictures
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By

from tests import tools
from tests.benchmarks.pictures import keep, opened
from tests.browser import chromium

SEARCH = ("tune", "tabular", "--search-only", "--search", "shown", "--page", "tune.trials=16", "tune.confirm=2")
ENOUGH = 8
"""Trials in the table of the page when the picture is taken."""
WIDTH, SECONDS = 1128, 300


def main() -> None:
    """Runs the search and takes both pictures."""
    tools.add_to_path()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        command = [sys.executable, "-m", "heliostat", *SEARCH, "tune.lag=1", f"storage.url={folder}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as search:
            assert search.stdout
            said = iter(search.stdout.readline, "")
            url = next(found[1] for line in said if (found := re.search(r"page of the search: (\S+)", line)))
            wait_for(browser, url)
            take(browser, "search-page", "curves")
            for _ in said:  # until it ends
                pass
        opened(browser, (Path(folder) / "runs/tabular/shown/report.html").as_uri())
        take(browser, "search-report", "importance")


def wait_for(browser: WebDriver, url: str) -> None:
    """Shows the page once it has some trials."""
    until = time.monotonic() + SECONDS
    opened(browser, url)
    while len(browser.find_elements(By.CSS_SELECTOR, "#trials tr")) <= ENOUGH or not browser.find_elements(
        By.ID, "curves"
    ):
        assert time.monotonic() < until, "the page shows no trials"
        time.sleep(0.5)
        opened(browser, url)


def take(browser: WebDriver, name: str, last: str) -> None:
    """Keeps the page from its top to the end of the element of that id."""
    bottom = browser.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().bottom", last)
    keep(browser, name, {"x": 0, "y": 0, "width": WIDTH, "height": bottom + 16})


if __name__ == "__main__":
    main()
