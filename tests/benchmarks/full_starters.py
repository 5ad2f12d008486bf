"""The kinds of `heliostat init`, each trained as it is written: `python -m tests.benchmarks.full_starters`.

It takes ten minutes, and is not part of `make bench`. What was measured is in `results/full_starters.json`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from heliostat.infra.registry import registry
from heliostat.spec import load_spec
from heliostat.starters.catalog import STARTERS
from tests.benchmarks.record import record

PROGRAM = Path(sys.executable).with_name("heliostat")


def heliostat(folder: Path, *arguments: str) -> None:
    """Runs a command in the folder, as one types it there."""
    subprocess.run([str(PROGRAM), *arguments], cwd=folder, check=True)


def trained(kind: str, folder: Path) -> float:
    """Writes the kind into an empty folder, and trains it; returns the seconds that training took."""
    heliostat(folder, "init", kind, ".", "--name", kind)
    started = time.monotonic()
    heliostat(folder, "train", "spec.yaml", f"storage.url={folder / 'storage'}")
    return time.monotonic() - started


def measured(kind: str) -> dict[str, Any]:
    """How long the kind trains, in seconds, and what the version that came of it scored on its test split."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = trained(kind, folder)
        spec = load_spec(folder / "spec.yaml", (f"storage.url={folder / 'storage'}",))
        version = registry.resolve(spec.storage, f"models:/{kind}@production")
    return {"seconds": round(seconds), "test": version.metrics}


def main() -> None:
    """Trains all kinds, one after another, and records them."""
    record("full_starters", {kind: measured(kind) for kind in STARTERS})


if __name__ == "__main__":
    main()
