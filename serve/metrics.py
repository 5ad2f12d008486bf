"""Metrics of a replica, with the names in `heliostat.infra.metrics.catalogue`.

What they say of one request stands in its span, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import fmean

from heliostat.infra.metrics import catalogue, of_clients
from heliostat.infra.metrics.export import Record
from heliostat.infra.tracing.semconv import FIRST_CHUNK_SECONDS, TOKENS
from heliostat.infra.tracing.span import Span, current
from heliostat.serve.objectives import Objectives

ADAPTER = "heliostat.adapter"
"""Key in a request's scope: the adapter that answers it, as `name@version`; empty for the model itself."""


class ServeMetrics:
    """The metrics of one replica."""

    def __init__(self, model: str, version: str, record: Record) -> None:
        self.labels = {"model": model, "version": version}
        self.record = record
        self._waits: deque[float] = deque(maxlen=1000)
        self._keys: set[str] = set()

    def request(self, status: int, seconds: float, adapter: str = "", reason: str = "") -> None:
        """Records one answered request, and the error code for which it was refused.

        `adapter` is `name@version`, or empty for the model itself, as below.
        """
        if reason:
            self.record(catalogue.REJECTED_REQUESTS, 1, {**self.labels, "reason": reason})
        labels = {**self.labels, "adapter": adapter}
        self.record(catalogue.REQUESTS, 1, {**labels, "status": str(status)})
        self.record(catalogue.REQUEST_SECONDS, seconds, labels)

    def ongoing(self, count: int) -> None:
        """Records how many requests the replica holds now."""
        self.record(catalogue.ONGOING_REQUESTS, count, self.labels)

    def keys(self, read_at: float, damaged: int, names: Iterable[str] = ()) -> None:
        """Records when the API keys were last read (Unix time), and how many are damaged; counts those of `names`."""
        for name in names:
            self._label_of(name)
        self.record(catalogue.KEYS_READ_TIMESTAMP_SECONDS, read_at, self.labels)
        self.record(catalogue.DAMAGED_KEYS, damaged, self.labels)

    def used(self, key: str, requests: int = 0, tokens: int = 0) -> None:
        """Counts what the key of this name uses; further names than `of_clients.MOST_KEYS` are counted together."""
        labels = {**self.labels, "key": self._label_of(key)}
        for metric, count in ((of_clients.KEY_REQUESTS, requests), (of_clients.KEY_TOKENS, tokens)):
            if count:
                self.record(metric, count, labels)

    def _label_of(self, key: str) -> str:
        """The key's name, whose counters then begin at zero, or that of the others together."""
        if key not in self._keys and len(self._keys) < of_clients.MOST_KEYS:
            self._keys.add(key)
            for metric in (of_clients.KEY_REQUESTS, of_clients.KEY_TOKENS):
                self.record(metric, 0, {**self.labels, "key": key})
        return key if key in self._keys else of_clients.OTHER_KEYS

    def compared(self, arm: str, *, has_failed: bool) -> None:
        """Counts a request in an experiment, for its `baseline` or `candidate`."""
        labels = {**self.labels, "arm": arm, "result": "failed" if has_failed else "answered"}
        self.record(of_clients.EXPERIMENT_REQUESTS, 1, labels)

    def rated(self, arm: str, value: float) -> None:
        """Counts a rating from 0 to 1."""
        self.record(of_clients.FEEDBACK, 1, {**self.labels, "arm": arm})
        self.record(of_clients.FEEDBACK_VALUE, value, {**self.labels, "arm": arm})

    def rolled_back(self) -> None:
        """Counts that the candidate was found worse and gets no more requests."""
        self.record(of_clients.EXPERIMENT_ROLLBACKS, 1, self.labels)

    def explained(self) -> None:
        """Counts an explanation."""
        self.record(of_clients.EXPLANATIONS, 1, self.labels)

    def batch(self, size: int) -> None:
        """Records the size of a batch."""
        self.record(catalogue.BATCH_SIZE, size, self.labels)

    def phase(self, name: str, seconds: float, span: Span | None = None) -> None:
        """Records the seconds of an input or a sequence in `queue`, `compute`, `prefill` or `decode`, which ends now.

        `span` is that of the request, if it has one.
        """
        self.record(catalogue.REQUEST_PHASE_SECONDS, seconds, {**self.labels, "phase": name})
        if span is not None:
            span.add(name, seconds)

    def engine(self, running: int, waiting: int, cache_used: float) -> None:
        """Records how many sequences an engine computes, how many wait, and the share of its KV cache in use."""
        self.record(catalogue.SEQUENCES, running, {**self.labels, "state": "running"})
        self.record(catalogue.SEQUENCES, waiting, {**self.labels, "state": "waiting"})
        self.record(catalogue.KV_CACHE_USED, cache_used, self.labels)

    def prefix_cache(self, queried: int, hit: int) -> None:
        """Counts prompt tokens that were looked up in the prefix cache, and those that were there."""
        self.record(catalogue.PREFIX_CACHE_TOKENS, queried, {**self.labels, "outcome": "queried"})
        self.record(catalogue.PREFIX_CACHE_TOKENS, hit, {**self.labels, "outcome": "hit"})

    def inter_token(self, seconds: float, adapter: str = "", tokens: int = 1) -> None:
        """Records that `tokens` came `seconds` after those before them."""
        for _ in range(tokens):
            self.record(catalogue.INTER_TOKEN_SECONDS, seconds / tokens, {**self.labels, "adapter": adapter})

    def objectives(self, promised: Objectives) -> None:
        """Records what the spec promises."""
        self.record(catalogue.OBJECTIVE_AVAILABILITY, promised.availability, self.labels)
        times = {"latency": promised.latency_seconds, "first_token": promised.first_token_seconds}
        for objective, quantiles in times.items():
            for quantile, seconds in quantiles.items():
                labels = {**self.labels, "objective": objective, "quantile": quantile}
                self.record(catalogue.OBJECTIVE_SECONDS, seconds, labels)

    def certificate(self, expires_at: float) -> None:
        """Records when the certificate ends that clients see (Unix time)."""
        self.record(catalogue.CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS, expires_at, self.labels)

    def drift(self, column: str, psi: float, p_value: float, *, has_drifted: bool) -> None:
        """Records how far a column is from the training split, and whether that is drift."""
        labels = {**self.labels, "column": column}
        self.record(catalogue.DRIFT_PSI, psi, labels)
        self.record(catalogue.DRIFT_P_VALUE, p_value, labels)
        self.record(catalogue.DRIFT_DETECTED, float(has_drifted), labels)

    def drift_columns(self, states: Mapping[str, int]) -> None:
        """Records how many columns are in each state."""
        for state in catalogue.LABELS["verdict"].values:
            self.record(catalogue.DRIFT_COLUMNS, states.get(state, 0), {**self.labels, "verdict": state})

    def loaded(self, seconds: float) -> None:
        """Records how long the replica took from the start of its process until it could answer."""
        self.record(catalogue.LOAD_SECONDS, seconds, self.labels)

    def tokens(self, kind: str, count: int, adapter: str = "") -> None:
        """Counts tokens read (`prompt`), those of them that are `unknown`, or those generated (`completion`)."""
        if count:
            self.record(catalogue.TOKENS, count, {**self.labels, "adapter": adapter, "kind": kind})
            if kind in TOKENS and (span := current()) is not None:
                span.count(TOKENS[kind], count)

    def first_token(self, seconds: float, adapter: str = "") -> None:
        """Records the seconds from a request to its first token."""
        self.record(catalogue.TIME_TO_FIRST_TOKEN_SECONDS, seconds, {**self.labels, "adapter": adapter})
        self._waits.append(seconds)
        if (span := current()) is not None:
            span.set({FIRST_CHUNK_SECONDS: seconds})

    def mean_first_token_seconds(self) -> float | None:
        """Mean time to first token in seconds since the last call; None if there was none."""
        waits = [self._waits.popleft() for _ in range(len(self._waits))]
        return fmean(waits) if waits else None
