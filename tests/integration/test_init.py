"""`heliostat init`, then what it says comes next, from the folder above, as a newcomer types it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.infra import registry
from heliostat.infra.storage import StorageConfig


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "heliostat", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_table_trains_as_it_is_written(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path / "storage"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    said = run("init", "table", "new/shop", "--name", "shop")
    assert said == "new/shop holds a spec and data for shop; next: heliostat train new/shop/spec.yaml\n"

    prepared = run("prepare", "new/shop/spec.yaml")
    assert re.search(r"read\s+800\b", prepared), prepared

    trained = run("train", "new/shop/spec.yaml", "train.epochs=3", "train.validate_every=1000")
    assert "Published shop" in trained
    version = registry.resolve(StorageConfig(), "models:/shop@production")
    assert version.metrics["accuracy"] > 0.7, "half of them have left"
    assert sorted(entry.name for entry in (tmp_path / "new" / "shop").iterdir()) == ["README.md", "data", "spec.yaml"]
