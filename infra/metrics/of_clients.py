"""The part of the catalogue about who asks and what they think of the answers: keys, experiments, feedback."""

from __future__ import annotations

from heliostat.infra.metrics.metric import Label, Metric

_MODEL = ("model", "version")
KEY_REQUESTS = Metric(
    "heliostat_key_requests_total",
    "counter",
    "requests",
    "Requests that came with an API key, by its name, those over its limit included.",
    "Who uses an endpoint, and whom to ask about load.",
    (*_MODEL, "key"),
)
KEY_TOKENS = Metric(
    "heliostat_key_tokens_total",
    "counter",
    "tokens",
    "Tokens, read and written, that requests with an API key cost; 1 for an input that is no text.",
    "What to charge to whom.",
    (*_MODEL, "key"),
)
EXPERIMENT_REQUESTS = Metric(
    "heliostat_experiment_requests_total",
    "counter",
    "requests",
    "Requests that count in an experiment, by the version that answered and how it ended.",
    "Whether the candidate fails more often than the baseline, and gets its share.",
    (*_MODEL, "arm", "result"),
)
EXPERIMENT_ROLLBACKS = Metric(
    "heliostat_experiment_rollbacks_total",
    "counter",
    "1",
    "Times that this replica heard that the candidate was worse than the baseline and is taken away.",
    "Whether a canary was rolled back.",
    _MODEL,
)
FEEDBACK = Metric(
    "heliostat_feedback_total",
    "counter",
    "1",
    "Ratings by clients (/v1/feedback) that count in an experiment, by the version that is rated.",
    "Whether there are enough ratings to tell.",
    (*_MODEL, "arm"),
)
FEEDBACK_VALUE = Metric(
    "heliostat_feedback_value_total",
    "counter",
    "1",
    "Sum of these ratings, of which each is from 0 (bad) to 1 (good).",
    "Which version clients like better: their mean, by the number of ratings.",
    (*_MODEL, "arm"),
)
EXPLANATIONS = Metric(
    "heliostat_explanations_total",
    "counter",
    "inputs",
    "Inputs that were explained (/v1/explain).",
    "How much explanations are used; each costs many passes.",
    _MODEL,
)

OTHER_KEYS = "other"
MOST_KEYS = 50
"""Keys that a replica tells apart."""
LABELS = {
    "key": Label(
        f"Name of an API key; a replica names the first {MOST_KEYS} that it knows, and `other`.", (OTHER_KEYS,)
    ),
    "arm": Label("Which version of an experiment.", ("baseline", "candidate")),
    "result": Label("How a request ended for its version; clients' own faults count nowhere.", ("answered", "failed")),
}
METRICS = (
    KEY_REQUESTS,
    KEY_TOKENS,
    EXPERIMENT_REQUESTS,
    EXPERIMENT_ROLLBACKS,
    FEEDBACK,
    FEEDBACK_VALUE,
    EXPLANATIONS,
)
