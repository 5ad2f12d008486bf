"""What the exporter tells of a storage and a registry, how often it looks, and that it never hangs."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from heliostat.infra.errors import ResourceError, StorageError
from heliostat.infra.exporter import collector as collecting
from heliostat.infra.exporter import source as sources
from heliostat.infra.exporter.collector import MOST_VERSIONS, ExporterCollector
from heliostat.infra.exporter.server import serving
from heliostat.infra.exporter.source import Source
from heliostat.infra.exporter.storage import MOST_READS, MOST_RUNS, Inventory, StorageLook
from heliostat.infra.metrics.of_storage import EXPORTED, FOLDERS
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.storage.local import LocalStore
from tests.unit.infra.exporter.stores import CountingStore, counting_store, put, put_run, version
from tests.waiting import until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return counting_store(tmp_path)


def exporter(
    look: Callable[[], Inventory], versions: Callable[[], list[ModelVersion]] = list, every: float = 60
) -> ExporterCollector:
    return ExporterCollector(Source("storage", look, every), Source("registry", versions, every))


@pytest.fixture
def now() -> float:
    """Unix time when the test begins."""
    return time.time()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first scrape waits until the first look has ended, however slow the machine is."""
    monkeypatch.setattr(collecting, "FIRST_SECONDS", 60.0)


