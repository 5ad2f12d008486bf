"""Export of metrics through Ray's metrics agent, so that each number is what happened.

Three things that Ray 2.60's agent does would make them wrong. It rebuilds the sum of a histogram from the middles of
its buckets: each histogram has a counter of what was observed, and means use that. It forgets a gauge that is not set
again within two reports: gauges are set again as long as the process lives. And it knows a counter from its first
increment on, which rates then miss: counters begin at zero.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import product
from typing import Any

from heliostat.infra import log
from heliostat.infra.metrics.catalogue import LABELS
from heliostat.infra.metrics.metric import Metric

Labels = Mapping[str, str]
Record = Callable[[Metric, float, Labels], None]
FLUSH_SECONDS = 0.5
_log = log.get(__name__)


@cache
def _instrument(metric: Metric) -> Any:
    from ray.util import metrics

    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, boundaries=list(metric.buckets), tag_keys=metric.labels)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, metric.help, tag_keys=metric.labels)


def record(metric: Metric, value: float, labels: Labels) -> None:
    """Increments a counter, sets a gauge or observes in a histogram; the process must be connected to Ray.

    `labels` has one value for each of `metric.labels`.
    """
    instrument, tags = _instrument(metric), dict(labels)
    if metric.kind == "counter" and not value:
        instrument._record(0.0, tags=tags)  # `inc` refuses what is not positive; this is what it calls
        return
    method = {"counter": "inc", "gauge": "set", "histogram": "observe"}[metric.kind]
    getattr(instrument, method)(value, tags=tags)


class Exporter:
    """Queues values, at the cost of an append, and passes them to `record` in a background thread.

    A call into Ray releases the GIL and then waits for it behind the model's thread; five of them took a fifth of the
    event loop's time. Before that, counters are summed up and only the last value of a gauge is kept.
    """

    def __init__(self, record: Record = record, seconds: float = FLUSH_SECONDS) -> None:
        self._record = record
        self._values: deque[tuple[Metric, float, Labels]] = deque()
        self._gauges: dict[tuple[Metric, tuple[tuple[str, str], ...]], float] = {}
        self._passing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(seconds,), name="heliostat-metrics", daemon=True)
        self._thread.start()

    def add(self, metric: Metric, value: float, labels: Labels) -> None:
        """Queues one value; it is exported within a second. Raises ValueError if a label is missing or unknown."""
        if labels.keys() != set(metric.labels):
            raise ValueError(f"{metric.name}: labels {', '.join(labels)} given, {', '.join(metric.labels)} needed")
        self._values.append((metric, value, labels))

    def begin(self, metrics: Iterable[Metric], labels: Labels) -> None:
        """Exports counters at zero, for each known value of the labels that are not in `labels`."""
        for metric in metrics:
            if metric.kind != "counter":
                continue
            given = {name: labels[name] for name in metric.labels if name in labels}
            others = [name for name in metric.labels if name not in labels]
            for values in product(*(LABELS[name].values for name in others)):
                self.add(metric, 0, {**given, **dict(zip(others, values, strict=True))})

    def close(self) -> None:
        """Exports what is queued and stops the thread; Ray's agent forgets the gauges soon after."""
        self._closed.set()
        self._thread.join(timeout=10)

    def _run(self, seconds: float) -> None:
        closed = False
        while not closed:
            closed = self._closed.wait(seconds)
            self.flush()

    def flush(self) -> None:
        """Exports what is queued."""
        with self._passing:
            self._pass_all()

    def _pass_all(self) -> None:
        counters: dict[tuple[Metric, tuple[tuple[str, str], ...]], float] = {}
        while self._values:
            metric, value, labels = self._values.popleft()
            key = tuple(sorted(labels.items()))
            if metric.kind == "gauge":
                self._gauges[metric, key] = value
                continue
            if metric.kind == "histogram":
                self._pass(metric, value, labels)
                metric = metric.total
            counters[metric, key] = counters.get((metric, key), 0) + value
        for (metric, key), value in (*counters.items(), *self._gauges.items()):
            self._pass(metric, value, dict(key))

    def _pass(self, metric: Metric, value: float, labels: Labels) -> None:
        try:
            self._record(metric, value, labels)
        except Exception as error:  # of one value, or of Ray for a while: the others are recorded
            _log.warning("metrics: %s not recorded: %r", metric.name, error)
