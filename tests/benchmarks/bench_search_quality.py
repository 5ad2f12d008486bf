"""How good a search's winner is for what it trains: ASHA against a full grid, TPE against random values.

    python -m tests.benchmarks.bench_search_quality

Marks: with 16 configurations, ASHA with promotion ends within 1 % of the best of the full grid with at most 30 % of its
steps. TPE against random is reported over five seeds and two recipes: the best validation of each search, and the
interval of the difference, paired by seed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from heliostat.infra.storage.store import open_store
from heliostat.pipeline import prepare, sessions
from heliostat.pipeline.trial_jobs import TrialJobs
from heliostat.pipeline.tune import make_plan
from heliostat.spec import load_spec
from heliostat.tune.search import Search, search
from heliostat.tune.statistics import compare
from heliostat.view.terminal import View
from tests.benchmarks.record import record

MARK_LOSS, MARK_STEPS = 0.01, 0.3
SEEDS, TRIALS = 5, 12
GRID = "{learning_rate: {grid: [3e-4, 6e-4, 1e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2]}, weight_decay: {grid: [0.0, 0.3]}}"
SCHEDULERS = {"none": ("tune.scheduler=none",), "asha": ("tune.scheduler=asha", "tune.reduction_factor=3")}
RECIPES = {"tabular": ("tune.epochs=10",), "digits": ("train.precision=fp32", "data.limit=3000", "tune.epochs=2")}
QUIET = View(Console(quiet=True))


def main() -> None:
    """Runs both comparisons on each recipe."""
    with tempfile.TemporaryDirectory() as folder, sessions.session(load_spec("tabular")):
        halving = {recipe: halved(folder, recipe, settings) for recipe, settings in RECIPES.items()}
        searchers = {recipe: compared(folder, recipe, settings) for recipe, settings in RECIPES.items()}
    record("search_quality", {"asha_and_grid": halving, "tpe_and_random": searchers, "holds": holds(halving)})


def holds(halving: dict[str, Any]) -> bool:
    """Whether ASHA kept both marks on all recipes."""
    return all(one["worse_by"] <= MARK_LOSS and one["share_of_steps"] <= MARK_STEPS for one in halving.values())


def run(folder: str, recipe: str, name: str, settings: Sequence[str]) -> Search:
    """A search, two trials at a time."""
    spec = load_spec(recipe, [f"storage.url={folder}/storage", "train.workers=1", "tune.lag=1", *settings])
    prepared = prepare.run(spec, QUIET)
    plan = make_plan(spec, prepared, TrialJobs(spec, name, prepared), name)
    return search(plan, open_store(spec.storage), lambda _: None)


def halved(folder: str, recipe: str, settings: Sequence[str]) -> dict[str, Any]:
    """ASHA and every configuration in full, on the same 16."""
    both = [
        f"tune.space={GRID}",
        "tune.trials=16",
        "tune.search=grid",
        "tune.grace=0.1",
        *settings,
    ]
    found = {name: run(folder, recipe, f"{recipe}-{name}", [*both, *how]) for name, how in SCHEDULERS.items()}
    best = {name: one.objectives[0].best(one.best) for name, one in found.items()}
    return {
        "metric": found["none"].objectives[0].metric,
        "best_of_grid": best["none"],
        "best_of_asha": best["asha"],
        "worse_by": round(abs(best["none"] - best["asha"]) / abs(best["none"]), 4) if is_worse(found, best) else 0.0,
        "share_of_steps": round(steps(found["asha"]) / steps(found["none"]), 3),
    }


def is_worse(found: dict[str, Search], best: dict[str, float]) -> bool:
    """Whether ASHA's best is worse than that of the grid."""
    lower = found["none"].objectives[0].mode == "min"
    return best["asha"] > best["none"] if lower else best["asha"] < best["none"]


def steps(found: Search) -> int:
    """That all trials of a search trained."""
    return sum(trial.scores[-1].step for trial in found.trials if trial.scores)


def compared(folder: str, recipe: str, settings: Sequence[str]) -> dict[str, Any]:
    """The best of TRIALS full trials by TPE and by random values, seed by seed."""
    best: dict[str, list[float]] = {"tpe": [], "random": []}
    full = [*settings, f"tune.trials={TRIALS}", "tune.scheduler=none", "tune.grace=0.5"]
    for seed in range(SEEDS):
        for searcher, values in best.items():
            by = [f"tune.search={searcher}", f"tune.seed={seed}"]
            found = run(folder, recipe, f"{recipe}-{searcher}-{seed}", [*full, *by])
            objective = found.objectives[0]
            values.append(objective.best(found.best))
    gain = compare(dict(enumerate(best["tpe"])), dict(enumerate(best["random"])), objective.mode)
    return {
        "metric": objective.metric,
        **{name: {"best": values, "mean": statistics.fmean(values)} for name, values in best.items()},
        "said": gain.sentence("tpe", "random"),
        "is_real": gain.is_real,
    }


if __name__ == "__main__":
    main()
