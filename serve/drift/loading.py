"""Whether the drift of a model can be watched."""

from __future__ import annotations

from heliostat.infra import log
from heliostat.infra.drift.statistics import Statistics
from heliostat.serve.drift.watch import DriftWatch
from heliostat.serve.drift.window import DriftLedger
from heliostat.serve.ledger import LedgerClient
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.bundles import FetchedModel
from heliostat.serve.models.served_models import ServedModels

_log = log.get(__name__)


def watch_of(
    found: FetchedModel, statistics: Statistics, served: ServedModels, metrics: ServeMetrics
) -> DriftWatch | None:
    """What watches the model's drift; None, with a line in the log, for one that was published without a reference."""
    if found.reference is None:
        _log.info("%s was published without a reference of its training split: drift is not watched", served.name)
        return None
    if found.reference.left_out:
        _log.info("drift of %d columns of %s is not watched", found.reference.left_out, served.name)
    return DriftWatch(found.reference, statistics, metrics, LedgerClient(DriftLedger, served.name))
