"""The part of the catalogue about searches, which the process of `heliostat tune` exports."""

from __future__ import annotations

from heliostat.infra.metrics.metric import Label, Metric

_SEARCH = ("model", "search")
TRIALS = Metric(
    "heliostat_tune_trials",
    "gauge",
    "1",
    "Trials of a search, by state.",
    "How far a search is, what the scheduler saves, and whether trials fail.",
    (*_SEARCH, "state"),
)
GANGS_WANTED = Metric(
    "heliostat_tune_gangs_wanted",
    "gauge",
    "1",
    "Gangs of workers that the search would use now: what `tune.lag` and `tune.concurrent` allow, or the trials left.",
    "Whether the cluster has room for them: as many trials should run.",
    _SEARCH,
)
BUSY_SECONDS = Metric(
    "heliostat_tune_busy_seconds_total",
    "counter",
    "seconds",
    "Seconds in which gangs trained and validated, over all of them; those of a validation's trial are added after it.",
    "What of the workers' time goes into trials, rather than into starting and waiting.",
    _SEARCH,
)
TRIAL_SECONDS = Metric(
    "heliostat_tune_trial_seconds",
    "gauge",
    "seconds",
    "Seconds that the trial trained and validated that ended last in this state.",
    "When a search will be over.",
    (*_SEARCH, "state"),
)
BEST = Metric(
    "heliostat_tune_best",
    "gauge",
    "1",
    "Best value so far of the (first) metric that the search compares trials by, at their last validations.",
    "Whether further trials are worth it.",
    (*_SEARCH, "metric"),
)

TRIAL_STATES = ("waiting", "running", "paused", "finished", "stopped", "failed")
LABELS = {
    "search": Label("Id of the search; a process has one."),
    "metric": Label("What a search compares trials by; one for each task."),
}
METRICS = (TRIALS, GANGS_WANTED, BUSY_SECONDS, TRIAL_SECONDS, BEST)
