from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.folders import ray_folder
from heliostat.cluster.scrape import DISCOVERY
from heliostat.cluster.session import detached, processes
from heliostat.cluster.session.detached import ClusterRecord, find_detached, start_detached, stop_detached
from heliostat.infra.errors import ResourceError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "home"


def record(pid: int, ticks: int, mark: str = "detached-test") -> ClusterRecord:
    return ClusterRecord("127.0.0.1:1", "http://127.0.0.1:2", pid, ticks, "2026-01-01T00:00:00+00:00", mark, "/logs")


def test_nothing_is_found_or_stopped_where_nothing_was_started() -> None:
    assert find_detached() is None
    assert stop_detached() is False


def test_a_living_one_is_found_and_not_started_twice(home: Path) -> None:
    here = record(os.getpid(), processes.started_at(os.getpid()) or 0)
    detached._write(here)
    assert find_detached() == here
    assert start_detached(ClusterConfig()) == here
    assert (home / "cluster.json").exists()


@pytest.mark.parametrize("pid", [999_999_999, os.getpid()], ids=["dead", "the ID is another process now"])
def test_the_record_of_a_dead_one_goes_with_what_it_left(home: Path, pid: int) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep, env={processes.MARK: "detached-test"}) as left:
        detached._write(record(pid, 1))
        assert find_detached() is None
        assert processes.started_at(left.pid) is None
    assert not (home / "cluster.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": "x"}'])
def test_a_record_that_cannot_be_read_is_no_record(home: Path, text: str) -> None:
    find_detached()  # makes the folder
    (home / "cluster.json").write_text(text)
    assert find_detached() is None


def test_stopping_ends_its_processes_and_no_others() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        subprocess.Popen(sleep, env={processes.MARK: "detached-test"}) as head,
        subprocess.Popen(sleep, env={processes.MARK: "detached-test"}) as worker,
        subprocess.Popen(sleep, env={processes.MARK: "detached-other"}) as other,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(detached, "STOP_SECONDS", 0.5)
        detached._write(record(head.pid, processes.started_at(head.pid) or 0))
        assert stop_detached() is True
        ended = [processes.started_at(one.pid) is None for one in (head, worker, other)]
        other.kill()
    assert ended == [True, True, False]
    assert find_detached() is None


@pytest.mark.parametrize("session", ["stopped", "later"])
def test_a_stopped_one_is_scraped_no_more_and_a_later_one_is(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "family", lambda mark: [])
    monkeypatch.setattr(processes, "end", lambda found, seconds: None)
    folder = ray_folder() / f"session_2026-01-01_{999_999_999 if session == 'stopped' else os.getpid()}"
    folder.mkdir(parents=True)
    (folder / DISCOVERY).write_text("[]")
    link = ray_folder() / DISCOVERY
    link.symlink_to(folder / DISCOVERY)
    detached._write(record(999_999_999, 1))
    assert find_detached() is None
    assert link.is_symlink() == (session == "later")


def test_a_ray_that_does_not_come_up_says_why_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no room for Ray')"]
    monkeypatch.setattr(detached, "_command", lambda config, port: command)
    with pytest.raises(ResourceError, match=r"did not come up \(no room for Ray\); all it said is in .*cluster.log"):
        start_detached(ClusterConfig())
    assert not (home / "cluster.json").exists()


def test_a_ray_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(detached, "START_SECONDS", 0.3)
    mark = UUID(int=17)
    monkeypatch.setattr(detached, "uuid4", lambda: mark)
    with pytest.raises(ResourceError, match="did not come up"):
        start_detached(ClusterConfig())
    assert processes.family(f"detached-{mark.hex}") == []


def test_the_dashboard_has_rays_usual_port_only_where_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(detached, "DASHBOARD_PORT", port)
        assert detached._dashboard_port() != port
    assert detached._dashboard_port() == port


def test_the_command_keeps_ray_on_the_loopback() -> None:
    command = detached._command(ClusterConfig(num_cpus=3, num_gpus=0), 8265)
    assert {"--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=3", "--num-gpus=0"} <= {*command}
    assert "--num-gpus" not in " ".join(detached._command(ClusterConfig(), 8265))
