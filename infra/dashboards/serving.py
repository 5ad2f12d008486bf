"""Panels of endpoints."""

from __future__ import annotations

from heliostat.infra.alerts import serving
from heliostat.infra.alerts.ray_names import INGRESS_REQUESTS
from heliostat.infra.dashboards.clients import CLIENTS, EXPERIMENTS
from heliostat.infra.dashboards.grafana import FAULTS, Dashboard, Panel, Query, Variable
from heliostat.infra.dashboards.promql import WINDOW, mean, quantile, rate, select
from heliostat.infra.metrics import catalogue
from heliostat.infra.metrics.metric import Metric

FAULTS_SHARE = f"""({rate(catalogue.REQUESTS, where='status=~"5.."')} / {rate(catalogue.REQUESTS)} >= 0) or vector(0)"""
MODEL = Variable("model", f"ray_{catalogue.REQUESTS.name}")
VERSION = Variable("version", f'ray_{catalogue.REQUESTS.name}{{model=~"$model"}}')


def percentiles(metric: Metric) -> tuple[Query, ...]:
    """The median, and what one in twenty and one in a hundred see."""
    return tuple(Query(quantile(percent / 100, metric), f"p{percent}") for percent in (50, 95, 99))


def with_promise(metric: Metric, objective: str) -> tuple[Query, ...]:
    """Percentiles, and what the spec promises of them."""
    promised = select(catalogue.OBJECTIVE_SECONDS, f'objective="{objective}"')
    return (*percentiles(metric), Query(f"min by (quantile) ({promised})", "{{quantile}} objective"))


def of_ray(function: str, name: str) -> str:
    """A gauge of Ray Serve by application, which has the name of the model."""
    return f'{function} by (application) (ray_serve_{name}{{application=~"$model"}})'


