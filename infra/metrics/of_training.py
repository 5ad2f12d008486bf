"""The part of the catalogue about training, which each worker of a run exports."""

from __future__ import annotations

from heliostat.infra.metrics.metric import Label, Metric

_STEP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_RUN = ("model", "run", "rank")
LOSS = Metric(
    "heliostat_train_loss",
    "gauge",
    "1",
    "Loss of the last step, mean over the global batch.",
    "Whether training learns.",
    _RUN,
)
LEARNING_RATE = Metric(
    "heliostat_train_learning_rate",
    "gauge",
    "1",
    "Learning rate of the last step.",
    "Which part of the schedule a change of the loss belongs to.",
    _RUN,
)
GRAD_NORM = Metric(
    "heliostat_train_grad_norm",
    "gauge",
    "1",
    "Gradient norm of the last step, before clipping.",
    "Whether training is about to diverge.",
    _RUN,
)
STEPS = Metric(
    "heliostat_train_steps_total",
    "counter",
    "steps",
    "Optimizer steps taken.",
    "Progress, and whether a run stands still.",
    _RUN,
)
SKIPPED_STEPS = Metric(
    "heliostat_train_skipped_steps_total",
    "counter",
    "steps",
    "Steps left out: loss or gradients were no numbers.",
    "Damaged data, or a learning rate that is too high.",
    _RUN,
)
SAMPLES = Metric(
    "heliostat_train_samples_total",
    "counter",
    "records",
    "Records trained on, by this rank.",
    "Throughput.",
    _RUN,
)
EVALUATED = Metric(
    "heliostat_train_evaluated_total",
    "counter",
    "records",
    "Records evaluated by this rank, of the validation and of the test split.",
    "Whether a run that takes no step is evaluating or stands still.",
    _RUN,
)
TOKENS = Metric(
    "heliostat_train_tokens_total",
    "counter",
    "tokens",
    "Tokens trained on, padding left out, by this rank.",
    "Throughput of texts.",
    _RUN,
)
STEP_SECONDS = Metric(
    "heliostat_train_step_seconds",
    "histogram",
    "seconds",
    "Seconds of one optimizer step.",
    "Whether some steps, or some ranks, are slower than others.",
    _RUN,
    _STEP_SECONDS,
)
WAIT_SECONDS = Metric(
    "heliostat_train_wait_seconds_total",
    "counter",
    "seconds",
    "Seconds that this rank waited for data, communication or a checkpoint's copy.",
    "What to make faster first.",
    (*_RUN, "cause"),
)
CHECKPOINT_SECONDS = Metric(
    "heliostat_train_checkpoint_seconds",
    "gauge",
    "seconds",
    "Seconds to write and upload this rank's part of the last checkpoint, beside training.",
    "Whether storage keeps up with the interval between checkpoints.",
    _RUN,
)
CHECKPOINTS = Metric(
    "heliostat_train_checkpoints_total",
    "counter",
    "1",
    "Checkpoints of which this rank stored its part.",
    "How much work a lost node costs.",
    _RUN,
)
CHECKPOINT_BYTES = Metric(
    "heliostat_train_checkpoint_bytes",
    "gauge",
    "bytes",
    "Size of this rank's part of the last checkpoint.",
    "What checkpoints cost in storage.",
    _RUN,
)
CHECKPOINT_TIMESTAMP_SECONDS = Metric(
    "heliostat_train_checkpoint_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when this rank stored its part of the last checkpoint.",
    "How old the newest checkpoint is.",
    _RUN,
)
STARTS = Metric(
    "heliostat_train_starts_total",
    "counter",
    "1",
    "Times that this rank of the run began: once, and again after each loss of a worker, resize or shrunk micro-batch.",
    "Whether a run keeps starting anew.",
    _RUN,
)
RESTARTS = Metric(
    "heliostat_train_restarts_total",
    "counter",
    "1",
    "Times that the workers of a run began anew, by reason, as rank 0 counts them; out of memory is one each time.",
    "What a run keeps starting anew for.",
    (*_RUN, "restart_reason"),
)
WORKERS = Metric(
    "heliostat_train_workers",
    "gauge",
    "1",
    "Workers that the run has now.",
    "How far an elastic run has shrunk.",
    _RUN,
)
MFU = Metric(
    "heliostat_train_mfu_ratio",
    "gauge",
    "ratio",
    "Model FLOPs utilisation of the last step: of the device's peak.",
    "What of the device is paid for and not used.",
    _RUN,
)
MEMORY_BYTES = Metric(
    "heliostat_train_memory_bytes",
    "gauge",
    "bytes",
    "Most memory held so far: of the GPU, else of the process.",
    "How near a run is to running out of memory.",
    _RUN,
)

LABELS = {
    "run": Label("Id of the run; a process has one."),
    "rank": Label("Rank of the worker in its run."),
    "cause": Label("What training waits for.", ("data", "communication", "checkpoint")),
    "restart_reason": Label(
        "Why workers began anew: one was lost or failed (`lost_worker`), their number changed (`resize`), or a "
        "micro-batch ran out of memory (`out_of_memory`).",
        ("lost_worker", "resize", "out_of_memory"),
    ),
}
METRICS = tuple(value for value in globals().copy().values() if isinstance(value, Metric))
