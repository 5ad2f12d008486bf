"""What holds for all tests: those that need a tool of the system which is not here are counted at the end."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests import tools


def pytest_configure(config: pytest.Config) -> None:
    """Makes the tools that `make test` has unpacked be found, and a worker's environment like that of one process."""
    tools.add_to_path()
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.pop("COLUMNS", None)  # set by pytest-xdist; commands would break their lines there


LONGEST_FIRST = (
    "test_recipes.py",
    "test_main_job.py",
    "test_cluster_detached.py",
    "test_training.py",
    "test_init.py",
    "test_serve_lifecycle.py",
)
"""Files of minutes. One that is begun last leaves the other worker without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that take longest."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture
def signals_heeded() -> Iterator[None]:
    """This process and those that it starts heed Ctrl-C and SIGHUP, also where the tests run in the background."""
    handlers: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    ignored = [one for one in handlers if signal.getsignal(one) is signal.SIG_IGN]
    for one in ignored:
        signal.signal(one, handlers[one])
    yield
    for one in ignored:
        signal.signal(one, signal.SIG_IGN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts the tests that were skipped for what is not here, and says how to have it."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    lacking = Counter(reason.partition(tools.LACK)[2] for reason in reasons if tools.LACK in reason)
    if lacking:
        counts = ", ".join(f"{tool} ({count})" for tool, count in sorted(lacking.items()))
        how = tools.how_to_install(lacking)
        total = sum(lacking.values())
        terminalreporter.write_line(f"Tests skipped for lack of a tool, {total} in all: {counts}; install with: {how}")
