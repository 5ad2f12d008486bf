"""Things that break for real, the alerts that fire in Alertmanager for them, and that they end. Run by `make faults`.

A minute of our rules is a second here (`tests/prometheus.py`), and Ray reports each second.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
import yaml

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.session import session
from heliostat.infra.drift.reference import Reference, number_bins, write_reference
from heliostat.infra.storage.store import open_store
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import add_key, generate_key
from heliostat.serve.deploy.launch import Endpoint, deploy, undeploy
from tests.certificates import write_certificate
from tests.integration.observed import replica_pids
from tests.integration.tiny_models import app_args, classifier, generator, publish
from tests.ports import free_port
from tests.prometheus import SECONDS, Alertmanager, Prometheus, alertmanager, fast_rules, prometheus
from tests.waiting import until

pytestmark = pytest.mark.faults
KEY = generate_key()
PORT, TLS_PORT = free_port(), free_port()
MISCHIEF = """
from heliostat.__main__ import main
from heliostat.train import launch

FOLDER = {folder!r}

def work(config):
    import os, time
    from pathlib import Path
    import ray.train, torch
    from heliostat.train.tasks.text_classification import TextClassification as Task
    from heliostat.train.worker import work
    folder, rank = Path(FOLDER), ray.train.get_context().get_world_rank()
    (folder / f"pid-{{rank}}").write_text(str(os.getpid()))
    collate, loss = Task.collate, Task.loss

    def slow(self, rows, indices):
        time.sleep(0.5 if rank == 1 and (folder / "slow").exists() else 0.02)
        return collate(self, rows, indices)

    def poisoned(self, engine, batch):
        found = loss(self, engine, batch)
        if rank == 0 and (folder / "poison").exists():
            (folder / "poison").unlink()
            return found * float("nan")
        return found

    Task.collate, Task.loss = slow, poisoned
    work(config)

launch.run_worker = work
main()
"""
"""A driver whose worker 1 is slow, and whose worker 0 has a loss of NaN, while files of these names exist."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Alertmanager]]:
    """A Ray, and what watches it."""
    folder = tmp_path_factory.mktemp("alerts")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="hs-", dir="/tmp") as ray_folder:
        patch.setenv("RAY_TMPDIR", ray_folder)
        patch.setenv(ENVIRONMENT, KEY)
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with (
            session(ClusterConfig(num_cpus=4), cpus=2),
            alertmanager(folder) as alerts,
            prometheus(folder, rules=fast_rules(folder / "rules.yaml"), tells=alerts) as server,
        ):
            yield server, alerts


@contextmanager
def training(folder: Path, values: dict[str, Any]) -> Iterator[Path]:
    """`heliostat train` on the Ray in use, with two workers; what it logs is in the file."""
    spec = folder / "tiny.yaml"
    spec.write_text(yaml.safe_dump({**values, "storage": {"url": str(folder / "storage")}}))
    address = f"cluster.address={ray.get_runtime_context().gcs_address}"
    script = MISCHIEF.format(folder=str(folder))
    command = [sys.executable, "-c", script, "train", str(spec), "train.epochs=9999", "train.zero_stage=2", address]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            yield folder / "log"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=2 * SECONDS)


def test_training_that_goes_wrong(
    watched: tuple[Prometheus, Alertmanager], tmp_path: Path, tiny_values: dict[str, Any]
) -> None:
    server, alerts = watched
    run = {"model": "tiny"}
    with training(tmp_path, tiny_values) as log:
        until(lambda: len(server.now("rate(ray_heliostat_train_steps_total[5s]) > 0")) == 2, "both train", 2 * SECONDS)
        alerts.ends("HeliostatTrainingThroughputHalved")  # at first there is no throughput

        (tmp_path / "poison").touch()
        alerts.fires("HeliostatTrainingStepsSkipped", **run)
        alerts.ends("HeliostatTrainingStepsSkipped")

        (tmp_path / "slow").touch()
        alerts.fires("HeliostatTrainingStraggler", rank="1", **run)
        alerts.fires("HeliostatTrainingWaitsForData", **run)
        (tmp_path / "slow").unlink()
        alerts.ends("HeliostatTrainingStraggler", "HeliostatTrainingWaitsForData", "HeliostatTrainingThroughputHalved")

        pid = int((tmp_path / "pid-1").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            named = rf"rank 1 \(process {pid} on [\d.]+\) has said nothing for (\d+) s, since step \d+; the other"
            until(lambda: re.search(named, log.read_text()), "the log names the worker that is stopped", SECONDS)
            alerts.fires("HeliostatTrainingWorkerSilent", rank="1", **run)
            alerts.fires("HeliostatTrainingStalled", **run)
        finally:
            os.kill(pid, signal.SIGCONT)
        found = re.search(named, log.read_text())
        assert found
        assert int(found[1]) <= 10
        alerts.ends("HeliostatTrainingWorkerSilent", "HeliostatTrainingStalled")
        until(lambda: "goes on, after" in log.read_text(), "the log tells that it goes on", SECONDS)
    alerts.is_quiet()


def classifier_of_long_texts(folder: Path) -> dict[str, Any]:
    """A classifier that was trained on texts of 10 to 16 tokens, as it says; returns its probe."""
    lengths = np.arange(2000) % 7 + 10.0
    write_reference(folder.parent, Reference(columns=(number_bins("length", lengths),)))
    return classifier(folder)


def served(name: str, kind: str, storage: Path, **config: Any) -> Endpoint:
    """An endpoint of a tiny model."""
    published = publish(storage, name, kind, classifier_of_long_texts if kind == "text-classification" else generator)
    tls = {"certificate": str(storage.parent / "server.pem"), "port": TLS_PORT}
    settings = {"port": PORT, "tls": tls, "cpus_per_replica": 0.5, "timeout_seconds": 20, **config}
    return deploy(app_args(name, published, storage, "1", settings))


@contextmanager
def asking(endpoint: Endpoint, path: str, body: dict[str, Any], clients: int = 1) -> Iterator[None]:
    """Clients that ask again and again, whatever is answered, while the block runs."""
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=60, verify=False) as http:
            while not done.is_set():
                with suppress(httpx.HTTPError):
                    http.post(f"{endpoint.url}{path}", json=body)

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(ask) for _ in range(clients)]
        try:
            yield
        finally:
            done.set()
    for one in asked:
        one.result()


