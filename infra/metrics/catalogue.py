"""All metrics that Heliostat exports: name, kind, unit, labels, buckets.

Processes export them through Ray's metrics agent (`ray.util.metrics`), so that each worker and replica is scraped on
its own node; Prometheus sees each name with the prefix `ray_`. Dashboards and tests read this catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """Definition of one metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


_LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_MODEL = ("model", "version")
_ANSWER = (*_MODEL, "adapter")
"""`adapter` is name@version, and empty if the model itself answers."""

REQUESTS = Metric("heliostat_requests_total", "counter", "Requests answered, by HTTP status.", (*_ANSWER, "status"))
REQUEST_SECONDS = Metric(
    "heliostat_request_seconds", "histogram", "Seconds from request to last byte.", _ANSWER, _LATENCY_SECONDS
)
ONGOING_REQUESTS = Metric("heliostat_ongoing_requests", "gauge", "Requests that a replica holds now.", _MODEL)
BATCH_SIZE = Metric(
    "heliostat_batch_size",
    "histogram",
    "Inputs in one pass of the model.",
    _MODEL,
    (1, 2, 4, 8, 16, 32, 64, 128),
)
TOKENS = Metric(
    "heliostat_tokens_total",
    "counter",
    "Tokens read (prompt), those of them unknown to the tokenizer (unknown), and written (completion).",
    (*_ANSWER, "kind"),
)
TIME_TO_FIRST_TOKEN_SECONDS = Metric(
    "heliostat_time_to_first_token_seconds",
    "histogram",
    "Seconds from request to first token.",
    _ANSWER,
    _LATENCY_SECONDS,
)
KEYS_READ_TIMESTAMP_SECONDS = Metric(
    "heliostat_keys_read_timestamp_seconds", "gauge", "Unix time when a replica last read the API keys.", _MODEL
)
DAMAGED_KEYS = Metric(
    "heliostat_damaged_keys", "gauge", "API keys in the storage that cannot be read and open nothing.", _MODEL
)

_RUN = ("model", "run", "rank")
TRAIN_LOSS = Metric("heliostat_train_loss", "gauge", "Loss of the last step, mean over the global batch.", _RUN)
TRAIN_LEARNING_RATE = Metric("heliostat_train_learning_rate", "gauge", "Learning rate of the last step.", _RUN)
TRAIN_GRAD_NORM = Metric("heliostat_train_grad_norm", "gauge", "Gradient norm of the last step, before clipping.", _RUN)
TRAIN_STEPS = Metric("heliostat_train_steps_total", "counter", "Optimizer steps taken.", _RUN)
TRAIN_SKIPPED_STEPS = Metric(
    "heliostat_train_skipped_steps_total", "counter", "Steps left out: loss or gradients were no numbers.", _RUN
)
TRAIN_SAMPLES = Metric("heliostat_train_samples_total", "counter", "Records trained on, by this rank.", _RUN)
TRAIN_TOKENS = Metric(
    "heliostat_train_tokens_total", "counter", "Tokens trained on, padding left out, by this rank.", _RUN
)
TRAIN_STEP_SECONDS = Metric(
    "heliostat_train_step_seconds",
    "histogram",
    "Seconds of one optimizer step.",
    _RUN,
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
TRAIN_WAIT_SECONDS = Metric(
    "heliostat_train_wait_seconds_total",
    "counter",
    "Seconds that this rank waited for data, communication or a checkpoint's copy.",
    (*_RUN, "cause"),
)
TRAIN_CHECKPOINT_SECONDS = Metric(
    "heliostat_train_checkpoint_seconds",
    "gauge",
    "Seconds to write and upload this rank's part of the last checkpoint, beside training.",
    _RUN,
)
TRAIN_MFU = Metric(
    "heliostat_train_mfu_ratio", "gauge", "Model FLOPs utilisation of the last step: of the device's peak.", _RUN
)
TRAIN_MEMORY_BYTES = Metric(
    "heliostat_train_memory_bytes", "gauge", "Most memory held so far: of the GPU, else of the process.", _RUN
)

CATALOGUE: tuple[Metric, ...] = tuple(value for value in globals().copy().values() if isinstance(value, Metric))
