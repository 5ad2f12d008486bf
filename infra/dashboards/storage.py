"""Panels of storage: what processes ask of it, and what the exporter finds in it."""

from __future__ import annotations

from heliostat.infra.dashboards.grafana import Dashboard, Panel, Query, Variable
from heliostat.infra.dashboards.promql import rate
from heliostat.infra.metrics import of_storage
from heliostat.infra.metrics.metric import Metric
from heliostat.infra.metrics.promql import series

_BY = "storage, operation"
_LEGEND = "{{storage}} {{operation}}"

OPERATIONS = Panel(
    "Operations on storage",
    "What workers and replicas ask of storage each second: to read, write, look for, delete and list objects.",
    "ops",
    (Query(rate(of_storage.REQUESTS, _BY), _LEGEND),),
)
SECONDS = Panel(
    "Seconds of an operation",
    "Mean seconds of an operation on storage, retries included; large objects take longer.",
    "s",
    (Query(f"{rate(of_storage.SECONDS, _BY)} / {rate(of_storage.REQUESTS, _BY)} >= 0", _LEGEND),),
)
BYTES = Panel(
    "Bytes moved",
    "Bytes of objects that workers and replicas read and write each second.",
    "Bps",
    (Query(rate(of_storage.BYTES, _BY, 'operation=~"read|write"'), _LEGEND),),
)
FAILED = Panel(
    "Failed operations",
    "Operations each second that failed after all retries; a key that is missing, or there already, is no failure.",
    "ops",
    (Query(rate(of_storage.ERRORS, _BY), _LEGEND),),
    width=12,
)
RETRIES = Panel(
    "Retries",
    "Requests to a bucket each second that were sent again: it is overloaded, or the network bad.",
    "reqps",
    (Query(rate(of_storage.RETRIES, _BY), _LEGEND),),
    width=12,
)

MODEL = Variable("model", f'{{__name__=~"{of_storage.RUN_STATE.exposed}|{of_storage.MODEL_VERSIONS.exposed}"}}')


def of_models(metric: Metric, by: str, where: str = "") -> str:
    """What the exporter tells of the chosen models."""
    chosen = ", ".join(['model=~"$model"', *filter(None, [where])])
    return f"max by ({by}) ({series(metric, chosen)})"


_RUN = "model, run"
_RUN_LEGEND = "{{model}} {{run}}"
_UNDER_WAY = of_models(of_storage.RUN_STATE, _RUN, 'state="running"')
RUNNING = f"and on (model, run) {_UNDER_WAY}"

STATES = Panel(
    "Runs by state",
    "Runs that are under way, interrupted (no process drives them; they can be resumed) and finished.",
    "short",
    (Query(f"count by (state) ({of_models(of_storage.RUN_STATE, 'model, run, state')})", "{{state}}"),),
    kind="stat",
)
CHECKPOINT_AGE = Panel(
    "Age of checkpoints",
    "Seconds since a run that is under way stored a complete checkpoint, and seconds between its last two.",
    "s",
    (
        Query(f"time() - {of_models(of_storage.RUN_CHECKPOINT, _RUN)} {RUNNING}", f"{_RUN_LEGEND} age"),
        Query(f"{of_models(of_storage.RUN_INTERVAL, _RUN)} {RUNNING}", f"{_RUN_LEGEND} interval"),
    ),
)
PROGRESS = Panel(
    "Last progress",
    "Seconds since a run that is under way stored anything.",
    "s",
    (Query(f"time() - {of_models(of_storage.RUN_PROGRESS, _RUN)} {RUNNING}", _RUN_LEGEND),),
)
RUN_BYTES = Panel(
    "Bytes of runs",
    "Bytes of the runs that hold most, checkpoints included.",
    "bytes",
    (Query(f"topk(10, {of_models(of_storage.RUN_BYTES, _RUN)})", _RUN_LEGEND),),
)
CHECKPOINTS = Panel(
    "Checkpoints kept",
    "Complete checkpoints of each run that are in storage.",
    "short",
    (Query(of_models(of_storage.RUN_CHECKPOINTS, _RUN), _RUN_LEGEND),),
)
DRIVERS = Panel(
    "Drivers of runs",
    "Processes that have driven each run so far: one more for each time that it was resumed.",
    "short",
    (Query(of_models(of_storage.RUN_DRIVERS, _RUN), _RUN_LEGEND),),
)
VERSIONS = Panel(
    "Versions",
    "Published versions of each model.",
    "short",
    (Query(of_models(of_storage.MODEL_VERSIONS, "model"), "{{model}}"),),
)
ALIASES = Panel(
    "Aliases",
    "The version that each alias points to.",
    "short",
    (Query(of_models(of_storage.ALIAS, "model, alias"), "{{model}}@{{alias}}"),),
    kind="stat",
)
NEWEST = Panel(
    "Age of the newest version",
    "Seconds since a version of each model was published.",
    "s",
    (Query(f"time() - {of_models(of_storage.VERSION_TIME, 'model')}", "{{model}}"),),
)
STORED = Panel(
    "Bytes in storage",
    "Bytes of all objects, by the first part of their keys.",
    "bytes",
    (Query(f"max by (folder) ({series(of_storage.STORED_BYTES)})", "{{folder}}"),),
    width=12,
    is_stacked=True,
)
OBJECTS = Panel(
    "Objects in storage",
    "Objects, by the first part of their keys.",
    "short",
    (Query(f"max by (folder) ({series(of_storage.STORED_OBJECTS)})", "{{folder}}"),),
    width=12,
    is_stacked=True,
)
LOOKS = Panel(
    "Exporter",
    "1 where the exporter's last look at storage or registry succeeded.",
    "short",
    (Query(f"min by (source) ({series(of_storage.UP)})", "{{source}}"),),
    kind="stat",
    steps=(("red", None), ("green", 1)),
)
LOOK_SECONDS = Panel(
    "Looks of the exporter",
    "Seconds that the last look took, how long ago it was, and looks each second that failed.",
    "s",
    (
        Query(f"max by (source) ({series(of_storage.REFRESH_SECONDS)})", "{{source}} took"),
        Query(f"time() - max by (source) ({series(of_storage.REFRESHED)})", "{{source}} age"),
        Query(rate(of_storage.REFRESH_ERRORS, "source"), "{{source}} failed"),
    ),
)
LEFT_OUT = Panel(
    "Left out",
    "Runs, versions and aliases that there are, and that the exporter does not show.",
    "short",
    (Query(f"max by (what) ({series(of_storage.LEFT_OUT)})", "{{what}}"),),
)

STORAGE = Dashboard(
    "heliostat-storage",
    "Heliostat: storage",
    "The storage that runs and endpoints share: what is asked of it, and the runs and models in it.",
    (MODEL,),
    (
        ("Requests", (OPERATIONS, SECONDS, BYTES, FAILED, RETRIES)),
        ("Runs", (STATES, CHECKPOINT_AGE, PROGRESS, RUN_BYTES, CHECKPOINTS, DRIVERS)),
        ("Models", (VERSIONS, ALIASES, NEWEST)),
        ("Storage", (STORED, OBJECTS, LOOKS, LOOK_SECONDS, LEFT_OUT)),
    ),
)
