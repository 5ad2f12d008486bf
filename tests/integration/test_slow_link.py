"""One slow link between hosts of a cluster, found by `heliostat doctor --cluster`. Run by `make faults`."""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path

import pytest

from tests.guides import ROOT
from tests.mesh import Mesh, address, mesh, missing

pytestmark = pytest.mark.faults
HOSTS = 3
RATE, MOST_MB_PER_SECOND = "40mbit", 5.0
SECONDS = 300
"""For a command; a fraction of that where nothing else is going on."""
LINK = rf"({address(2)} – {address(3)}|{address(3)} – {address(2)})"
RAY = Path(sys.executable).with_name("ray")


def start_ray(hosts: Mesh) -> None:
    """A head without CPUs on the first host, and a node on each other one."""
    for host in range(1, HOSTS + 1):
        place = ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false"]
        place = place if host == 1 else [f"--address={address(1)}:6379", "--num-cpus=1"]
        own = [f"--node-ip-address={address(host)}", "--object-store-memory=100000000"]
        done = hosts.run(host, [sys.executable, str(RAY), "start", *place, *own], SECONDS)
        assert done.returncode == 0, done.stdout


def test_the_all_reduce_test_names_the_link_that_is_throttled_and_one_that_is_cut(tmp_path: Path) -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "HOME": "/tmp", "PYTHONPATH": str(ROOT)}
    with mesh(tmp_path, HOSTS, {**own, "RAY_TMPDIR": "/tmp", "HELIOSTAT_HOME": "/tmp/heliostat"}) as hosts:
        start_ray(hosts)
        hosts.slow(2, 3, RATE)
        command = [sys.executable, "-m", "heliostat", "doctor", "--cluster", "--address", f"{address(1)}:6379"]
        done = hosts.run(1, command, SECONDS)
        hosts.cut(2, 3)
        cut = hosts.run(1, command, SECONDS)
    assert done.returncode == 0, done.stdout
    assert "3 of 3 answer" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if "3 of 3 pairs" in line]
    assert line.split()[0] == "warn"
    assert re.search(rf"slow: {LINK} ", line), line
    [speed] = re.findall(r"slowest \S+ – \S+ ([\d.]+) MB/s", line)
    assert float(speed) < 1.1 * MOST_MB_PER_SECOND, "more than the cable carries"
    assert "all 3 nodes: names resolve" in done.stdout
    assert cut.returncode == 1, cut.stdout
    [line] = [line for line in cut.stdout.splitlines() if line.split()[0:1] == ["fail"]]
    assert re.search(rf"all-reduce +{LINK}: ", line), line
    assert "2 of 3 pairs" in cut.stdout
