"""All metrics that Heliostat exports: name, kind, unit, labels, buckets, and what each is for.

Processes export them through Ray's metrics agent (`export.py`), so that each worker and replica is scraped on its own
node; Prometheus sees each name with the prefix `ray_`. What belongs to no process goes through the exporter
(`infra/exporter`), without a prefix. Dashboards, rules, the page docs/metrics.md and tests read this
catalogue. A histogram's bounds stand here only: of two processes of a node with other bounds, Ray's agent drops one.
"""

from __future__ import annotations

from heliostat.infra.metrics import of_clients, of_storage, of_training, of_tuning
from heliostat.infra.metrics.metric import Label, Metric

LABELS = {
    "model": Label("Name of the model; one for each spec."),
    "version": Label("Version of the model; one for each replica."),
    "adapter": Label(
        "`name@version` of the adapter that answers, empty for the model itself; those of the spec.", ("",)
    ),
    "status": Label(
        "HTTP status of the answer; 499 where the client left.",
        ("200", "400", "401", "403", "404", "413", "422", "429", "499", "500", "503", "504"),
    ),
    "kind": Label(
        "Tokens read (`prompt`), those of them unknown to a classifier's tokenizer (`unknown`), and written "
        "(`completion`).",
        ("prompt", "unknown", "completion"),
    ),
    "phase": Label(
        "A request waits for its turn (`queue`), then its pass is computed (`compute`), or its prompt is read "
        "(`prefill`) and its answer written (`decode`).",
        ("queue", "compute", "prefill", "decode"),
    ),
    "state": Label(
        "Sequences that are computed (`running`), and those that wait for a place (`waiting`). Of a run: `running`, "
        "`finished`, `interrupted` (no process drives it, and it can be resumed), `unread` (not looked at yet). Of a "
        "trial: `waiting`, `running`, `finished`, `stopped` early by the scheduler, `failed`."
    ),
    "outcome": Label(
        "Prompt tokens that were looked up in the prefix cache (`queried`), and found (`hit`).", ("queried", "hit")
    ),
    "reason": Label(
        "`error.code` of the answer: a fixed set.",
        (
            "context_length_exceeded",
            "expired_api_key",
            "invalid_api_key",
            "invalid_value",
            "model_not_allowed",
            "model_not_found",
            "rate_limit_exceeded",
            "request_timeout",
            "request_too_large",
            "timeout",
            "unhealthy",
        ),
    ),
    "objective": Label("`latency`, or `first_token`."),
    "quantile": Label("`p50`, `p90`, `p95` or `p99`."),
    "column": Label(
        "A column of a table, a statistic of a text or an image, `prediction.label` or `prediction.score`; 52 at most."
    ),
    "verdict": Label(
        "Columns are like the training split (`stable`), differ from it (`drifted`), have had too few rows "
        "(`too_few`), or are beyond those that are counted (`left_out`).",
        ("stable", "drifted", "too_few", "left_out"),
    ),
    **of_clients.LABELS,
    **of_storage.LABELS,
    **of_training.LABELS,
    **of_tuning.LABELS,
}
"""Each label that a metric may have."""

_LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
_MODEL = ("model", "version")
_ANSWER = (*_MODEL, "adapter")

