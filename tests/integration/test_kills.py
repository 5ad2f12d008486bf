"""A run whose workers, nodes and driver are killed at random moments, against one that is left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from heliostat.infra.errors import NotFoundError
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store
from tests.nodes import NODE
from tests.waiting import until

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.faults]
KILLS = int(os.environ.get("KILLS", "50"))
STEPS = 60 * KILLS
EVERY = 20
WATCHED = """
import time
from pathlib import Path
from heliostat.__main__ import main
from heliostat.train import launch

FOLDER, PAUSE = {folder!r}, {pause}

def work(config):
    import os
    from heliostat.train import worker
    make = worker.step_reporter

    def step_reporter(job, board, world, peak, record):
        Path(f"{{FOLDER}}/pid-{{world.rank}}").write_text(str(os.getpid()))
        steps = open(f"{{FOLDER}}/steps-{{world.rank}}", "a", buffering=1)
        steps.write("start\\n")
        tell = make(job, board, world, peak, record)

        def on_step(stats):
            steps.write(f"{{stats.step}} {{stats.loss!r}}\\n")
            tell(stats)
            time.sleep(PAUSE)

        return on_step

    worker.step_reporter = step_reporter
    worker.work(config)

launch.run_worker = work
main()
"""
"""A driver whose workers write down their process, and each step with its loss; `start` where they begin."""


class Driver:
    """`heliostat train` in a process of its own, whose workers write down what they do in `folder`."""

    def __init__(self, folder: Path, spec_file: Path, pause: float, *values: str) -> None:
        folder.mkdir()
        self.folder = folder
        script = WATCHED.format(folder=str(folder), pause=pause)
        fixed = [f"train.checkpoint_every={EVERY}", f"train.max_steps={STEPS}", f"train.validate_every={STEPS}"]
        fixed += ["train.epochs=9999", "train.zero_stage=2", "train.max_failures=9999", "train.dropout=0.1"]
        self._command = [sys.executable, "-c", script, "train", str(spec_file), *fixed, *values]
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}  # Ray's 60 s would be the test
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def said(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def end(self, timeout: float) -> None:
        assert self._process.wait(timeout) == 0, self.said()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=30)

    def kill_worker(self, rank: int) -> None:
        os.kill(int((self.folder / f"pid-{rank}").read_text()), signal.SIGKILL)

    def attempts(self) -> list[dict[int, float]]:
        """The losses by step of each time that rank 0 began."""
        parts = (self.folder / "steps-0").read_text().split("start\n")[1:]
        lines = ([line.split() for line in part.splitlines()] for part in parts)
        return [{int(step): float(loss) for step, loss in one} for one in lines]


def newest_checkpoint(store: Store) -> int:
    """The step of the newest complete checkpoint of the newest run; 0 where there is none."""
    try:
        run = json.loads(store.read_bytes("runs/tiny/newest.json"))["run_id"]
        pointer = json.loads(store.read_bytes(f"runs/tiny/{run}/checkpoints/latest.json"))
    except NotFoundError:
        return 0
    return int(pointer["prefix"].rpartition("/")[2].partition("-")[0])


def test_random_kills_cost_a_run_nothing_but_time(cluster: Cluster, spec_file: Path, tmp_path: Path) -> None:
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    values = ["train.resume=auto", f"cluster.address={cluster.address}"]
    with Driver(tmp_path / "killed", spec_file, 0.05, *values) as driver:
        kills = kill_at_random(driver, cluster, nodes, open_store(str(tmp_path / "storage")))
        driver.end(timeout=900)
    with Driver(tmp_path / "alone", spec_file, 0.0) as alone:
        alone.end(timeout=900)

    counted: dict[int, float] = {}
    lost = []
    for losses in driver.attempts():
        if losses:
            first = min(losses)
            assert (first - 1) % EVERY == 0
            lost.append(max(counted, default=0) - (first - 1))
            counted |= losses
    (whole,) = alone.attempts()
    assert sorted(counted) == sorted(whole) == list(range(1, STEPS + 1))
    assert [counted[step] for step in whole] == pytest.approx(list(whole.values()), rel=1e-3)
    assert max(lost) < 2 * EVERY  # since the last checkpoint, and while it was being stored
    sys.stdout.write(f"{dict(kills)}; steps lost: {max(lost)} at most, {sum(lost) / len(lost):.1f} in the mean\n")


def kill_at_random(driver: Driver, cluster: Cluster, nodes: list[Any], store: Store) -> Counter[str]:
    """Kills a worker, a node or the driver KILLS times, each soon after a newer checkpoint; how often which."""
    draw, kills, seen = random.Random(0), Counter[str](), 0

    def is_further() -> bool:
        assert driver.is_running(), driver.said()
        return newest_checkpoint(store) > seen

    while kills.total() < KILLS:
        until(is_further, f"a newer checkpoint than {seen} after {dict(kills)}", 240)
        time.sleep(draw.uniform(0, 1.5))
        kind, seen = draw.choice(["worker", "node", "driver"]), newest_checkpoint(store)
        kills[kind] += 1
        if kind == "worker":
            driver.kill_worker(draw.randrange(2))
        elif kind == "node":
            cluster.remove_node(nodes.pop(draw.randrange(2)), allow_graceful=False)
            nodes.append(cluster.add_node(**NODE))
        else:
            driver.kill()
            driver.start()
    return kills
