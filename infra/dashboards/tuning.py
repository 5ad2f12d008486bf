"""Panels of searches."""

from __future__ import annotations

from heliostat.infra.dashboards.grafana import Dashboard, Panel, Query, Variable
from heliostat.infra.dashboards.promql import rate, select
from heliostat.infra.metrics import of_tuning
from heliostat.infra.metrics.metric import Metric

MODEL = Variable("model", of_tuning.TRIALS.exposed)
SEARCH = Variable("search", f'{of_tuning.TRIALS.exposed}{{model=~"$model"}}')


OVER = 'state=~"finished|stopped|failed"'


def of_searches(metric: Metric, by: str = "", where: str = "") -> str:
    """A gauge of the chosen searches."""
    return f"max by (model, search{by and f', {by}'}) ({select(metric, where)})"


TRIALS = Panel(
    "Trials",
    "Trials of all chosen searches: those that wait, run, are paused by the scheduler, finished, were stopped, failed.",
    "short",
    (Query(f"sum by (state) ({of_searches(of_tuning.TRIALS, 'state')})", "{{state}}"),),
    is_stacked=True,
    decimals=0,
)
ENDED = Panel(
    "Trials that are over",
    "Share of each search's trials that are over, well or not.",
    "percentunit",
    (
        Query(
            f"sum by (model, search) ({select(of_tuning.TRIALS, OVER)}) / sum by (model, search) "
            f"({select(of_tuning.TRIALS)})",
            "{{model}} {{search}}",
        ),
    ),
    kind="stat",
    most=1,
)
FAILED = Panel(
    "Failed trials",
    "Trials of each search that failed; the table at its end says why.",
    "short",
    (Query(of_searches(of_tuning.TRIALS, where='state="failed"'), "{{model}} {{search}}"),),
    kind="stat",
    decimals=0,
    steps=(("green", None), ("orange", 1)),
)
BEST = Panel(
    "Best value",
    "Best value so far of the (first) metric that the search compares trials by.",
    "none",
    (Query(of_searches(of_tuning.BEST, "metric"), "{{model}} {{search}} {{metric}}"),),
    width=12,
    least=None,
)
TRIAL_SECONDS = Panel(
    "Time of a trial",
    "Seconds that the trial trained and validated that ended last, by how it ended.",
    "s",
    (Query(of_searches(of_tuning.TRIAL_SECONDS, "state"), "{{model}} {{search}} {{state}}"),),
    width=12,
)
GANGS = Panel(
    "Gangs",
    "Gangs of workers that run a trial, and those that the search would use (tune.concurrent): where fewer run for "
    "long, the cluster has no room for more.",
    "short",
    (
        Query(of_searches(of_tuning.TRIALS, where='state="running"'), "{{model}} {{search}} running"),
        Query(of_searches(of_tuning.GANGS_WANTED), "{{model}} {{search}} wanted"),
    ),
    width=12,
    decimals=0,
)
BUSY = Panel(
    "Use of gangs",
    "Gangs that train or validate, on average: below those that run, time goes into starting workers and beginning "
    "trials. The seconds of a validation's part of a trial are added after it.",
    "short",
    (Query(rate(of_tuning.BUSY_SECONDS, "model, search"), "{{model}} {{search}}"),),
    width=12,
)

TUNING = Dashboard(
    "heliostat-tuning",
    "Heliostat: tuning",
    "Searches: how far they are, what they have found, and what they do with their workers.",
    (MODEL, SEARCH),
    (("Trials", (TRIALS, ENDED, FAILED, BEST, TRIAL_SECONDS)), ("Workers", (GANGS, BUSY))),
)
