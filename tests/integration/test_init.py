"""What `heliostat init` writes trains as it is: one kind by the commands, the others in one Ray, on one worker."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from heliostat.infra.registry import registry
from heliostat.infra.registry.registry import ModelVersion
from heliostat.pipeline import prepare, sessions, train
from heliostat.serve.models.bundles import fetched
from heliostat.spec import Spec, load_spec
from heliostat.starters.catalog import STARTERS
from heliostat.starters.write import start
from heliostat.train import tasks
from heliostat.view.terminal import View
from tests.integration.tiny_models import generator

TYPED = "table"
"""The kind that is trained by the commands."""
OTHERS = [kind for kind in STARTERS if kind != TYPED]
STEPS = 10
FEW_STEPS = [f"train.max_steps={STEPS}", "train.validate_every=1000", "train.workers=1"]
"""Two workers train one of each kind in test_recipes.py."""
INSTEAD = {"chat": ["model.source=decoder"]}
"""A base model that is tiny, for the one of 135 million parameters."""
QUIET = View(Console(quiet=True))


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "heliostat", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def published(spec: Spec) -> ModelVersion:
    """The version that training a new starter has made: whole, measured, and of splits that are not empty."""
    prepared = prepare.prepared_data(spec)
    assert prepared
    assert all(prepared.counts[split] > 0 for split in ("train", "validation", "test")), prepared.counts
    version = registry.resolve(spec.storage, f"models:/{spec.name}@production")
    assert version.version == 1
    assert tasks.get(spec.task).metric in version.metrics
    assert all(map(math.isfinite, version.metrics.values())), version.metrics
    with fetched(version.url, version.digest, spec.storage.endpoint_url) as files:
        assert files.description.data_fingerprint == prepared.fingerprint
    return version


def test_the_table_trains_as_it_is_written(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path / "storage"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    said = run("init", TYPED, "new/shop", "--name", "shop")
    assert said == "new/shop holds a spec and data for shop; next: heliostat train new/shop/spec.yaml\n"

    prepared = run("prepare", "new/shop/spec.yaml")
    assert re.search(r"read\s+800\b", prepared), prepared

    trained = run("train", "new/shop/spec.yaml", "train.epochs=3", "train.validate_every=1000")
    assert "Published shop" in trained
    assert published(load_spec("new/shop/spec.yaml")).metrics["accuracy"] > 0.7, "half of them have left"
    assert sorted(entry.name for entry in (tmp_path / "new" / "shop").iterdir()) == ["README.md", "data", "spec.yaml"]


@pytest.fixture(scope="module")
def specs(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Spec]]:
    """The other kinds with few steps and one worker, and a Ray that they are trained in."""
    folder = tmp_path_factory.mktemp("starters")
    generator(folder / "decoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HELIOSTAT_STORAGE", str(folder / "storage"))
        patch.delenv("RAY_ADDRESS", raising=False)
        for kind in OTHERS:
            start(kind, Path(kind), None)
        assert {load_spec(f"{kind}/spec.yaml").train.workers.min for kind in OTHERS} == {2}
        loaded = {kind: load_spec(f"{kind}/spec.yaml", [*FEW_STEPS, *INSTEAD.get(kind, [])]) for kind in OTHERS}
        with sessions.session(loaded[OTHERS[0]]):
            yield loaded


@pytest.mark.parametrize("kind", OTHERS)
def test_each_other_kind_trains_as_it_is_written(specs: dict[str, Spec], kind: str) -> None:
    spec = specs[kind]
    trained = train.run(spec, prepare.run(spec, QUIET), QUIET)
    assert max(trained.curves["train/loss"]) == STEPS
    assert published(spec).digest == trained.model.digest
