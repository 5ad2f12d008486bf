"""`heliostat doctor --cluster` on a cluster of three raylets, with a real S3 server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from heliostat.cluster.environment import applied, local_environment
from heliostat.cluster.session.leftovers import leftovers
from heliostat.infra.storage.store import open_store
from tests.nodes import NODE
from tests.ports import free_port
from tests.seaweedfs import BUCKET
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("signals_heeded")
NODES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
SECONDS = 240
"""For a command; a fraction of that where nothing else is going on."""


@dataclass(frozen=True)
class Report:
    """How the command ended, and what it said."""

    code: int
    out: str
    err: str

    def lines(self, check: str) -> list[list[str]]:
        """Status, check and what was found, of each line of the check."""
        rows = [re.split(r"\s{2,}", line.strip()) for line in self.out.splitlines()]
        return [row[:3] for row in rows if len(row) > 2 and row[1] == check]


@dataclass(frozen=True)
class Known:
    """The cluster, and a folder outside of any checkout."""

    cluster: Cluster
    dashboard: str
    url: str
    folder: Path

    def doctor(self, *words: str, program: tuple[str, ...] = ("-m", "heliostat")) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *program, "doctor", "--cluster", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
            env={**os.environ, "COLUMNS": "1000"},
        )  # fmt: skip

    def workers(self) -> set[str]:
        """What Ray's workers on the nodes call themselves: what they are doing."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.cluster.list_all_nodes()]
        found = set()
        for child in [child for raylet in raylets for child in psutil.Process(raylet).children()]:
            with suppress(psutil.NoSuchProcess):
                found.update(child.cmdline()[:1])
        return found

    def report(self, *words: str, program: tuple[str, ...] = ("-m", "heliostat")) -> Report:
        with self.doctor(*words, program=program) as process:
            out, err = process.communicate(timeout=SECONDS)
        return Report(process.returncode, out, err)


@pytest.fixture(scope="module")
def known(s3_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A head without CPUs and two nodes with one, which all is reserved of; a node that is frozen is not given up."""
    url = f"s3://{BUCKET}/{uuid4().hex}"
    dashboard = {"include_dashboard": True, "dashboard_host": NODES[0], "dashboard_port": free_port()}
    patient = {"RAY_health_check_period_ms": "600000", "HELIOSTAT_STORAGE": url, "RAY_ADDRESS": None}
    with applied({**local_environment(), **s3_server, **patient}):
        made = Cluster(
            initialize_head=True, shutdown_at_exit=False, head_node_args={**NODE, "num_cpus": 0, **dashboard}
        )
        try:
            for address in NODES[1:]:
                made.add_node(**{**NODE, "node_ip_address": address})
            ray.init(made.address, log_to_driver=False)
            busy = [ray.remote(num_cpus=1)(lambda: time.sleep(3600)).remote() for _ in NODES[1:]]
            with applied({"RAY_ADDRESS": made.address}):
                yield Known(made, f"http://{NODES[0]}:{dashboard['dashboard_port']}", url, tmp_path_factory.mktemp("x"))
            del busy
        finally:
            ray.shutdown()
            made.shutdown()


def test_all_checks_run_on_a_cluster_without_a_free_cpu(known: Known) -> None:
    until(lambda: ray.available_resources().get("CPU", 0) == 0, "all CPUs are in use", SECONDS)
    found = known.report()
    assert found.code == 0, found
    assert found.lines("nodes") == [["pass", "nodes", "3 of 3 answer"]]
    [[status, _, storage]] = found.lines("storage")
    assert status == "pass"
    assert storage.startswith(f"all 3 nodes: {known.url} at 127.0.0.1")
    for name in ("hardware", "shared memory", "versions", "clock", "names"):
        assert {line[0] for line in found.lines(name)} == {"pass"}, found
    pairs, together = found.lines("all-reduce")
    assert "gloo, 3 of 3 pairs: slowest 127.0.0." in pairs[2]
    assert together[2].startswith("all nodes together: ")
    assert open_store(known.url).list() == []
    until(lambda: leftovers() == [], "no actor is left", 30)


def test_a_driver_with_another_ray_is_told_so_in_one_line(known: Known) -> None:
    other = "import ray; ray.__version__ = '2.59.0'; from heliostat.__main__ import main; main()"
    found = known.report(program=("-c", other))
    assert (found.code, found.out.strip()) == (1, "")
    [line] = [line for line in found.err.splitlines() if line.startswith("heliostat: ")]
    assert "Version mismatch" in line
    assert "2.59.0" in line
    assert ray.__version__ in line


@pytest.mark.faults
def test_ctrl_c_in_an_all_reduce_leaves_nothing_behind(known: Known) -> None:
    with known.doctor() as process:
        until(lambda: "ray::Probe.all_reduce" in known.workers(), "an all-reduce", SECONDS)
        assert len(leftovers()) == len(NODES)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    until(lambda: leftovers() == [], "no actor is left", 30)


def test_a_dashboard_runs_the_checks_as_a_job(known: Known) -> None:
    found = known.report("--no-bandwidth", "--address", known.dashboard)
    assert found.code == 0, found
    assert found.lines("nodes") == [["pass", "nodes", "3 of 3 answer"]]
    assert found.lines("storage")[0][2].startswith(f"all 3 nodes: {known.url} at 127.0.0.1")
    assert found.lines("all-reduce") == []


IMPATIENT = """
from heliostat.__main__ import main
from heliostat.cluster.doctor.nodes import checks
checks.START_SECONDS = 20.0
main()
"""


@pytest.mark.faults
def test_a_node_that_is_frozen_is_named_and_the_others_are_reported(known: Known) -> None:
    [node] = [one for one in known.cluster.list_all_nodes() if one.node_ip_address == NODES[2]]
    raylet = node.all_processes["raylet"][0].process.pid
    os.kill(raylet, signal.SIGSTOP)
    try:
        found = known.report("--no-bandwidth", program=("-c", IMPATIENT))
    finally:
        os.kill(raylet, signal.SIGCONT)
    assert found.code == 1, found
    assert found.lines("nodes") == [["fail", "nodes", "2 of 3 answer"]]
    assert found.lines("node") == [["fail", "node", f"{NODES[2]}: no answer in 20 s"]]
    assert found.lines("storage")[0][2].startswith(f"all 2 nodes: {known.url} at 127.0.0.1")
    assert found.lines("versions")[0][0] == "pass"
