"""Counts of replicas, together, against a reference; hours pass by a clock of the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from heliostat.infra.drift.reference import LABEL, SCORE, Reference, category_bins, number_bins
from heliostat.infra.drift.statistics import TableStatistics
from heliostat.serve.drift import watch as watching
from heliostat.serve.drift.watch import DriftWatch
from heliostat.serve.drift.window import SLOT_SECONDS, DriftLedger
from heliostat.serve.errors import RequestError
from heliostat.serve.predictors.tables import TableRequest, Tables
from tests.tiny_programs import ROW, TABLE
from tests.unit.serve.conftest import Recorded
from tests.waiting import until

HOUR = float(SLOT_SECONDS)


def rows(count: int, seed: int = 0, colours: tuple[str, ...] = ("black", "white")) -> list[dict[str, Any]]:
    """Rows of the training distribution."""
    generator = np.random.default_rng(seed)
    return [
        {
            "age": generator.normal(40, 10),
            "weight in kg": None if generator.random() < 0.1 else generator.normal(70, 5),
            "size": str(generator.choice(("1", "2", "large"))),
            "colour": str(generator.choice(colours)),
        }
        for _ in range(count)
    ]


def reference() -> Reference:
    statistics = TableStatistics(TABLE)
    found = rows(3000, seed=7)
    values = statistics.values([TABLE.features(row) for row in found])
    values["weight in kg"][[row["weight in kg"] is None for row in found]] = np.nan
    bins = [
        category_bins(name, one) if name in statistics.categories else number_bins(name, one)
        for name, one in values.items()
    ]
    answers = np.random.default_rng(1).random(500)
    return Reference(
        columns=(*bins, category_bins(LABEL, (answers > 0.5).astype(float)), number_bins(SCORE, 0.5 + answers / 2)),
        left_out=2,
    )


class Replicas:
    """Replicas of an endpoint with their ledger, on one clock."""

    def __init__(self, count: int) -> None:
        self.now = 1000 * HOUR
        self.ledger = DriftLedger(self.clock)
        self.recorded = [Recorded() for _ in range(count)]
        self.watches = [self.watch(one) for one in self.recorded]

    def clock(self) -> float:
        return self.now

    def watch(self, recorded: Recorded) -> DriftWatch:
        return DriftWatch(reference(), TableStatistics(TABLE), recorded.metrics, self.exchange, self.clock)

    def exchange(self, *report: Any) -> Any:
        return self.ledger.exchange(*report)

    def ask(self, replica: int, given: list[dict[str, Any]]) -> None:
        scores = np.random.default_rng(len(given)).random(len(given))
        for row, score in zip(given, scores, strict=True):
            missing = [name for name, value in row.items() if value is None]
            self.watches[replica].add(TABLE.features(row), missing, (1 - score, score))
        self.watches[replica].count()

    def drifted(self, replica: int) -> set[str]:
        """The columns that a replica finds to have drifted now."""
        for watch in (*self.watches, *self.watches):
            watch.share()
        recorded = self.recorded[replica]
        recorded.values.clear()
        self.watches[replica].report()
        found = recorded.of("heliostat_drift_detected")
        columns = recorded.labels_of("heliostat_drift_detected", "column")
        return {column for column, value in zip(columns, found, strict=True) if value}

    def verdicts(self, replica: int) -> dict[str, float]:
        recorded = self.recorded[replica]
        names = recorded.labels_of("heliostat_drift_columns", "verdict")
        return dict(zip(names, recorded.of("heliostat_drift_columns"), strict=True))


def test_replicas_are_judged_together() -> None:
    replicas = Replicas(3)
    for number in range(3):
        replicas.ask(number, rows(300, seed=number))
    assert replicas.drifted(0) == set()
    assert replicas.verdicts(0) == {"stable": 6, "drifted": 0, "too_few": 0, "left_out": 2}


def test_few_rows_are_not_judged() -> None:
    replicas = Replicas(2)
    replicas.ask(0, rows(300, colours=("white",)))
    assert replicas.drifted(1) == set()
    assert replicas.verdicts(1) == {"stable": 0, "drifted": 0, "too_few": 6, "left_out": 2}
    assert replicas.recorded[1].of("heliostat_drift_psi") == [0] * 6
    assert replicas.recorded[1].of("heliostat_drift_p_value") == [1] * 6


def test_a_word_that_vanishes_is_drift_until_its_day_is_over() -> None:
    replicas = Replicas(2)
    replicas.ask(0, rows(300, colours=("white",)))
    replicas.ask(1, rows(300, seed=1, colours=("white",)))
    assert replicas.drifted(0) == replicas.drifted(1) == {"colour"}
    replicas.now += 23 * HOUR
    assert replicas.drifted(0) == {"colour"}
    replicas.now += HOUR
    assert replicas.drifted(0) == set()
    assert replicas.verdicts(0)["too_few"] == 6


def test_what_a_replica_counted_outlives_it() -> None:
    replicas = Replicas(2)
    replicas.ask(0, rows(600, colours=("white",)))
    replicas.watches[0].share()
    gone = replicas.watches.pop(0)
    gone.close()
    replicas.recorded.pop(0)
    assert replicas.drifted(0) == {"colour"}


def test_a_report_that_comes_late_changes_nothing() -> None:
    ledger = DriftLedger(lambda: 0.0)
    ledger.exchange("1", "a", 2, {0: np.array([4])})
    ledger.exchange("1", "a", 1, {0: np.array([3])})
    assert ledger.exchange("1", "b", 1, {}) == np.array([4])
    assert ledger.exchange("2", "b", 1, {}) is None


def test_a_replica_without_ledger_judges_alone(caplog: pytest.LogCaptureFixture) -> None:
    replicas = Replicas(1)

    def fail(*report: Any) -> Any:
        raise ConnectionError("away")

    replicas.exchange = fail  # type: ignore[method-assign]
    replicas.watches = [replicas.watch(replicas.recorded[0])]
    replicas.ask(0, rows(600, colours=("white",)))
    assert replicas.drifted(0) == {"colour"}
    assert caplog.text.count("away") == 1


def test_inputs_that_cannot_be_counted_end_no_watch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "COUNT_SECONDS", 0.01)
    monkeypatch.setattr(watching, "JUDGE_SECONDS", 0.0)
    replicas = Replicas(1)
    (one,) = replicas.watches
    one.start()
    one.add([0.0], (), (0.5, 0.5))  # a row of another table
    until(lambda: "not counted" in caplog.text, "the failure is logged", 30)
    for row in rows(600):
        one.add(TABLE.features({**row, "weight in kg": 70.0}), (), (0.4, 0.6))
    until(lambda: replicas.verdicts(0)["too_few"] == 0, "the next rows are judged", 30)
    one.close()


def test_missing_cells_are_drift() -> None:
    replicas = Replicas(1)
    replicas.ask(0, [{**row, "weight in kg": None} for row in rows(600)])
    assert replicas.drifted(0) == {"weight in kg"}


def test_a_day_of_rows_as_in_training_is_no_drift() -> None:
    """The whole way from rows to the verdict: 100,800 rows in 24 hours of an endpoint with two replicas."""
    replicas = Replicas(2)
    of_an_hour = [TABLE.features(row) for row in rows(2100, seed=3)]
    generator, found = np.random.default_rng(5), set()
    for _ in range(24):
        for watch in replicas.watches:
            for at in np.split(generator.permutation(2100), 3):
                for row in at:
                    score = generator.random()
                    missing = ["weight in kg"] if of_an_hour[row][1] == 0.0 else []
                    watch.add(of_an_hour[row], missing, (1 - score, score))
                watch.count()
        found |= replicas.drifted(0)
        replicas.now += HOUR
    assert found == set()
    assert replicas.verdicts(0)["stable"] == 6


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables(TABLE)
    yield made
    made.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("cell", "column"),
    [({"size": "huge"}, "size"), ({"size": None}, "size"), ({"age": None}, "age"), ({"age": "old"}, None)],
)
async def test_cells_that_are_refused_are_drift(tables: Tables, cell: dict[str, Any], column: str | None) -> None:
    """A word that the training split does not have is refused with 422, and its column tells."""
    replicas = Replicas(1)
    tables.drift = replicas.watches[0]
    replicas.ask(0, rows(600))
    for _ in range(100):
        with pytest.raises(RequestError):
            await tables.items(TableRequest(row={**ROW, **cell}))
    replicas.watches[0].count()
    assert replicas.drifted(0) == ({column} if column else set())


@pytest.mark.anyio
async def test_rows_say_which_cells_were_missing(tables: Tables) -> None:
    given = await tables.items(TableRequest(rows=[ROW, {**ROW, "weight in kg": None, "colour": " "}]))
    assert [one.missing for one in given] == [(), ("weight in kg", "colour")]