REQUESTS = Panel(
    "Requests",
    "Requests answered each second, by HTTP status. 429 is the limit of serve.max_ongoing_requests, 499 a client that "
    "left.",
    "reqps",
    (Query(rate(catalogue.REQUESTS, "status"), "{{status}}"),),
    is_stacked=True,
)
LATENCY = Panel(
    "Latency",
    "Seconds from a request to the last byte of its answer, as the replica measures it.",
    "s",
    with_promise(catalogue.REQUEST_SECONDS, "latency"),
)
ERRORS = Panel(
    "Errors",
    "Share of requests that ended in a fault of the server (5xx), zero where there are no requests; and what the spec "
    "allows (serve.objectives.availability).",
    "percentunit",
    (
        Query(FAULTS_SHARE, "5xx"),
        Query(f"1 - max({select(catalogue.OBJECTIVE_AVAILABILITY)})", "allowed"),
    ),
    width=4,
    kind="stat",
    decimals=2,
    steps=FAULTS,
)
VERSIONS = Panel(
    "Versions answering",
    "Requests each second by the version that answered: shows a roll-out, and that it is over.",
    "reqps",
    (Query(rate(catalogue.REQUESTS, "model, version"), "{{model}} version {{version}}"),),
    width=4,
    kind="stat",
)
LOST = Panel(
    "Requests lost",
    "Requests of the last five minutes that the ingress answered with an error of its own (502, 503, 504): no replica "
    "had them, or the one that did has ended.",
    "short",
    (Query(f'{serving.LOST.name}{{application=~"$model"}}', "{{application}}"),),
)
INGRESS = Panel(
    "Answers of the ingress",
    "Requests each second by status as clients see it: HAProxy's own answers come on top of those of replicas.",
    "reqps",
    (Query(f'sum by (status_code) (rate({INGRESS_REQUESTS}{{application=~"$model"}}[{WINDOW}]))', "{{status_code}}"),),
    is_stacked=True,
)
REJECTED = Panel(
    "Refused",
    "Requests each second that were refused or given up, by the error's code.",
    "reqps",
    (Query(rate(catalogue.REJECTED_REQUESTS, "reason"), "{{reason}}"),),
    is_stacked=True,
)
PHASES = Panel(
    "Where the time goes",
    "Mean seconds of each phase: waiting for the model, then its pass; or reading the prompt, then writing the answer.",
    "s",
    (Query(mean(catalogue.REQUEST_PHASE_SECONDS, "phase"), "{{phase}}"),),
    is_stacked=True,
)
LOADING = Panel(
    "Start of a replica",
    "Seconds from the start of a replica's process until it could answer: what a cold start and a scale-up take.",
    "s",
    (Query(f"max by (model, version) ({select(catalogue.LOAD_SECONDS)})", "{{model}} version {{version}}"),),
)
INTER_TOKEN = Panel(
    "Time between tokens",
    "Seconds between a token and the next one of the same answer: the mean, and the 95th percentile.",
    "s",
    (Query(mean(catalogue.INTER_TOKEN_SECONDS), "mean"), Query(quantile(0.95, catalogue.INTER_TOKEN_SECONDS), "p95")),
)
SEQUENCES = Panel(
    "Sequences",
    "Sequences that engines generate now, and those that wait for a place in the batch.",
    "short",
    (Query(f"sum by (model, state) ({select(catalogue.SEQUENCES)})", "{{model}} {{state}}"),),
)
CACHE = Panel(
    "KV cache",
    "Share of the KV cache that sequences hold or have reserved, and share of prompt tokens found in the prefix cache.",
    "percentunit",
    (
        Query(f"max by (model) ({select(catalogue.KV_CACHE_USED)})", "{{model}} used"),
        Query(
            f"""{rate(catalogue.PREFIX_CACHE_TOKENS, "model", 'outcome="hit"')} / """
            f"""({rate(catalogue.PREFIX_CACHE_TOKENS, "model", 'outcome="queried"')} > 0) """
            f"or max by (model) ({select(catalogue.KV_CACHE_USED)}) * 0",
            "{{model}} prefix found",
        ),
    ),
    most=1,
)
FIRST_TOKEN = Panel(
    "Time to first token",
    "Seconds from a request to the first token of its answer; causal-lm endpoints only.",
    "s",
    with_promise(catalogue.TIME_TO_FIRST_TOKEN_SECONDS, "first_token"),
    no_value="no endpoint generates text",
)
TOKENS = Panel(
    "Tokens",
    "Tokens read (prompt), those of them that a tokenizer does not know (unknown), and written (completion), each "
    "second.",
    "suffix: tokens/s",
    (Query(rate(catalogue.TOKENS, "kind"), "{{kind}}"),),
)
ONGOING = Panel(
    "Ongoing requests",
    "Requests that the replicas hold now.",
    "short",
    (Query(f"sum by (model) ({select(catalogue.ONGOING_REQUESTS)})", "{{model}}"),),
)
REPLICAS = Panel(
    "Replicas",
    "Replicas that are up, and how many autoscaling wants.",
    "short",
    (
        Query(of_ray("sum", "deployment_replica_healthy"), "{{application}} up"),
        Query(of_ray("sum", "autoscaling_target_replicas"), "{{application}} wanted"),
    ),
    decimals=0,
)
LOAD = Panel(
    "Load of a replica",
    "Ongoing requests for each replica, as autoscaling counts them, and what it aims at "
    "(serve.target_ongoing_requests): above that line it adds replicas.",
    "short",
    (
        Query(
            f"{of_ray('sum', 'autoscaling_total_requests')} / {of_ray('sum', 'deployment_replica_healthy')}",
            "{{application}} now",
        ),
        Query(of_ray("max", "autoscaling_target_ongoing_requests"), "{{application}} aim"),
    ),
)
BATCH = Panel(
    "Batch size",
    "Inputs in one pass of the model: the mean, and the 95th percentile.",
    "short",
    (Query(mean(catalogue.BATCH_SIZE), "mean"), Query(quantile(0.95, catalogue.BATCH_SIZE), "p95")),
)
CERTIFICATE = Panel(
    "Certificate",
    "Time until the certificate ends that clients of the address see (serve.tls).",
    "s",
    (
        Query(
            f"min by (model) ({select(catalogue.CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS)} - time())",
            "{{model}}",
        ),
    ),
    width=4,
    kind="stat",
    least=None,
    steps=(("red", None), ("orange", 14 * 86_400), ("green", 30 * 86_400)),
    no_value="no TLS",
)
KEYS = Panel(
    "Age of keys",
    "Seconds since a replica last read the API keys, and how many keys are damaged and open nothing.",
    "short",
    (
        Query(f"max by (model) (time() - {select(catalogue.KEYS_READ_TIMESTAMP_SECONDS)})", "{{model}}: seconds"),
        Query(f"max by (model) ({select(catalogue.DAMAGED_KEYS)})", "{{model}}: damaged"),
    ),
)
MEAN_LATENCY = Panel(
    "Mean latency",
    "Mean seconds of a request by version, and of the first token; exact, unlike percentiles from buckets.",
    "s",
    (
        Query(mean(catalogue.REQUEST_SECONDS, "model, version"), "{{model}} version {{version}}"),
        Query(mean(catalogue.TIME_TO_FIRST_TOKEN_SECONDS, "model"), "{{model}} first token"),
    ),
)

