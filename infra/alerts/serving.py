"""Rules that watch endpoints.

An endpoint that nobody asks has a rate of zero and no share: `>= 0` drops the NaN, and rules stay silent. The count of
a histogram is born with its first number, when its counter of seconds has grown already: `> 0` drops the infinite mean.
"""

from __future__ import annotations

from heliostat.infra.alerts.objectives import BURN_RATES, LEAST_ERRORS, QUANTILES, BurnRate
from heliostat.infra.alerts.ray_names import INGRESS_REQUESTS, REPLICAS_HEALTHY, REPLICAS_WANTED
from heliostat.infra.alerts.rule import Alert, Group, Recording
from heliostat.infra.metrics import catalogue, of_clients
from heliostat.infra.metrics.metric import Metric
from heliostat.infra.metrics.promql import series

REJECTED_SHARE = 0.05
KEYS_SECONDS = 120
CERTIFICATE_DAYS = 14
COLD_STARTS_AN_HOUR = 4
LOST_SHARE = 0.1
"""Of all errors: what replicas and ingress count of the same ones differs a little, by when it is scraped."""
QUEUE_GROWTH = 0.2
"""Of its mean in the last ten minutes: a queue that is long, but not longer than before, is another matter."""
QUEUE_SECONDS = 0.1


def _of_ingress(where: str = "") -> str:
    """Series of requests to applications, as the ingress answered them."""
    matchers = ", ".join(filter(None, ['application!=""', where]))
    return f"{INGRESS_REQUESTS}{{{matchers}}}"


_REQUESTS = catalogue.REQUESTS
_ERRORS = series(_REQUESTS, 'status=~"5.."')
_INGRESS_ERRORS = _of_ingress('status_code=~"5.."')
_REJECTED = series(_REQUESTS, 'status="429"')
_QUEUED_SECONDS = series(catalogue.REQUEST_PHASE_SECONDS.total, 'phase="queue"')
_QUEUED_COUNT = series(catalogue.REQUEST_PHASE_SECONDS, 'phase="queue"', "count")
_WANTED = f"max by (application, deployment) ({REPLICAS_WANTED})"
_HEALTHY = f"sum by (application, deployment) ({REPLICAS_HEALTHY})"


def at_either(function: str, of_replicas: str, of_ingress: str, window: str) -> str:
    """`rate` or `increase` by model of the requests that replicas counted, or the ingress, where that saw more of them.

    A request that is lost between the two, or finds no replica, is counted by the ingress alone.
    """
    told = f"sum by (model) ({function}({of_replicas}[{window}]))"
    seen = f'sum by (model) (label_replace({function}({of_ingress}[{window}]), "model", "$1", "application", "(.+)"))'
    return f"({seen} > {told} or {told} or {seen})"


def error_ratio(window: str) -> Recording:
    """The share of requests that fail; those that clients gave up (499) count for nothing."""
    asked = at_either("rate", series(_REQUESTS, 'status!="499"'), _of_ingress('status_code!="499"'), window)
    return Recording(
        f"heliostat:request_errors:ratio_rate{window}",
        f"{at_either('rate', _ERRORS, _INGRESS_ERRORS, window)} / {asked} >= 0",
    )


def quantiles(metric: Metric) -> tuple[Recording, ...]:
    """Quantiles of a histogram in the last five minutes: each that a spec may promise."""
    name, buckets = f"heliostat:{metric.name.removeprefix('heliostat_')}:quantile5m", series(metric, part="bucket")
    return tuple(
        Recording(name, f"histogram_quantile({share}, sum by (model, le) (rate({buckets}[5m]))) >= 0", quantile)
        for quantile, share in QUANTILES.items()
    )


def slower_than_promised(alert: str, found: tuple[Recording, ...], objective: str, what: str) -> Alert:
    """Fires for each quantile that is above what the spec promises; of two versions, the stricter promise counts."""
    promised = series(catalogue.OBJECTIVE_SECONDS, f'objective="{objective}"')
    return Alert(
        alert,
        f"{found[0].name} > on (model, quantile) min by (model, quantile) ({promised})",
        "10m",
        "warning",
        f"{{{{ $labels.quantile }}}} of the {what} of {{{{ $labels.model }}}} is {{{{ $value | humanizeDuration }}}},"
        f" above its objective (serve.objectives.{objective}_seconds)",
    )


