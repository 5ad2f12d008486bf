"""Runs on clusters of several raylets that lose nodes, gain nodes, and whose drivers are told to go."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from heliostat.infra.registry.bundle import fetch_directory
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store
from tests.faulty_s3 import faulty
from tests.nodes import NODE
from tests.waiting import until

pytestmark = [pytest.mark.usefixtures("home", "signals_heeded"), pytest.mark.faults]


def checkpoints(store: Store) -> list[dict[str, Any]]:
    """The records of all complete checkpoints, oldest first."""
    keys = sorted(entry.key for entry in store.list("runs") if entry.key.endswith("checkpoint.json"))
    return [json.loads(store.read_bytes(key)) for key in keys]


IMPATIENT = """
from heliostat.__main__ import main
from heliostat.train import launch
launch.RESIZE_SECONDS = 5.0
main()
"""


def test_a_run_goes_on_with_the_workers_that_are_left_and_takes_in_new_ones(
    cluster: Cluster, spec_file: Path, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    values = ["train.workers={min: 1, max: 2}", "train.epochs=2000", "train.zero_stage=2"]
    values += ["train.checkpoint_every=10", "train.keep_checkpoints=1000", f"cluster.address={cluster.address}"]
    # Ray believes for up to 20 s that a lost node is there, and asks for as many workers as before.
    environment = {**os.environ, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "train", str(spec_file), *values],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    store = open_store(str(tmp_path / "storage"))

    def reached(size: int) -> bool:
        assert process.poll() is None, process.communicate()[0]
        records = checkpoints(store)
        return bool(records) and records[-1]["world_size"] == size

    try:
        until(lambda: reached(2), "a checkpoint of two workers", 180)
        cluster.remove_node(nodes[1], allow_graceful=False)
        until(lambda: reached(1), "a checkpoint of one worker", 180)
        cluster.add_node(**NODE)
        until(lambda: reached(2), "a checkpoint of two workers", 180)
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    steps = [record["step"] for record in checkpoints(store)]
    assert steps == sorted(set(steps))


def test_signals_to_the_group_end_a_run_at_a_checkpoint_and_auto_goes_on_with_it(
    spec_file: Path, tmp_path: Path
) -> None:
    values = ["train.epochs=20", "train.checkpoint_every=10", "train.resume=auto"]
    command = [sys.executable, "-m", "heliostat", "train", str(spec_file), *values]
    store = open_store(str(tmp_path / "storage"))
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)):
        before = max((one["step"] for one in checkpoints(store)), default=0)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

        def has_gone_on(step: int = before) -> bool:
            return bool(found := checkpoints(store)) and found[-1]["step"] > step

        until(has_gone_on, "a checkpoint", 180)
        os.killpg(process.pid, number)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == code, said
        assert f"stopped after step {checkpoints(store)[-1]['step']}; --resume goes on" in said

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Published tiny" in done.stdout
    (run,) = {entry.key.split("/")[2] for entry in store.list("runs") if entry.key.endswith("run.json")}
    assert json.loads(store.read_bytes(f"runs/tiny/{run}/run.json"))["status"] == "finished"


CRAMPED = """
from heliostat.__main__ import main
from heliostat.train import launch

def work(config):
    import torch
    from heliostat.train.tasks.text_classification import TextClassification
    from heliostat.train.worker import work
    collate = TextClassification.collate

    def cramped(self, rows, indices):
        if torch.is_grad_enabled() and len(indices) > 4:
            torch.empty(2**50)
        return collate(self, rows, indices)

    TextClassification.collate = cramped
    work(config)

launch.run_worker = work
main()
"""


def test_memory_that_runs_out_makes_passes_smaller_and_keeps_the_global_batch(spec_file: Path, tmp_path: Path) -> None:
    values = ["train.global_batch_size=24", "train.workers=2"]
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED, "train", str(spec_file), *values],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "out of memory with 12 records in a pass; the run goes on with 6" in done.stdout
    assert "out of memory with 6 records in a pass; the run goes on with 3" in done.stdout
    assert "Published tiny" in done.stdout


def test_a_storage_that_fails_a_fifth_of_all_calls_costs_no_checkpoint(
    spec_file: Path, tmp_path: Path, s3_url: str, s3_server: dict[str, str]
) -> None:
    values = ["train.epochs=3", "train.checkpoint_every=4", "train.keep_checkpoints=1000", f"storage.url={s3_url}"]
    command = [sys.executable, "-m", "heliostat", "train", str(spec_file), *values]
    with faulty(s3_server["AWS_ENDPOINT_URL_S3"], share=0.2) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL_S3": proxy.url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Published tiny" in done.stdout
    assert sum(proxy.faults.values()) > 0.1 * proxy.calls > 10
    store = open_store(s3_url)
    records = checkpoints(store)
    assert [record["step"] for record in records] == list(range(4, records[-1]["step"] + 1, 4))
    for record in records:
        for name, digest in record["shards"].items():
            fetch_directory(store, f"{record['prefix']}/{name}", tmp_path / digest, digest=digest)


def test_a_storage_that_fails_all_calls_ends_the_run_in_bounded_time(
    spec_file: Path, s3_url: str, s3_server: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "heliostat", "train", str(spec_file), f"storage.url={s3_url}"]
    with faulty(s3_server["AWS_ENDPOINT_URL_S3"], share=0.0) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL_S3": proxy.url}
        process = subprocess.Popen(
            [*command, "train.epochs=2000", "train.checkpoint_every=20"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        until(lambda: checkpoints(open_store(s3_url)), "a checkpoint", 180)
        proxy.share = 1.0
        said, _ = process.communicate(timeout=400)
    assert process.returncode == 1, said
    assert re.search(r"checkpoint of step \d+, rank \d: ", said), said
