from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

from heliostat.cluster import environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


def test_variables_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_BEFORE", "old")
    monkeypatch.setenv("RAY_TAKEN", "kept")
    before = dict(os.environ)

    def work() -> None:
        with environment.applied({"RAY_BEFORE": "new", "RAY_NEW": "1", "RAY_TAKEN": None}):
            assert (os.environ["RAY_BEFORE"], os.environ["RAY_NEW"]) == ("new", "1")
            assert "RAY_TAKEN" not in os.environ
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert dict(os.environ) == before


def test_ray_notices_at_once() -> None:
    import ray
    from ray._private.services import get_node_ip_address

    core = import_module("ray._raylet")
    assert not ray.is_initialized()
    with environment.applied({"RAY_AUTH_MODE": "token", environment.SEVERAL_MACHINES: "0"}):
        assert core.get_authentication_mode() == core.AuthenticationMode.TOKEN
        assert get_node_ip_address() == "127.0.0.1"
    assert core.get_authentication_mode() == core.AuthenticationMode.DISABLED


def test_a_ray_on_this_machine_is_closed_and_fast() -> None:
    found = environment.local_environment()
    assert found["RAY_AUTH_MODE"] == "token"
    assert found[environment.SEVERAL_MACHINES] == "0"
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "0"
    assert "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER" not in environment.joining_environment("10.0.0.1:6379"), "drains there"


def test_python_there_is_this_one_whether_or_not_its_folder_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(Path(sys.executable).parent)
    for path in ("/usr/bin", f"/usr/bin:{own}", f"{own}:/usr/bin"):
        monkeypatch.setenv("PATH", path)
        assert environment.local_environment()["PATH"] == f"{own}:/usr/bin"


def test_settings_of_the_user_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    found = environment.local_environment()
    assert found["RAY_metrics_report_interval_ms"] == "1000"
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in found


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:6379", True), ("localhost:1", True), ("10.0.0.1:6379", False), ("head:6379", False)],
)
def test_only_a_ray_on_the_loopback_is_joined_there(address: str, loopback: bool) -> None:
    assert (environment.SEVERAL_MACHINES in environment.joining_environment(address)) is loopback
