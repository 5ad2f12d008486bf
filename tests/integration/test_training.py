"""The real loop under torchrun: DeepSpeed, gloo and the checkpoints, with no Ray."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from heliostat.infra.config import build
from heliostat.infra.storage import StorageConfig
from heliostat.train import tasks
from heliostat.train.config import DataConfig
from heliostat.train.data import prepare

SCRIPT = Path(__file__).with_name("fit_script.py")
STEPS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, tiny_values: dict[str, Any]) -> Path:
    """A folder with the model and the prepared reviews."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(tiny_encoder, folder / "model")
    data = build(DataConfig, tiny_values["data"])
    encoder = tasks.get("text-classification").encoder(data, tiny_encoder)
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        prepared = prepare(data, encoder, StorageConfig(url=str(folder / "storage")))
    finally:
        ray.shutdown()
    (folder / "fingerprint").write_text(prepared.fingerprint)
    return folder


def losses(place: Path, workers: int, **values: Any) -> dict[str, Any]:
    """What the script says of a run on so many workers."""
    train = {
        "workers": workers, "global_batch_size": 24, "learning_rate": 0.003, "max_steps": STEPS, "epochs": 9,
        "precision": "fp32", "dropout": 0.0, "warmup": 0.0, **values,
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    done = subprocess.run(
        [*command, str(SCRIPT), str(place), json.dumps(train)], capture_output=True, text=True, timeout=300, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert found, done.stderr[-3000:]
    return dict(json.loads(found[0].removeprefix("RESULT ")))


@pytest.fixture(scope="module")
def alone(place: Path) -> dict[str, Any]:
    """One worker, no sharding: what all others must follow."""
    return losses(place, 1, zero_stage=0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_workers_follow_one_at_every_zero_stage(place: Path, alone: dict[str, Any], stage: int) -> None:
    sharded = losses(place, 2, zero_stage=stage)
    assert sharded["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    assert sharded["norms"] == pytest.approx(alone["norms"], rel=1e-2)
    assert sharded["metrics"] == pytest.approx(alone["metrics"], rel=1e-3)
    assert sharded["sums"] == pytest.approx(alone["sums"], rel=1e-3, abs=1e-2)


def test_bf16_learns_too(place: Path, alone: dict[str, Any]) -> None:
    rounded = losses(place, 2, zero_stage=1, precision="bf16")
    assert rounded["losses"] == pytest.approx(alone["losses"], rel=0.15)
    assert rounded["losses"][-1] < rounded["losses"][0]


@pytest.mark.parametrize("stage", [1, 3])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(place: Path, alone: dict[str, Any], stage: int) -> None:
    shutil.rmtree(place / "storage" / "checkpoints", ignore_errors=True)
    first = losses(place, 2, zero_stage=stage, checkpoint_every=5, stop_at=7)
    second = losses(place, 2, zero_stage=stage, checkpoint_every=5)
    assert len(first["losses"]) == 7
    assert len(second["losses"]) == STEPS - 5
    assert second["losses"] == pytest.approx(alone["losses"][5:], rel=1e-3)
