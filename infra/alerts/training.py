"""Rules that watch runs.

Counters of a worker that has ended stay in Ray's agent, and its gauges go: a run is alive as long as one of its workers
has a loss. A series of which Prometheus first knows a number above zero has grown since before, which no rate tells.
"""

from __future__ import annotations

from heliostat.infra.alerts.rule import Alert, Group, Recording
from heliostat.infra.metrics import of_training
from heliostat.infra.metrics.promql import series

STALLED_MINUTES = 10
SILENT_MINUTES = 60
SKIPPED_MINUTES = 10
DATA_WAIT_SHARE = 0.3
STRAGGLER_RATIO = 1.5

_LOSS = series(of_training.LOSS)
_STEPS = series(of_training.STEPS)
_EVALUATED = series(of_training.EVALUATED)
_WORKERS = series(of_training.WORKERS)
_SKIPPED = series(of_training.SKIPPED_STEPS)
_STEP_SECONDS = series(of_training.STEP_SECONDS.total)
_STEP_COUNT = series(of_training.STEP_SECONDS, part="count")
_DATA_SECONDS = series(of_training.WAIT_SECONDS, 'cause="data"')
_OTHERS_SECONDS = series(of_training.WAIT_SECONDS, 'cause="communication"')

ALIVE = f"and on (model, run) count by (model, run) ({_LOSS})"
RUN = "Run {{ $labels.run }} of {{ $labels.model }}"

SAMPLES_PER_SECOND = Recording(
    "heliostat:train_samples:rate5m",
    f"sum by (model, run) (rate({series(of_training.SAMPLES)}[5m])) {ALIVE}",
)
OWN_STEP_SECONDS = Recording(
    "heliostat:train_own_step_seconds:mean5m",
    f"((sum by (model, run, rank) (rate({_STEP_SECONDS}[5m]))"
    f" - sum by (model, run, rank) (rate({_OTHERS_SECONDS}[5m])))"
    f" / (sum by (model, run, rank) (rate({_STEP_COUNT}[5m])) > 0) >= 0) {ALIVE}",
)
"""Mean seconds of a step without those in which the rank waits for others: with them, all ranks take as long."""
STRAGGLING = Recording(
    "heliostat:train_own_step_seconds:to_median",
    f"{OWN_STEP_SECONDS.name} / on (model, run) group_left ()"
    f" (quantile by (model, run) (0.5, {OWN_STEP_SECONDS.name}) > 0)",
)
DATA_WAIT = Recording(
    "heliostat:train_data_wait:ratio_rate5m",
    f"(sum by (model, run) (rate({_DATA_SECONDS}[5m])) / sum by (model, run) (rate({_STEP_SECONDS}[5m])) >= 0) {ALIVE}",
)

STALLED = Alert(
    "HeliostatTrainingStalled",
    f"(max by (model, run) (increase({_STEPS}[{STALLED_MINUTES}m])) == 0"
    f" unless on (model, run) increase({_EVALUATED}[{STALLED_MINUTES}m]) > 0"
    f" and on (model, run) {_STEPS} offset {STALLED_MINUTES}m) {ALIVE}",
    "5m",
    "critical",
    f"{RUN} has neither taken a step nor evaluated a record for {STALLED_MINUTES} minutes",
)
SILENT = Alert(
    "HeliostatTrainingWorkerSilent",
    f"(max by (model, run, rank, NodeAddress) (last_over_time({_WORKERS}[{SILENT_MINUTES}m]))"
    f" unless on (model, run, rank) {_WORKERS})"
    f" and on (model, run) (count by (model, run) ({_WORKERS}) < max by (model, run) ({_WORKERS}))",
    "1m",
    "critical",
    "Rank {{ $labels.rank }} of run {{ $labels.run }} of {{ $labels.model }}, on node"
    " {{ $labels.NodeAddress }}, has been silent for over a minute, and the others wait for it",
)
SKIPPED = Alert(
    "HeliostatTrainingStepsSkipped",
    f"max by (model, run) (increase({_SKIPPED}[{SKIPPED_MINUTES}m])) > 0"
    f" or max by (model, run) ({_SKIPPED} unless {_SKIPPED} offset {SKIPPED_MINUTES}m) > 0"
    f" and on (model, run) count by (model, run) (present_over_time({_LOSS}[{SKIPPED_MINUTES}m]))",
    "0s",
    "warning",
    f"{RUN} left out steps whose loss or gradients were no numbers",
)
SLOWER = Alert(
    "HeliostatTrainingThroughputHalved",
    f"{SAMPLES_PER_SECOND.name} < 0.5 * avg_over_time({SAMPLES_PER_SECOND.name}[1h]) and {SAMPLES_PER_SECOND.name} > 0",
    "10m",
    "warning",
    f"{RUN} trains on {{{{ $value | humanize }}}} records/s, less than half of its mean in the last hour",
)
STRAGGLER = Alert(
    "HeliostatTrainingStraggler",
    f"{STRAGGLING.name} > {STRAGGLER_RATIO}",
    "10m",
    "warning",
    "Rank {{ $labels.rank }} of run {{ $labels.run }} of {{ $labels.model }} takes"
    " {{ $value | humanize }} times as long for a step as the median of the ranks",
)
DATA_WAIT_HIGH = Alert(
    "HeliostatTrainingWaitsForData",
    f"{DATA_WAIT.name} > {DATA_WAIT_SHARE}",
    "10m",
    "warning",
    f"{RUN} waits for data {{{{ $value | humanizePercentage }}}} of the time",
)

GROUP = Group(
    "heliostat-training",
    (
        SAMPLES_PER_SECOND,
        OWN_STEP_SECONDS,
        STRAGGLING,
        DATA_WAIT,
        STALLED,
        SILENT,
        SKIPPED,
        SLOWER,
        STRAGGLER,
        DATA_WAIT_HIGH,
    ),
)
