"""The part of the catalogue about storage: what processes ask of it, and what the exporter finds in it."""

from __future__ import annotations

from heliostat.infra.metrics.metric import Label, Metric

_REQUEST = ("storage", "operation")
REQUESTS = Metric(
    "heliostat_storage_requests_total",
    "counter",
    "requests",
    "Operations on storage that ended, well or not.",
    "How much a process asks of storage.",
    _REQUEST,
)
SECONDS = Metric(
    "heliostat_storage_seconds_total",
    "counter",
    "seconds",
    "Seconds that operations on storage took, retries included.",
    "Whether storage is slow: their mean, by the number of operations.",
    _REQUEST,
)
BYTES = Metric(
    "heliostat_storage_bytes_total",
    "counter",
    "bytes",
    "Bytes of objects that were read or written whole.",
    "Throughput of storage.",
    _REQUEST,
)
RETRIES = Metric(
    "heliostat_storage_retries_total",
    "counter",
    "requests",
    "Requests to a bucket that were sent again, after a fault or a refusal that may pass.",
    "Whether a bucket is overloaded, or the network bad, before operations fail.",
    _REQUEST,
)
ERRORS = Metric(
    "heliostat_storage_errors_total",
    "counter",
    "requests",
    "Operations on storage that failed after all retries; a key that is missing, or there already, is no failure.",
    "Whether checkpoints, models and keys arrive.",
    _REQUEST,
)

_RUN = ("model", "run")
_SOURCE = ("source",)
STORED_BYTES = Metric(
    "heliostat_stored_bytes",
    "gauge",
    "bytes",
    "Bytes of all objects in storage, by folder.",
    "What fills the storage, and what it costs.",
    ("folder",),
    through="exporter",
)
STORED_OBJECTS = Metric(
    "heliostat_stored_objects",
    "gauge",
    "1",
    "Objects in storage, by folder.",
    "Whether something piles up, such as what waits for MLflow.",
    ("folder",),
    through="exporter",
)
RUN_STATE = Metric(
    "heliostat_run_state",
    "gauge",
    "1",
    "1 for the state that a run is in.",
    "Which runs are under way, and which have lost their process.",
    ("model", "run", "state"),
    through="exporter",
)
RUN_PROGRESS = Metric(
    "heliostat_run_progress_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when a run last stored something, signs of life left out.",
    "How long ago a run got on.",
    _RUN,
    through="exporter",
)
RUN_CHECKPOINT = Metric(
    "heliostat_run_checkpoint_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when the newest complete checkpoint of a run was stored.",
    "How much work is lost with a node now.",
    _RUN,
    through="exporter",
)
RUN_INTERVAL = Metric(
    "heliostat_run_checkpoint_interval_seconds",
    "gauge",
    "seconds",
    "Seconds between the newest two complete checkpoints of a run.",
    "When the next one is to be expected.",
    _RUN,
    through="exporter",
)
RUN_CHECKPOINTS = Metric(
    "heliostat_run_checkpoints",
    "gauge",
    "1",
    "Complete checkpoints of a run that are kept.",
    "What a run can go back to.",
    _RUN,
    through="exporter",
)
RUN_BYTES = Metric(
    "heliostat_run_bytes",
    "gauge",
    "bytes",
    "Bytes of all objects of a run, checkpoints included.",
    "What to delete first.",
    _RUN,
    through="exporter",
)
RUN_DRIVERS = Metric(
    "heliostat_run_drivers",
    "gauge",
    "1",
    "Processes that have driven a run so far, one after the other.",
    "Whether a run keeps restarting.",
    _RUN,
    through="exporter",
)
MODEL_VERSIONS = Metric(
    "heliostat_model_versions",
    "gauge",
    "1",
    "Published versions of a model.",
    "How often a model is published.",
    ("model",),
    through="exporter",
)
VERSION_TIME = Metric(
    "heliostat_model_version_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when a version was published.",
    "How old what is served is.",
    ("model", "version"),
    through="exporter",
)
ALIAS = Metric(
    "heliostat_model_alias_version",
    "gauge",
    "1",
    "Number of the version that an alias points to.",
    "What is in production, and since when.",
    ("model", "alias"),
    through="exporter",
)
LEFT_OUT = Metric(
    "heliostat_exporter_left_out",
    "gauge",
    "1",
    "Runs, versions and aliases that there are, and that the exporter does not show.",
    "Whether all is seen.",
    ("what",),
    through="exporter",
)
UP = Metric(
    "heliostat_exporter_up",
    "gauge",
    "1",
    "1 if the last look at storage or registry succeeded, and none takes long now.",
    "Whether the numbers of the exporter are those of now.",
    _SOURCE,
    through="exporter",
)
REFRESHED = Metric(
    "heliostat_exporter_refresh_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time of the last look that succeeded.",
    "How old the numbers of the exporter are.",
    _SOURCE,
    through="exporter",
)
REFRESH_SECONDS = Metric(
    "heliostat_exporter_refresh_seconds",
    "gauge",
    "seconds",
    "Seconds that the last look took.",
    "Whether storage or registry grow slow.",
    _SOURCE,
    through="exporter",
)
REFRESH_ERRORS = Metric(
    "heliostat_exporter_errors_total",
    "counter",
    "1",
    "Looks that failed.",
    "How often storage or registry do not answer.",
    _SOURCE,
    through="exporter",
)

FOLDERS = ("bases", "data", "experiments", "keys", "mlflow", "models", "runs", "waiting")
"""Folders of a storage."""
OTHER = "other"
STATES = ("running", "interrupted", "finished", "unread")
SHOWN = ("runs", "versions", "aliases")
SOURCES = ("storage", "registry")
LABELS = {
    "storage": Label("Kind of storage: `local` (a folder) or `s3`."),
    "operation": Label("What was asked of it.", ("read", "write", "list", "delete", "exists")),
    "folder": Label(
        "First part of an object's key: base models of adapters (`bases`), prepared data (`data`), API keys (`keys`), "
        "MLflow's own files (`mlflow`), models, runs, results of experiments, what waits for MLflow; `other`.",
        (*FOLDERS, OTHER),
    ),
    "alias": Label("Alias of a version, such as `production`; the exporter shows a bounded number."),
    "what": Label("What the exporter leaves out.", SHOWN),
    "source": Label("What the exporter looks at: `storage`, or the `registry` in MLflow.", SOURCES),
}
METRICS = (REQUESTS, SECONDS, BYTES, RETRIES, ERRORS)
"""Of each process."""
EXPORTED = tuple(
    value for value in globals().copy().values() if isinstance(value, Metric) and value.through == "exporter"
)
"""Of the exporter."""
