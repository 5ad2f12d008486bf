"""`heliostat models` looks where the spec publishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.commands.common import published
from heliostat.spec import RECIPES


@pytest.mark.parametrize("rest", ["", "@canary", "/3"])
def test_a_spec_stands_for_its_name_and_its_storage(tmp_path: Path, rest: str) -> None:
    spec = tmp_path / "shop.yaml"
    spec.write_text((RECIPES / "sentiment.yaml").read_text() + f"\nstorage: {{url: {tmp_path}/elsewhere}}\n")
    name, storage = published(f"{spec}{rest}")
    assert name == f"sentiment{rest}"
    assert storage.url == f"{tmp_path}/elsewhere"


def test_a_name_is_looked_for_in_the_storage_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path))
    name, storage = published("sentiment@canary")
    assert (name, storage.url) == ("sentiment@canary", str(tmp_path))
