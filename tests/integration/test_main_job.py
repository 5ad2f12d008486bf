"""The main job against a real S3 server: prepare, train, lose the driver, resume, publish, tune, evaluate, serve."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cluster.session.leftovers import leftovers
from heliostat.infra import tracking
from heliostat.infra.bf16 import has_bf16
from heliostat.infra.errors import IntegrityError
from heliostat.infra.registry import registry
from heliostat.infra.registry.published import parse_description
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.storage.store import open_store
from heliostat.pipeline import prepare, serve, sessions, tune
from heliostat.spec import Spec, load_spec
from heliostat.tune.ranking import outcome
from heliostat.view.terminal import View
from tests.ports import free_port

EPOCHS = 10
AUTO, OTHER = ("bf16", "fp32") if has_bf16("cpu") else ("fp32", "bf16")
"""What `precision: auto` is here, and what it is on a machine with another CPU."""


@pytest.fixture
def spec(tmp_path: Path, s3_url: str, tiny_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Spec:
    """The tiny spec with all of its storage in the bucket, and with nothing shared with other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIOSTAT_STORAGE", s3_url)
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HELIOSTAT_API_KEYS", "secret-of-the-test")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values))
    return load_spec("tiny.yaml", [f"serve.port={free_port()}"])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "heliostat", *arguments]


def run(*arguments: str) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_everything_is_in_the_bucket_and_survives_the_loss_of_the_driver(spec: Spec) -> None:
    kill_after_first_checkpoint(spec)
    keys = [entry.key for entry in open_store(spec.storage).list(f"runs/{spec.name}")]
    assert not any("models/" in key for key in keys)

    said = run("train", "tiny.yaml", f"train.epochs={EPOCHS}", "train.checkpoint_every=20", "--resume")
    assert "Published tiny" in said
    version = registry.resolve(spec.storage, f"models:/{spec.name}@production")
    assert version.version == 1
    assert version.metrics["accuracy"] > 0.9
    assert version.url.startswith(spec.storage.url)
    tops = {entry.key.split("/")[0] for entry in open_store(spec.storage).list()}
    assert tops >= {"data", "runs", "models"}
    the_report_shows_the_whole_run(spec, said, version)
    the_precision_is_still_that_of_the_machine_where_the_run_began(version, spec)

    done = subprocess.run(command("train", "tiny.yaml", "--resume"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has finished (version 1)" in done.stderr

    measured = run("evaluate", "tiny.yaml")
    assert "accuracy" in measured
    assert f"{spec.storage.url}/evaluations/tiny/1-" in measured
    serve_then_refuse_an_altered_byte(spec)


def the_report_shows_the_whole_run(spec: Spec, said: str, version: ModelVersion) -> None:
    """The report is where the command says, and draws the steps of before the driver was lost, too."""
    store, run_id = open_store(spec.storage), version.url.rsplit("/", 1)[1]
    key = f"runs/{spec.name}/{run_id}/report.html"
    assert f"{store.url}/{key}" in said
    page = store.read_bytes(key).decode()
    assert f"Version 1, published by run {run_id}" in page
    assert version.digest in page
    assert f"<dt>accuracy</dt><dd>{version.metrics['accuracy']:.4g}</dd>" in page
    losses = re.findall(r'<path class="raw" d="M([^"]+)"', page)[0].split()
    steps = int(re.findall(r"<title>step (\d+):", page)[-1])
    assert steps - 20 < len(losses) <= steps, "what was not sent yet may be missing, but not all before the checkpoint"
    kept = tracking.client(spec.storage).list_artifacts(version.run_id)
    assert [one.path for one in kept] == ["report.html"]


def the_precision_is_still_that_of_the_machine_where_the_run_began(version: ModelVersion, spec: Spec) -> None:
    described = parse_description(open_store(version.url).read_bytes("heliostat.json"), version.url)
    assert described.precision == OTHER
    kept = tracking.client(spec.storage).get_run(str(version.run_id))
    assert kept.data.params["precision"] == OTHER


def kill_after_first_checkpoint(spec: Spec) -> None:
    """Starts a run, as on another machine, and ends its driver with SIGKILL once a checkpoint is complete."""
    there = f"train.precision={OTHER}"
    process = subprocess.Popen(
        command("train", "tiny.yaml", f"train.epochs={EPOCHS}", "train.checkpoint_every=20", there),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    store = open_store(spec.storage)
    while not any(entry.key.endswith("checkpoints/latest.json") for entry in store.list(f"runs/{spec.name}")):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < until, "no checkpoint"
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run_id = json.loads(store.read_bytes(f"runs/{spec.name}/newest.json"))["run_id"]
    assert json.loads(store.read_bytes(f"runs/{spec.name}/{run_id}/run.json"))["status"] == "running"


def serve_then_refuse_an_altered_byte(spec: Spec) -> None:
    """Serves the published model; the same bundle with one byte changed is refused, and nothing stays behind."""
    from heliostat.serve.deploy.launch import undeploy

    model = serve.resolve_model(spec, None)
    with sessions.serving_session(spec):
        endpoint = serve.run(serve.app_args(spec, model), View())
        body = json.dumps({"text": "the film was superb moving warm"}).encode()
        headers = {"Authorization": "Bearer secret-of-the-test", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint.url}/v1/predict", body, headers)) as response:
            answer = json.load(response)
        assert answer["version"] == "1"
        assert answer["predictions"][0]["label"] == "positive"
        undeploy(spec.name)

        store = open_store(model.url)
        weights = bytearray(store.read_bytes("model/model.safetensors"))
        weights[-1] ^= 1
        store.write_bytes("model/model.safetensors", bytes(weights))
        with pytest.raises(IntegrityError, match=r"model\.safetensors"):
            serve.run(serve.app_args(spec, model), View())
        assert leftovers(patience_seconds=15) == []


@pytest.mark.slow
def test_a_search_finds_the_better_rate_and_gives_everything_back(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    local = spec.model_copy(update={"storage": spec.storage.model_copy(update={"url": str(tmp_path / "storage")})})
    with sessions.session(local):
        prepared = prepare.run(local, View())
        best, found = tune.run(local, prepared, View())
        assert (best.train.learning_rate, best.train.precision) == (1e-2, AUTO)
        assert len(found.trials) == 4
        assert {outcome(trial) for trial in found.trials} == {"finished", "paused"}
        assert found.best.share == 1
        rivals = [found.objectives[0].best(trial) for trial in found.trials if trial.share == 1]
        assert found.objectives[0].best(found.best) == max(rivals)
        assert leftovers(patience_seconds=15) == []
        until = time.monotonic() + 15
        while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"] and time.monotonic() < until:
            time.sleep(0.2)
        assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    table = next((tmp_path / "storage").rglob("trials.csv")).read_text().splitlines()
    assert table[0].startswith("trial,state,reason,share,steps")
    assert "values.global_batch_size,values.learning_rate,best.accuracy" in table[0]
    assert len(table) == 5
