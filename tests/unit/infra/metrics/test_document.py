from __future__ import annotations

from pathlib import Path

from heliostat.infra.metrics.document import page

PAGE = Path(__file__).resolve().parents[4] / "docs" / "metrics.md"


def test_the_page_is_that_of_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m heliostat.infra.metrics.document > docs/metrics.md"