def scraped(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def scrape() -> Callable[[ExporterCollector], Samples]:
    def ask(found: ExporterCollector) -> Samples:
        with serving(found, "127.0.0.1", 0) as port:
            return scraped(f"http://127.0.0.1:{port}/metrics")

    return ask


Scrape = Callable[[ExporterCollector], Samples]


def of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def states(samples: Samples) -> dict[str, str]:
    """The state of each run."""
    return {dict(labels)["run"]: dict(labels)["state"] for name, labels in samples if name == "heliostat_run_state"}


@pytest.mark.usefixtures("patient")
def test_a_run_is_told_with_its_state_checkpoints_and_drivers(now: float, store: CountingStore, scrape: Scrape) -> None:
    put_run(store, "m", "r1", "running", now, now - 400, now - 100, drivers=3)
    samples = scrape(exporter(StorageLook(store)))
    run = {"model": "m", "run": "r1"}
    assert of(samples, "heliostat_run_state", state="running", **run) == 1
    assert of(samples, "heliostat_run_drivers", **run) == 3
    assert of(samples, "heliostat_run_checkpoints", **run) == 2
    assert of(samples, "heliostat_run_checkpoint_timestamp_seconds", **run) == pytest.approx(now - 100)
    assert of(samples, "heliostat_run_checkpoint_interval_seconds", **run) == pytest.approx(300)
    assert of(samples, "heliostat_run_progress_timestamp_seconds", **run) == pytest.approx(now - 100)
    assert of(samples, "heliostat_run_bytes", **run) == sum(entry.size_bytes for entry in store.list("runs/m/r1"))


@pytest.mark.usefixtures("patient")
def test_a_state_is_that_of_the_record_and_the_driver(now: float, store: CountingStore, scrape: Scrape) -> None:
    put_run(store, "m", "alive", "running", now)
    put_run(store, "m", "left", "running", now - 600)
    put_run(store, "m", "done", "finished", now - 600)
    put_run(store, "m", "damaged", "running", now)
    put(store, "runs/m/damaged/run.json", b"{")
    put(store, "runs/m/newest.json")
    put(store, "runs/m/no-record/trials.csv")
    expected = {"alive": "running", "left": "interrupted", "done": "finished", "damaged": "unread"}
    assert states(scrape(exporter(StorageLook(store)))) == expected


@pytest.mark.usefixtures("patient")
def test_bytes_are_told_by_folder(store: CountingStore, scrape: Scrape) -> None:
    for key in ("data/f1/part", "data/f1/more", "keys/a.json", "mlflow.db", "mlflow/1/x", "mine/x", "loose"):
        put(store, key, b"123")
    samples = scrape(exporter(StorageLook(store)))
    found = {name: of(samples, "heliostat_stored_bytes", folder=name) for name in (*FOLDERS, "other")}
    assert found == {**dict.fromkeys(FOLDERS, 0), "data": 6, "keys": 3, "mlflow": 6, "other": 6}
    assert of(samples, "heliostat_stored_objects", folder="data") == 2


@pytest.mark.usefixtures("patient")
def test_models_are_told_with_versions_and_aliases(now: float, store: CountingStore, scrape: Scrape) -> None:
    versions = [version("m", 2, now - 5, "staging"), version("m", 1, now - 9, "production"), version("n", 1, now)]
    samples = scrape(exporter(StorageLook(store), lambda: versions))
    assert of(samples, "heliostat_model_versions", model="m") == 2
    assert of(samples, "heliostat_model_alias_version", model="m", alias="production") == 1
    assert of(samples, "heliostat_model_version_timestamp_seconds", model="m", version="2") == pytest.approx(now - 5)


@pytest.mark.usefixtures("patient")
def test_every_metric_is_in_the_catalogue_and_has_its_labels(now: float, store: CountingStore, scrape: Scrape) -> None:
    put_run(store, "m", "r1", "running", now, now - 400, now - 100)
    samples = scrape(exporter(StorageLook(store), lambda: [version("m", 1, now, "production")]))
    labels = {name: {label for label, _ in found} for name, found in samples}
    assert labels == {metric.name: set(metric.labels) for metric in EXPORTED}


def test_fifty_runs_and_two_hundred_versions_take_twenty_calls_at_most(now: float, store: CountingStore) -> None:
    for number in range(50):
        put_run(store, "m", f"r{number:02}", "finished", now - 1000 - number, now - 2000)
    for number in range(200):
        put(store, f"models/m/{number}/manifest.json")
    look = StorageLook(store)
    calls = []
    for _ in range(5):
        store.calls.clear()
        found = look()
        calls.append(len(store.calls))
    assert calls == [1 + MOST_READS, 1 + MOST_READS, 1 + MOST_READS, 1 + 50 - 3 * MOST_READS, 1]
    assert max(calls) <= 20
    assert set(found.states.values()) == {"finished"}


def test_a_record_that_changes_is_read_again_and_the_newest_runs_first(now: float, store: CountingStore) -> None:
    put_run(store, "m", "old", "finished", now - 9000)
    put_run(store, "m", "new", "running", now)
    look = StorageLook(store)
    look()
    assert store.calls[1:] == ["read runs/m/new/run.json", "read runs/m/old/run.json"]
    store.calls.clear()
    put_run(store, "m", "new", "finished", now + 10)
    assert look().states["runs/m/new/run.json"] == "finished"
    assert store.calls[1:] == ["read runs/m/new/run.json"]


@pytest.mark.usefixtures("patient")
def test_series_are_bounded_and_what_is_left_out_is_counted(now: float, store: CountingStore, scrape: Scrape) -> None:
    for number in range(MOST_RUNS + 7):
        put(store, f"runs/m/r{number:03}/run.json", b"{}", now - 1000 + number)
    versions = [version("m", number, now + number, f"a{number}") for number in range(MOST_VERSIONS + 9)]
    samples = scrape(exporter(StorageLook(store), lambda: versions))
    assert len(states(samples)) == MOST_RUNS
    assert "r000" not in states(samples)
    shown = [labels for name, labels in samples if name == "heliostat_model_version_timestamp_seconds"]
    assert len(shown) == MOST_VERSIONS
    left_out = {what: of(samples, "heliostat_exporter_left_out", what=what) for what in ("runs", "versions", "aliases")}
    assert left_out == {"runs": 7, "versions": 9, "aliases": 9}


@pytest.mark.usefixtures("patient")
def test_many_scrapes_look_once(store: CountingStore) -> None:
    found = exporter(StorageLook(store))
    with serving(found, "127.0.0.1", 0) as port:
        for _ in range(5):
            scraped(f"http://127.0.0.1:{port}/metrics")
    assert store.calls == ["list "]


@pytest.mark.usefixtures("patient")
def test_a_storage_that_fails_is_told_and_the_registry_shown(now: float, tmp_path: Path, scrape: Scrape) -> None:
    (tmp_path / "file").write_text("no folder")
    denied = StorageError("/data: cannot list: Permission denied")

    def fail() -> Inventory:
        raise denied

    samples = scrape(exporter(fail, lambda: [version("m", 1, now)]))
    assert of(samples, "heliostat_exporter_up", source="storage") == 0
    assert of(samples, "heliostat_exporter_up", source="registry") == 1
    assert of(samples, "heliostat_exporter_errors_total", source="storage") == 1
    assert of(samples, "heliostat_model_versions", model="m") == 1
    assert not states(samples)


def test_a_storage_that_hangs_holds_up_no_scrape_and_is_asked_once(
    now: float, store: CountingStore, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(sources, "LATE_SECONDS", 0.0)
    put_run(store, "m", "r1", "finished", now)
    let_go, looks, look = threading.Event(), [], StorageLook(store)

    def hang_from_the_second_on() -> Inventory:
        looks.append(1)
        if len(looks) > 1:
            let_go.wait(60)
        return look()

    found = exporter(hang_from_the_second_on, every=0)
    until(lambda: bool(states(scrape(found))), "the first look", 30)
    until(lambda: not is_up(scrape(found)) and len(looks) == 2, "the look that hangs is told", 30)
    for _ in range(3):
        assert states(scrape(found)) == {"r1": "finished"}, "the last answer"
    assert len(looks) == 2
    monkeypatch.setattr(sources, "LATE_SECONDS", 60.0)
    let_go.set()
    until(lambda: is_up(scrape(found)) and len(looks) > 2, "it is looked at again", 30)


def is_up(samples: Samples) -> bool:
    return of(samples, "heliostat_exporter_up", source="storage") == 1


def test_answers_that_are_too_old_are_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source("storage", lambda: 7)
    source.begin()
    until(lambda: source.answer(0).value == 7, "the look", 30)
    monkeypatch.setattr(sources, "KEPT_SECONDS", -1.0)
    assert source.answer(0).value is None
    assert source.answer(0).at > 0


def test_a_port_in_use_is_named(store: CountingStore) -> None:
    found = exporter(StorageLook(store))
    with (
        serving(found, "127.0.0.1", 0) as port,
        pytest.raises(ResourceError, match=f"--port: {port} of 127.0.0.1 cannot be had"),
        serving(found, "127.0.0.1", port),
    ):
        pass


def test_a_folder_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert StorageLook(LocalStore(str(tmp_path / "none")))().runs == ()