def budget_burns(rate: BurnRate) -> Alert:
    """Fires where errors eat the budget faster than `rate` allows."""
    promised = f"max by (model) ({series(catalogue.OBJECTIVE_AVAILABILITY)})"
    limit = f"on (model) {rate.factor} * (1 - {promised})"
    long, short = error_ratio(rate.long).name, error_ratio(rate.short).name
    return Alert(
        f"HeliostatErrorBudgetBurns{rate.name}",
        f"{long} > {limit} and {short} > {limit}"
        f" and on (model) {at_either('increase', _ERRORS, _INGRESS_ERRORS, rate.long)} > {LEAST_ERRORS}",
        rate.hold,
        "critical",
        f"{{{{ $labels.model }}}} failed {{{{ $value | humanizePercentage }}}} of the requests of the last {rate.long},"
        f" over {rate.factor} times what its objective allows (serve.objectives.availability)",
    )


def grows(queue: Recording, least: float) -> str:
    """Where a queue was above `least` for ten minutes, and has grown."""
    window = f"{queue.name}[10m]"
    return (
        f"deriv({window}) * 600 > {QUEUE_GROWTH} * avg_over_time({window})"
        f" and min_over_time({window}) > {least} and count_over_time({queue.name}[1m] offset 9m) > 0"
    )


ERROR_RATIOS = tuple(error_ratio(window) for rate in BURN_RATES for window in (rate.short, rate.long))
LATENCY = quantiles(catalogue.REQUEST_SECONDS)
FIRST_TOKEN = quantiles(catalogue.TIME_TO_FIRST_TOKEN_SECONDS)

_BORN = f"({_INGRESS_ERRORS} unless {_INGRESS_ERRORS} offset 5m) and on (job) count by (job) (up offset 5m)"
"""Series of Ray are born with their first error, which counts where Prometheus saw the cluster before."""
INGRESS_FAULTS = Recording(
    "heliostat:ingress_errors:increase5m",
    f"sum by (application) ({_BORN} or increase({_INGRESS_ERRORS}[5m])) or 0 * sum by (application) ({_of_ingress()})",
)
_REPLICA_FAULTS = f'label_replace(increase({_ERRORS}[5m]), "application", "$1", "model", "(.+)")'
LOST = Recording(
    "heliostat:requests_lost:increase5m",
    f"clamp_min({INGRESS_FAULTS.name} - (sum by (application) ({_REPLICA_FAULTS}) or 0 * {INGRESS_FAULTS.name}), 0)",
)

SEQUENCES_WAITING = Recording(
    "heliostat:sequences_waiting:sum",
    f"""sum by (model) ({series(catalogue.SEQUENCES, 'state="waiting"')})""",
)
QUEUED_SECONDS = Recording(
    "heliostat:queue_seconds:mean1m",
    f"sum by (model) (rate({_QUEUED_SECONDS}[1m])) / (sum by (model) (rate({_QUEUED_COUNT}[1m])) > 0)",
)

