"""A recipe on all of its data, timed: `python -m tests.benchmarks.full_recipe sentiment`; not part of `make bench`.

`gan` trains `digits` before, which judges its images. What was measured is in `results/full_<recipe>.json`, and a
picture from the run's report in `docs/pictures`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heliostat.infra.registry import registry
from heliostat.spec import Spec, load_spec
from tests.benchmarks.judging import against_base, against_ngrams, judge
from tests.benchmarks.pictures import take_picture
from tests.benchmarks.record import record

MARKS = {
    "tabular": ("accuracy >= 0.95", "roc_auc >= 0.98"),
    "digits": ("accuracy >= 0.97",),
    "images": ("accuracy >= 0.8571",),
    "reviews-lstm": ("accuracy >= 0.86",),
    "sentiment": ("accuracy >= 0.90",),
    "gan": ("judged_confident_share >= 0.9", "judged_classes >= 10", "judged_largest_share <= 0.2"),
    "language-model": ("perplexity <= ngram_perplexity",),
    "chat": ("loss <= base_loss",),
}
"""What the test split must show of each: a figure, and a number or another figure."""
BEFORE = {"gan": ("digits",)}
FURTHER: dict[str, Callable[[Spec], dict[str, Any]]] = {
    "gan": judge,
    "language-model": against_ngrams,
    "chat": against_base,
}


def measured(spec: Spec, seconds: float) -> dict[str, Any]:
    """What the version that was trained and promoted scored on its test split, and how long that took."""
    version = registry.resolve(spec.storage, f"models:/{spec.name}@production")
    further = FURTHER[spec.name](spec) if spec.name in FURTHER else {}
    test = {**version.metrics, **further}
    return {"recipe": spec.name, "seconds": round(seconds), "test": test, "marks": marks(spec.name, test)}


def marks(recipe: str, test: Mapping[str, Any]) -> dict[str, bool]:
    """Whether the figures of a recipe reach its marks."""
    return {mark: reached(mark, test) for mark in MARKS[recipe]}


def reached(mark: str, test: Mapping[str, Any]) -> bool:
    """Whether the figures hold what a mark such as `accuracy >= 0.95` says."""
    name, sign, bound = mark.split()
    value, limit = test[name], test[bound] if bound in test else float(bound)
    return bool(value >= limit if sign == ">=" else value <= limit)


def main(recipe: str) -> None:
    """Trains the recipe in full in an empty folder, and records it."""
    with tempfile.TemporaryDirectory() as folder:
        spec = load_spec(recipe, (f"storage.url={Path(folder) / 'storage'}",))
        program = Path(sys.executable).with_name("heliostat")
        for name in (*BEFORE.get(recipe, ()), recipe):
            started = time.monotonic()
            subprocess.run([str(program), "train", name, f"storage.url={spec.storage.url}"], cwd=folder, check=True)
            seconds = time.monotonic() - started
        record(f"full_{recipe}", measured(spec, seconds))
        take_picture(recipe, next(Path(folder).glob(f"storage/runs/{recipe}/*/report.html")))


if __name__ == "__main__":
    main(sys.argv[1])
