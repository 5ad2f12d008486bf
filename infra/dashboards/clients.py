"""Panels about who asks endpoints, and about experiments: rows of the serving dashboard."""

from __future__ import annotations

from heliostat.infra.dashboards.grafana import Panel, Query
from heliostat.infra.dashboards.promql import rate, select
from heliostat.infra.metrics import of_clients

KEY_REQUESTS = Panel(
    "Requests by key",
    "Requests each second by the name of their API key, those over its limit included.",
    "reqps",
    (Query(rate(of_clients.KEY_REQUESTS, "key"), "{{key}}"),),
    is_stacked=True,
)
KEY_TOKENS = Panel(
    "Tokens by key",
    "Tokens, read and written, that the requests of each API key cost; 1 for an input that is no text.",
    "suffix: tokens/s",
    (Query(rate(of_clients.KEY_TOKENS, "key"), "{{key}}"),),
    is_stacked=True,
)
EXPLANATIONS = Panel(
    "Explanations",
    "Inputs explained each second; each costs many passes of the model.",
    "suffix: inputs/s",
    (Query(rate(of_clients.EXPLANATIONS, "model"), "{{model}}"),),
)
OUTCOMES = Panel(
    "Experiment",
    "Requests each second of the versions that are compared, and those that failed; zero without an experiment.",
    "reqps",
    (Query(rate(of_clients.EXPERIMENT_REQUESTS, "model, arm, result"), "{{model}} {{arm}} {{result}}"),),
)
FEEDBACK = Panel(
    "Feedback",
    "Ratings each second of the versions that are compared, and their sum: as high where all are good (1), zero where "
    "all are bad (0).",
    "short",
    (
        Query(rate(of_clients.FEEDBACK, "model, arm"), "{{model}} {{arm}} ratings"),
        Query(rate(of_clients.FEEDBACK_VALUE, "model, arm"), "{{model}} {{arm}} sum"),
    ),
)
ROLLBACKS = Panel(
    "Rolled back",
    "Replicas that heard in the last hour that a candidate was worse and is taken away.",
    "short",
    (Query(f"sum by (model) (increase({select(of_clients.EXPERIMENT_ROLLBACKS)}[1h]))", "{{model}}"),),
    kind="stat",
    decimals=0,
    steps=(("green", None), ("orange", 0.5)),
)

CLIENTS = ("Clients", (KEY_REQUESTS, KEY_TOKENS, EXPLANATIONS))
EXPERIMENTS = ("Experiments", (OUTCOMES, FEEDBACK, ROLLBACKS))
