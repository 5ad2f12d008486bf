"""A recipe on all of its data, timed: `python -m tests.benchmarks.full_recipe sentiment`; not part of `make bench`.

It takes the better part of an hour on two cores. What it measured is in `results/full_<recipe>.json`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from heliostat.infra import registry
from heliostat.spec import Spec, load_spec
from tests.benchmarks.record import record

MARKS = {"sentiment": {"accuracy": 0.90}}


def measured(spec: Spec, seconds: float) -> dict[str, Any]:
    """What the version that was trained and promoted scored on its test split, and how long that took."""
    version = registry.resolve(spec.storage, f"models:/{spec.name}@production")
    return {"recipe": spec.name, "seconds": round(seconds), "test": version.metrics, "marks": MARKS.get(spec.name, {})}


def main(recipe: str) -> None:
    """Trains the recipe in full in an empty folder, and records it."""
    with tempfile.TemporaryDirectory() as folder:
        spec = load_spec(recipe, (f"storage.url={Path(folder) / 'storage'}",))
        started = time.monotonic()
        program = Path(sys.executable).with_name("heliostat")
        subprocess.run([str(program), "train", recipe, f"storage.url={spec.storage.url}"], cwd=folder, check=True)
        record(f"full_{recipe}", measured(spec, time.monotonic() - started))


if __name__ == "__main__":
    main(sys.argv[1])
