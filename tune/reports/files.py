"""The trials of a search as CSV and JSON, with the same columns whatever happened in it.

Fixed columns come first, then those of the space (`values.KEY`), then the metrics (`best.METRIC`, `last.METRIC`).
`mean` to `behind_high` are of the first objective over the seeds of a configuration, in the row of its first trial;
`behind` is how much better the best one is, with the ends of its interval.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

from heliostat.tune.reports.table import Row, rows
from heliostat.tune.state import SearchState

FIXED: dict[str, Callable[[Row], Any]] = {
    "trial": lambda row: row.number,
    "state": lambda row: row.state,
    "reason": lambda row: row.reason,
    "share": lambda row: row.share,
    "steps": lambda row: row.steps,
    "repeated_steps": lambda row: row.repeated_steps,
    "seconds": lambda row: round(row.seconds, 3),
    "cost": lambda row: None if row.cost is None else round(row.cost, 6),
    "chosen": lambda row: row.is_chosen,
    "front": lambda row: row.is_front,
    "origin_trial": lambda row: row.origin.trial if row.origin else None,
    "origin_share": lambda row: row.origin.share if row.origin else None,
    "past": lambda row: [{"until": until, "values": dict(values)} for until, values in row.past] or None,
    "configuration": lambda row: row.configuration,
    "role": lambda row: row.role,
    "seed": lambda row: row.seed,
    "mean": lambda row: row.standing.over_seeds.mean if row.standing else None,
    "deviation": lambda row: row.standing.over_seeds.deviation if row.standing else None,
    "runs": lambda row: row.standing.over_seeds.runs if row.standing else None,
    "failed_runs": lambda row: row.standing.over_seeds.failed if row.standing else None,
    "behind": lambda row: row.standing.behind.mean if row.standing and row.standing.behind else None,
    "behind_low": lambda row: row.standing.behind.low if row.standing and row.standing.behind else None,
    "behind_high": lambda row: row.standing.behind.high if row.standing and row.standing.behind else None,
}
"""Column -> the value of a row; None is an empty cell."""


def to_csv(state: SearchState) -> str:
    """The trials as CSV, best first, a line each; lists, null and truth values are written as in JSON."""
    text, found = io.StringIO(), rows(state)
    names = {"values": state.searched, **dict.fromkeys(("best", "last"), metrics(state))}
    writer = csv.writer(text)
    writer.writerow([*FIXED, *(f"{part}.{name}" for part in names for name in names[part])])
    for row in found:
        fixed = [_cell(value(row), "") for value in FIXED.values()]
        writer.writerow(
            [*fixed, *(_cell(getattr(row, part).get(name, ""), "null") for part in names for name in names[part])]
        )
    return text.getvalue()


def to_json(state: SearchState) -> str:
    """The trials as a JSON array of objects, best first, in which `values`, `best` and `last` are objects.

    NaN and infinity, which JSON lacks, are null.
    """
    found = [
        {
            **{name: _plain(value(row)) for name, value in FIXED.items()},
            **{part: _plain(dict(getattr(row, part))) for part in ("values", "best", "last")},
        }
        for row in rows(state)
    ]
    return json.dumps(found, indent=2, allow_nan=False, default=str) + "\n"


def metrics(state: SearchState) -> list[str]:
    """The names of all metrics, sorted; the objectives are among them before any trial has been validated."""
    measured = {name for trial in state.trials for score in trial.scores for name in score.metrics}
    return sorted(measured | {objective.metric for objective in state.objectives})


def _cell(value: Any, nothing: str) -> Any:
    if value is None:
        return nothing
    return json.dumps(_plain(value), default=str) if isinstance(value, list | tuple | dict | bool) else value


def _plain(value: Any) -> Any:
    """The value as JSON has it: no tuples, no NaN and infinity."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