SLOW = slower_than_promised("HeliostatLatencyHigh", LATENCY, "latency", "latency")
FIRST_TOKEN_SLOW = slower_than_promised("HeliostatFirstTokenSlow", FIRST_TOKEN, "first_token", "time to first token")
NO_REPLICA = Alert(
    "HeliostatEndpointWithoutReplicas",
    f"{_WANTED} > 0 unless {_HEALTHY} > 0",
    "5m",
    "critical",
    "{{ $labels.application }} has no healthy replica of {{ $value }} wanted",
)
FEWER_REPLICAS = Alert(
    "HeliostatReplicasMissing",
    f"{_WANTED} - ({_HEALTHY} or 0 * {_WANTED}) > 0",
    "10m",
    "warning",
    "{{ $labels.application }} has {{ $value }} healthy replicas fewer than wanted",
)
REJECTIONS = Alert(
    "HeliostatRequestsRejected",
    f"sum by (model) (rate({_REJECTED}[5m])) / sum by (model) (rate({series(_REQUESTS)}[5m])) > {REJECTED_SHARE}",
    "5m",
    "warning",
    "{{ $labels.model }} refuses {{ $value | humanizePercentage }} of its requests with 429",
)
KEYS_OLD = Alert(
    "HeliostatKeysNotRead",
    f"max by (model, version) (time() - {series(catalogue.KEYS_READ_TIMESTAMP_SECONDS)}) > {KEYS_SECONDS}",
    "1m",
    "warning",
    "{{ $labels.model }}@{{ $labels.version }} read its API keys {{ $value | humanizeDuration }} ago",
)
KEYS_DAMAGED = Alert(
    "HeliostatKeysDamaged",
    f"max by (model) ({series(catalogue.DAMAGED_KEYS)}) > 0",
    "5m",
    "warning",
    "{{ $value }} API keys of {{ $labels.model }} are damaged and open nothing",
)
CERTIFICATE_ENDS = Alert(
    "HeliostatCertificateEnds",
    f"min by (model) ({series(catalogue.CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS)} - time()) < {CERTIFICATE_DAYS} * 86400",
    "10m",
    "critical",
    "The certificate of the address of {{ $labels.model }} ends in {{ $value | humanizeDuration }}",
)
COLD_STARTS = Alert(
    "HeliostatColdStarts",
    f"resets(({_WANTED} > bool 0)[1h:30s]) >= {COLD_STARTS_AN_HOUR}",
    "0s",
    "warning",
    "{{ $labels.application }} went to zero replicas {{ $value }} times within an hour; whoever asked next waited",
)
REQUESTS_LOST = Alert(
    "HeliostatRequestsLost",
    f"{LOST.name} > {LEAST_ERRORS} and {LOST.name} > {LOST_SHARE} * {INGRESS_FAULTS.name}",
    "0s",
    "warning",
    '{{ $value | printf "%.0f" }} requests to {{ $labels.application }} were lost in the last five minutes: the ingress'
    " answered them with an error, and no replica did",
)

QUEUE_GROWS = Alert(
    "HeliostatQueueGrows",
    f"({grows(SEQUENCES_WAITING, 0)}) or ({grows(QUEUED_SECONDS, QUEUE_SECONDS)})",
    "2m",
    "warning",
    "{{ $labels.model }} is asked more than it answers: its queue has been growing for ten minutes",
)
ROLLED_BACK = Alert(
    "HeliostatCandidateRolledBack",
    f"sum by (model) (increase({series(of_clients.EXPERIMENT_ROLLBACKS)}[30m])) > 0",
    "0s",
    "warning",
    "The candidate of {{ $labels.model }} was worse than the version in production and has been taken away",
)
DRIFT = Alert(
    "HeliostatDrift",
    f"max by (model, version, column) ({series(catalogue.DRIFT_DETECTED)}) == 1",
    "10m",
    "warning",
    "{{ $labels.column }} of {{ $labels.model }}@{{ $labels.version }} is no longer what it was in training",
)

GROUP = Group(
    "heliostat-serving",
    (
        *ERROR_RATIOS,
        *LATENCY,
        *FIRST_TOKEN,
        INGRESS_FAULTS,
        LOST,
        SEQUENCES_WAITING,
        QUEUED_SECONDS,
        *(budget_burns(rate) for rate in BURN_RATES),
        SLOW,
        FIRST_TOKEN_SLOW,
        NO_REPLICA,
        FEWER_REPLICAS,
        COLD_STARTS,
        REQUESTS_LOST,
        REJECTIONS,
        QUEUE_GROWS,
        ROLLED_BACK,
        KEYS_OLD,
        KEYS_DAMAGED,
        CERTIFICATE_ENDS,
        DRIFT,
    ),
)
