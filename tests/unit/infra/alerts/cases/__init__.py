"""For each alert, what Prometheus scrapes once a minute when it fires, and when it is quiet though something goes on.

Series are in promtool's notation: `0+2x30` rises by 2 from 0 thirty times, `_` is a scrape without it, and `stale` is
what Prometheus stores when it is gone. An alert fires for the labels and with the summary that a case names.
"""

from __future__ import annotations

from tests.unit.infra.alerts.cases import of_cluster, of_serving, of_storage, of_training, of_watching

CASES = (*of_training.CASES, *of_serving.CASES, *of_cluster.CASES, *of_storage.CASES, *of_watching.CASES)
