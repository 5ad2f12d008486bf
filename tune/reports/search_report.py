"""A search as one self-contained HTML page: no network, no scripts, inline SVG, light and dark.

Values, names and errors are untrusted text, so Jinja2 escapes everything, and the page forbids scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from heliostat.train.evaluation.report.page import figure, percent
from heliostat.tune.choice import told
from heliostat.tune.price import usd
from heliostat.tune.reports.drawing import subject
from heliostat.tune.reports.importance import Importances, of_page
from heliostat.tune.reports.parallel import parallel
from heliostat.tune.reports.plots import curves, pareto, slices
from heliostat.tune.reports.spent import hours
from heliostat.tune.reports.table import Row, best_score
from heliostat.tune.reports.times import sums, times
from heliostat.tune.state import PageState
from heliostat.tune.trials import Objective, Trial

FOLDERS = (Path(__file__).parent, Path(__file__).parents[2] / "train" / "evaluation" / "report")
"""Folders of the page's templates, and of the styles and scales that it shares with reports of runs."""


def render(page: PageState, refresh_seconds: int | None = None, known: Sequence[Importances] | None = None) -> str:
    """The page; one that renews itself says that the search is running. `known` importances are not found out anew."""
    of = subject(page)
    search = page.search
    best = next((row for row in of.rows if row.is_chosen), None)
    return _template().render(
        page=page,
        of=of,
        facts=facts(page),
        best=best,
        best_metrics=_metrics_of(search.chosen, search.objectives),
        verdict=search.verdict,
        shorter=shorter(page),
        curves=curves(of),
        parallel=parallel(of),
        importances=of_page(page) if known is None else known,
        slices=slices(of),
        pareto=pareto(of, search.front),
        front=search.front,
        times=times(of.rows),
        sums=sums(of.rows),
        with_cost=any(row.cost is not None for row in of.rows),
        refresh_seconds=refresh_seconds,
    )


def _metrics_of(chosen: Trial | None, objectives: Sequence[Objective]) -> Mapping[str, float]:
    """The metrics of the trial that is taken, their means if its configuration has several runs."""
    found = best_score(chosen, objectives) if chosen else None
    return found.metrics if found else {}


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDERS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, percent=percent, number=number, value=value, amount=amount, origin=origin)
    return environment.get_template("search_report.html")


def facts(page: PageState) -> dict[str, str]:
    """What is known of the whole search, and its provenance."""
    search = page.search
    found = {
        "trials": f"{len(search.trials):,} of {search.wanted:,}",
        "time": duration(search.elapsed_seconds),
        "worker-hours": hours(search),
        **({} if search.cost is None else {"cost": usd(search.cost)}),
        "compared by": ", ".join(f"{one.metric} ({one.mode})" for one in search.objectives),
        **({"taken by": told(search.rule)} if len(search.objectives) > 1 or search.rule != "first" else {}),
    }
    return {**found, **page.facts}


def shorter(page: PageState) -> str:
    """What to know where trials are shorter than the run that their winner is for; empty if they are not."""
    trial, train = page.trial_epochs, page.train_epochs
    if trial is None or train is None or trial >= train:
        return ""
    epochs = f"{trial:g} {'epoch' if trial == 1 else 'epochs'} at most (tune.epochs)"
    return (
        f"A trial has {epochs}, the run that its winner is for has {train:g} (train.epochs): over the longer run the "
        "best learning rate may shift, mostly to a lower one. Where it matters, search with tune.epochs left out, or "
        "train the neighbours of the best as well."
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def number(value: float) -> str:
    """A number with four significant digits."""
    return f"{value:.4g}"


def value(value: Any) -> str:
    """A value that was tried."""
    return number(value) if isinstance(value, float) else str(value)


def amount(cost: float | None) -> str:
    """Money; a dash where it is not known."""
    return "–" if cost is None else f"{cost:.4g}"


def origin(row: Row) -> str:
    """The trial whose weights a trial took over last, and what these were trained with before its own values."""
    taken = [f"trial {row.origin.trial} at {row.origin.share:.0%}"] if row.origin else []
    parts = [(until, ", ".join(f"{key} {value(one)}" for key, one in values.items())) for until, values in row.past]
    return "; ".join([*taken, *(f"until {until:.0%} {values}" for until, values in parts)])
