"""Panels of training runs."""

from __future__ import annotations

from heliostat.infra.alerts.training import STRAGGLING
from heliostat.infra.dashboards.grafana import FAULTS, Dashboard, Panel, Query, Variable
from heliostat.infra.dashboards.promql import WINDOW, mean, quantile, rate, select
from heliostat.infra.metrics import of_training
from heliostat.infra.metrics.metric import Metric

MODEL = Variable("model", f"ray_{of_training.STEPS.name}")
RUN = Variable("run", f'ray_{of_training.STEPS.name}{{model=~"$model"}}')
WORKER = "{{run}} rank {{rank}}"


def of_the_run(metric: Metric) -> tuple[Query, ...]:
    """A gauge that all ranks agree on."""
    return (Query(select(metric, 'rank="0"'), "{{run}}"),)


def of_each_rank(metric: Metric) -> tuple[Query, ...]:
    """A gauge of each worker."""
    return (Query(select(metric), WORKER),)


LOSS = Panel(
    "Loss",
    "Training loss of the last step, mean over the global batch.",
    "none",
    of_the_run(of_training.LOSS),
    least=None,
)
LEARNING_RATE = Panel("Learning rate", "Learning rate of the last step.", "sci", of_the_run(of_training.LEARNING_RATE))
GRAD_NORM = Panel(
    "Gradient norm",
    "Norm of the whole gradient before clipping; a jump comes before a loss that diverges.",
    "none",
    of_the_run(of_training.GRAD_NORM),
)
SAMPLES = Panel(
    "Samples",
    "Records trained on each second, and those evaluated, over all workers.",
    "suffix: samples/s",
    (
        Query(rate(of_training.SAMPLES, "run"), "{{run}}"),
        Query(rate(of_training.EVALUATED, "run"), "{{run}} evaluation"),
    ),
)
TOKENS = Panel(
    "Training tokens",
    "Tokens trained on each second, over all workers, padding left out.",
    "suffix: tokens/s",
    (Query(rate(of_training.TOKENS, "run"), "{{run}}"),),
)
STEP_TIME = Panel(
    "Step time",
    "Seconds of one optimizer step, over all workers.",
    "s",
    tuple(
        Query(quantile(percent / 100, of_training.STEP_SECONDS, "run"), f"{{{{run}}}} p{percent}")
        for percent in (50, 95)
    ),
)
STEPS = Panel(
    "Steps",
    "Optimizer steps taken.",
    "short",
    (Query(f"max by (run) ({select(of_training.STEPS)})", "{{run}}"),),
)
SAMPLES_BY_WORKER = Panel(
    "Samples by worker",
    "Records trained on each second by each worker: one that lags holds all others up.",
    "suffix: samples/s",
    (Query(rate(of_training.SAMPLES, "run, rank"), WORKER),),
)
STEP_TIME_BY_WORKER = Panel(
    "Step time by worker",
    "Mean seconds of a step of each worker, the time in which it waits for the others included.",
    "s",
    (Query(mean(of_training.STEP_SECONDS, "run, rank"), WORKER),),
)
SKIPPED = Panel(
    "Steps left out",
    "Training steps a second that changed nothing, because loss or gradients were no numbers.",
    "ops",
    (Query(f"{rate(of_training.SKIPPED_STEPS)} or vector(0)", "left out"),),
    width=4,
    kind="stat",
    decimals=2,
    steps=FAULTS,
)
MFU = Panel(
    "MFU",
    "Model FLOPs utilisation of each worker: what its tokens need of what its device can do.",
    "percentunit",
    of_each_rank(of_training.MFU),
    width=6,
)
WAITING = Panel(
    "Waiting",
    "Share of the time in which workers wait for data, for each other, for a checkpoint's copy.",
    "percentunit",
    (
        Query(
            f"avg by (run, cause) (rate({select(of_training.WAIT_SECONDS)}[{WINDOW}]))",
            "{{run}} {{cause}}",
        ),
    ),
    width=6,
)
MEMORY = Panel(
    "Training memory",
    "The most that each worker has held so far: of its GPU, else of the process.",
    "bytes",
    of_each_rank(of_training.MEMORY_BYTES),
    width=6,
)
CHECKPOINT = Panel(
    "Checkpoint time",
    "Seconds that each worker took to write and upload its part of the last checkpoint, beside training.",
    "s",
    of_each_rank(of_training.CHECKPOINT_SECONDS),
    width=6,
)

CHECKPOINT_SIZE = Panel(
    "Checkpoint size",
    "Size of each worker's part of the last checkpoint.",
    "bytes",
    of_each_rank(of_training.CHECKPOINT_BYTES),
)
CHECKPOINT_AGE = Panel(
    "Checkpoint age",
    "Seconds since the last checkpoint of each run: what is trained again where a node is lost.",
    "s",
    (Query(f"max by (run) (time() - {select(of_training.CHECKPOINT_TIMESTAMP_SECONDS)})", "{{run}}"),),
)
CHECKPOINTS = Panel(
    "Checkpoints",
    "Checkpoints stored in the last hour.",
    "short",
    (Query(f"max by (run) (increase({select(of_training.CHECKPOINTS)}[1h]))", "{{run}}"),),
)
WORKERS = Panel(
    "Workers",
    "Workers of each run, and how often it began: more than once after a lost worker, a resize or a micro-batch that "
    "ran out of memory.",
    "short",
    (
        Query(f"max by (run) ({select(of_training.WORKERS)})", "{{run}} workers"),
        Query(f"""sum by (run) ({select(of_training.STARTS, 'rank="0"')})""", "{{run}} starts"),
    ),
    decimals=0,
)

RESTARTS = Panel(
    "Restarts",
    "How often the workers of each run began anew so far, by reason: a worker was lost or failed, their number "
    "changed, or a micro-batch ran out of memory.",
    "short",
    (
        Query(
            f"""sum by (run, restart_reason) ({select(of_training.RESTARTS, 'rank="0"')})""",
            "{{run}} {{restart_reason}}",
        ),
    ),
    decimals=0,
)
STRAGGLER = Panel(
    "Straggler",
    "How many times as long as the median of the ranks the slowest one computes for a step, its waiting for the others "
    "left out: 1 where all are alike.",
    "short",
    (Query(f'max by (run) ({STRAGGLING.name}{{model=~"$model", run=~"$run"}})', "{{run}}"),),
)

TRAINING = Dashboard(
    "heliostat-training",
    "Heliostat: training",
    "Runs: whether they learn, how fast they are, and what holds them up.",
    (MODEL, RUN),
    (
        ("Learning", (LOSS, LEARNING_RATE, GRAD_NORM)),
        ("Speed", (SAMPLES, TOKENS, STEP_TIME, STEPS, STEP_TIME_BY_WORKER, SAMPLES_BY_WORKER)),
        ("Workers", (WORKERS, RESTARTS, STRAGGLER, SKIPPED, MFU, WAITING, MEMORY)),
        ("Checkpoints", (CHECKPOINT, CHECKPOINT_SIZE, CHECKPOINT_AGE, CHECKPOINTS)),
    ),
)