def test_endpoints_that_go_wrong(watched: tuple[Prometheus, Alertmanager], tmp_path: Path) -> None:
    _, alerts = watched
    storage = tmp_path / "storage"
    write_certificate(tmp_path / "server.pem")
    few = {"max_ongoing_requests": 1, "max_batch_size": 1, "objectives": {"latency_seconds": {"p95": 0.001}}}
    quick = served("classifier", "text-classification", storage, **few)
    late = {"timeout_seconds": 0.2, "max_tokens": 1900, "objectives": {"first_token_seconds": {"p95": 0.001}}}
    writer = served("writer", "causal-lm", storage, **late)
    one, other = {"model": "classifier"}, {"model": "writer"}
    alerts.fires("HeliostatCertificateEnds", **one)

    with asking(quick, "/v1/predict", {"text": "a joy"}, clients=16):
        alerts.fires("HeliostatLatencyHigh", **one, quantile="p95")
        alerts.fires("HeliostatRequestsRejected", **one)
        alerts.fires("HeliostatDrift", **one, column="length")
    alerts.ends("HeliostatLatencyHigh", "HeliostatRequestsRejected")

    with asking(writer, "/v1/completions", {"model": "writer", "prompt": "the film", "max_tokens": 1900}, clients=2):
        alerts.fires("HeliostatErrorBudgetBurnsFast", **other)
        alerts.fires("HeliostatErrorBudgetBurnsSlow", **other)
        alerts.fires("HeliostatFirstTokenSlow", **other, quantile="p95")
    alerts.ends("HeliostatErrorBudgetBurnsFast", "HeliostatErrorBudgetBurnsSlow", "HeliostatFirstTokenSlow")

    def is_alone() -> bool:
        for pid in replica_pids("classifier"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(alerts.firing("HeliostatEndpointWithoutReplicas"))

    until(is_alone, "the alert for an endpoint whose replicas are killed", SECONDS)
    alerts.fires("HeliostatEndpointWithoutReplicas", application="classifier")
    alerts.ends("HeliostatEndpointWithoutReplicas", "HeliostatReplicasMissing")

    (stuck,) = replica_pids("writer")
    os.kill(stuck, signal.SIGSTOP)
    with asking(writer, "/v1/completions", {"model": "writer", "prompt": "the film", "max_tokens": 8}, clients=8):
        alerts.fires("HeliostatRequestsLost", application="writer")
    with suppress(ProcessLookupError):  # Ray has replaced it
        os.kill(stuck, signal.SIGKILL)
    alerts.ends("HeliostatRequestsLost")

    add_key(open_store(str(storage)), "damaged")
    (file,) = [path for path in (storage / "keys").rglob("*") if path.is_file()]
    file.write_text("{")
    alerts.fires("HeliostatKeysDamaged", **one)
    file.unlink()
    alerts.ends("HeliostatKeysDamaged")

    storage.rename(tmp_path / "away")
    storage.write_text("no folder")
    alerts.fires("HeliostatStorageErrors", operation="list")
    alerts.fires("HeliostatKeysNotRead", **one)
    storage.unlink()
    (tmp_path / "away").rename(storage)
    alerts.ends("HeliostatKeysNotRead", "HeliostatStorageErrors")

    undeploy("classifier")
    undeploy("writer")
    alerts.is_quiet()