REQUESTS = Metric(
    "heliostat_requests_total",
    "counter",
    "requests",
    "Requests answered, by HTTP status.",
    "How much is asked, and the error budget: 5xx of all but those that clients gave up (499).",
    (*_ANSWER, "status"),
)
REQUEST_SECONDS = Metric(
    "heliostat_request_seconds",
    "histogram",
    "seconds",
    "Seconds from request to last byte.",
    "Whether answers are as fast as promised.",
    _ANSWER,
    _LATENCY_SECONDS,
)
ONGOING_REQUESTS = Metric(
    "heliostat_ongoing_requests",
    "gauge",
    "requests",
    "Requests that a replica holds now.",
    "How full replicas are; autoscaling follows it.",
    _MODEL,
)
BATCH_SIZE = Metric(
    "heliostat_batch_size",
    "histogram",
    "inputs",
    "Inputs in one pass of the model.",
    "Whether requests share passes, as they should under load.",
    _MODEL,
    (1, 2, 4, 8, 16, 32, 64, 128),
)
REJECTED_REQUESTS = Metric(
    "heliostat_rejected_requests_total",
    "counter",
    "requests",
    "Requests that were refused or given up, by reason.",
    "Whether clients are wrong, limits too low or replicas too few.",
    (*_MODEL, "reason"),
)
REQUEST_PHASE_SECONDS = Metric(
    "heliostat_request_phase_seconds",
    "histogram",
    "seconds",
    "Seconds that an input or a sequence spends in each phase.",
    "Whether a slow answer waited or was computed slowly.",
    (*_MODEL, "phase"),
    _LATENCY_SECONDS,
)
LOAD_SECONDS = Metric(
    "heliostat_load_seconds",
    "gauge",
    "seconds",
    "Seconds from the start of a replica's process until it could answer.",
    "How long a cold start and a scale-up take.",
    _MODEL,
)
TOKENS = Metric(
    "heliostat_tokens_total",
    "counter",
    "tokens",
    "Tokens read and written, and those read that the tokenizer does not know.",
    "Throughput, cost, and whether a tokenizer fits what is asked.",
    (*_ANSWER, "kind"),
)
TIME_TO_FIRST_TOKEN_SECONDS = Metric(
    "heliostat_time_to_first_token_seconds",
    "histogram",
    "seconds",
    "Seconds from request to first token.",
    "How long somebody looks at an empty answer.",
    _ANSWER,
    _LATENCY_SECONDS,
)
INTER_TOKEN_SECONDS = Metric(
    "heliostat_inter_token_seconds",
    "histogram",
    "seconds",
    "Seconds between a token and the next one of the same answer.",
    "How fast an answer is written, once it has begun.",
    _ANSWER,
    _TOKEN_SECONDS,
)
SEQUENCES = Metric(
    "heliostat_sequences",
    "gauge",
    "requests",
    "Sequences that an engine generates now, and those that wait.",
    "Whether an engine is full.",
    (*_MODEL, "state"),
)
KV_CACHE_USED = Metric(
    "heliostat_kv_cache_used_ratio",
    "gauge",
    "ratio",
    "Share of the KV cache that sequences hold or have reserved.",
    "Whether memory, rather than compute, limits the batch.",
    _MODEL,
)
PREFIX_CACHE_TOKENS = Metric(
    "heliostat_prefix_cache_tokens_total",
    "counter",
    "tokens",
    "Prompt tokens looked up in the prefix cache, and found there; engines that have one.",
    "Whether conversations find their own beginning again.",
    (*_MODEL, "outcome"),
)
KEYS_READ_TIMESTAMP_SECONDS = Metric(
    "heliostat_keys_read_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when a replica last read the API keys.",
    "Whether new, changed and revoked keys arrive.",
    _MODEL,
)
DAMAGED_KEYS = Metric(
    "heliostat_damaged_keys",
    "gauge",
    "keys",
    "API keys in the storage that cannot be read and open nothing.",
    "Who is locked out by damage.",
    _MODEL,
)
CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS = Metric(
    "heliostat_certificate_expiry_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when the certificate ends that the address of the endpoint shows its clients (serve.tls).",
    "When it must have been renewed.",
    _MODEL,
)

OBJECTIVE_AVAILABILITY = Metric(
    "heliostat_objective_availability_ratio",
    "gauge",
    "ratio",
    "Share of requests that the spec promises to answer without 5xx (serve.objectives.availability).",
    "By what alerts measure the error budget.",
    _MODEL,
)
OBJECTIVE_SECONDS = Metric(
    "heliostat_objective_seconds",
    "gauge",
    "seconds",
    "Seconds that the spec promises for a quantile of latency or of the time to the first token (serve.objectives).",
    "By what alerts and panels measure how fast answers are.",
    (*_MODEL, "objective", "quantile"),
)

_COLUMN = (*_MODEL, "column")
DRIFT_PSI = Metric(
    "heliostat_drift_psi",
    "gauge",
    "1",
    "Population stability index of a column over the last 24 hours against the training split; 0 for too few rows.",
    "How far what is asked and answered is from what was trained on.",
    _COLUMN,
)
DRIFT_P_VALUE = Metric(
    "heliostat_drift_p_value",
    "gauge",
    "1",
    "P-value of the chi-square test of that difference, not corrected; 1 for too few rows.",
    "Whether a difference may be chance.",
    _COLUMN,
)
DRIFT_DETECTED = Metric(
    "heliostat_drift_detected",
    "gauge",
    "1",
    "1 where the index of a column is above 0.2 and the test, corrected for the number of columns, significant.",
    "Which column has drifted.",
    _COLUMN,
)
DRIFT_COLUMNS = Metric(
    "heliostat_drift_columns",
    "gauge",
    "1",
    "Columns by verdict.",
    "Whether there is enough to judge, and what is not counted.",
    (*_MODEL, "verdict"),
)

_OF_SERVING = tuple(value for value in globals().copy().values() if isinstance(value, Metric))
_DEFINED = (*_OF_SERVING, *of_training.METRICS)
CATALOGUE = (
    *_DEFINED,
    *(metric.total for metric in _DEFINED if metric.kind == "histogram"),
    *of_clients.METRICS,
    *of_storage.METRICS,
    *of_tuning.METRICS,
    *of_storage.EXPORTED,
)
_OF_RAY = tuple(metric for metric in CATALOGUE if metric.through == "ray")
TRAINING = tuple(metric for metric in _OF_RAY if "run" in metric.labels)
"""What a worker exports."""
SERVING = tuple(metric for metric in _OF_RAY if "version" in metric.labels)
"""What a replica exports."""
STORAGE = tuple(metric for metric in _OF_RAY if "operation" in metric.labels)
"""What workers and replicas export of their requests to storage."""
TUNING = tuple(metric for metric in _OF_RAY if "search" in metric.labels)
"""What the process of a search exports."""
EXPORTED = of_storage.EXPORTED
"""What the exporter tells of storage and registry."""