DRIFT = Panel(
    "Drift",
    "Population stability index over the last 24 hours against the training split, of the ten columns that are "
    "furthest from it: above 0.2 a column has shifted. 0 where there are too few rows.",
    "short",
    (Query(f"topk(10, max by (model, version, column) ({select(catalogue.DRIFT_PSI)}))", "{{model}} {{column}}"),),
)
DRIFT_TEST = Panel(
    "Test of drift",
    "P-value of the chi-square test of that difference, of the ten columns where it is smallest; 1 where there are too "
    "few rows.",
    "short",
    (
        Query(
            f"bottomk(10, min by (model, version, column) ({select(catalogue.DRIFT_P_VALUE)}))", "{{model}} {{column}}"
        ),
    ),
    most=1,
)
DRIFT_VERDICTS = Panel(
    "Columns by verdict",
    "Columns of inputs and answers that are like the training split, have drifted, have too few rows to tell, or are "
    "not counted.",
    "short",
    (Query(f"max by (model, version, verdict) ({select(catalogue.DRIFT_COLUMNS)})", "{{model}} {{verdict}}"),),
    decimals=0,
)
DRIFTED = Panel(
    "Columns that drifted",
    "Columns whose index is above 0.2 and whose test, corrected for the number of columns, is significant.",
    "short",
    (
        Query(
            f"sum by (model, version) (max by (model, version, column) ({select(catalogue.DRIFT_DETECTED)}))",
            "{{model}} version {{version}}",
        ),
    ),
    width=4,
    kind="stat",
    decimals=0,
    steps=(("green", None), ("orange", 1)),
)

SERVING = Dashboard(
    "heliostat-serving",
    "Heliostat: serving",
    "Endpoints: what is asked of them, how fast and how well they answer, and how many replicas do.",
    (MODEL, VERSION),
    (
        (
            "Requests",
            (REQUESTS, LATENCY, ERRORS, VERSIONS, REJECTED, MEAN_LATENCY, PHASES, ONGOING, BATCH, INGRESS, LOST),
        ),
        ("Replicas", (REPLICAS, LOAD, LOADING, KEYS, CERTIFICATE)),
        CLIENTS,
        EXPERIMENTS,
        ("Drift", (DRIFT, DRIFT_TEST, DRIFT_VERDICTS, DRIFTED)),
        ("Generation", (FIRST_TOKEN, INTER_TOKEN, TOKENS, SEQUENCES, CACHE)),
    ),
)
