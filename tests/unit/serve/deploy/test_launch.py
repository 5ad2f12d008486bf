from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError, IntegrityError, ModelError, ResourceError
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.args import AppArgs
from heliostat.serve.config import ServeConfig, Tls
from heliostat.serve.deploy import launch
from heliostat.serve.deploy.applications import reason, url_of
from heliostat.serve.deploy.ingress import check_port, check_tls
from heliostat.serve.experiment.config import Experiment
from tests.certificates import write_certificate

TRACEBACK = """The deployment failed to start 1 times in a row. Error:
ray::ServeReplica:chat:model.initialize_and_get_metadata() (pid=1, ip=127.0.0.1)
  File "app.py", line 1, in load
heliostat.infra.errors.IntegrityError: chat/model/model.safetensors: has SHA-256 ab, cd is expected

During handling of the above exception, another exception occurred: ...
"""


def overview(*messages: str) -> Any:
    deployments = {str(at): SimpleNamespace(message=message) for at, message in enumerate(messages)}
    return SimpleNamespace(message="", deployments=deployments)


def test_a_port_in_use_is_refused_by_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"serve.port: {port} given; 127.0.0.1:{port} cannot be listened on"):
            check_port("127.0.0.1", port, "serve.port")
    check_port("127.0.0.1", port, "serve.port")


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    good = write_certificate(tmp_path / "server.pem")
    check_tls(Tls(certificate=str(good)))
    (tmp_path / "half.pem").write_text(good.read_text().partition("-----BEGIN PRIVATE")[0])
    (tmp_path / "none.pem").write_text("no certificate")
    for name in ("half", "none", "missing"):
        with pytest.raises(ConfigError, match=rf"^serve.tls.certificate: .*{name}.pem given, which cannot be used \("):
            check_tls(Tls(certificate=str(tmp_path / f"{name}.pem")))
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    with pytest.raises(ConfigError, match=r"^serve.tls: given; it needs HAProxy"):
        check_tls(Tls(certificate=str(good)))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"192\.0\.2\.77:8000 cannot be listened on"):
        check_port("192.0.2.77", 8000, "serve.port")


def test_the_error_of_a_replica_is_the_error_of_the_command() -> None:
    found = reason(overview(TRACEBACK))
    assert type(found) is IntegrityError
    assert str(found) == "chat/model/model.safetensors: has SHA-256 ab, cd is expected"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("Traceback\n  File\nValueError: bad shape\n\n", "ValueError: bad shape"),
        ("a.b.OtherError: first\nTraceback\nOSError: no such folder\n  - look at the path", "OSError: no such folder"),
        ("no error\nbut words", "but words"),
        ("", "no reason is known"),
    ],
)
def test_another_fault_is_one_line_too(message: str, line: str) -> None:
    found = reason(overview(message))
    assert type(found) is ModelError
    assert str(found) == f"the replica did not start: {line}"


def test_without_keys_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(launch, "start_serve", lambda config: pytest.fail("Serve was started"))
    with pytest.raises(ConfigError, match=ENVIRONMENT):
        launch.deploy(AppArgs(name="a", url="/nowhere/a", digest="0", version="1"))


def test_without_a_model_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "start_serve", lambda config: pytest.fail("Serve was started"))
    args = AppArgs(name="a", url="/nowhere/a", digest="0", version="1", config=ServeConfig(auth="none"))
    with pytest.raises(ModelError, match="/nowhere/a: no published model here"):
        launch.deploy(args)


@pytest.mark.parametrize(
    ("host", "route", "url"),
    [
        ("127.0.0.1", "/chat", "http://127.0.0.1:8000/chat"),
        ("0.0.0.0", "/", "http://127.0.0.1:8000"),
        ("serve.internal", "/a/b", "http://serve.internal:8000/a/b"),
    ],
)
def test_where_an_endpoint_is_reached(host: str, route: str, url: str) -> None:
    assert url_of(host, 8000, route) == url


def experiment_of(baseline: str, candidate: str) -> Experiment:
    return Experiment(share=0.1, baseline=baseline, candidate=candidate, url="http://127.0.0.1:8000/candidate")


@pytest.mark.parametrize(
    ("verdict", "goes_on"), [(None, True), ("the candidate is worse: rolled back", False), ("ended", False)]
)
def test_a_deployment_that_fails_leaves_the_experiment_as_it_was(
    verdict: str | None, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split goes on, unless the experiment has ended while the deployment was tried."""
    before, runs = served("1"), []
    experiment = experiment_of("1", "2")
    status = None if verdict == "ended" else SimpleNamespace(verdict=verdict)

    def wait(args: AppArgs, until: float) -> None:
        if args.version == "3":
            raise ResourceError("no replica is up in time")

    fakes: dict[str, Any] = {
        "check_manifest": lambda *_: None,
        "start_serve": lambda config: False,
        "applications": dict,
        "deployed": lambda name: before,
        "running_experiment": lambda name: experiment,
        "experiment_status": lambda name: status,
        "run": lambda args, experiment=None: runs.append((args.version, experiment)),
        "wait": wait,
        "end_experiment": lambda name: pytest.fail("the experiment was ended"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(launch, name, fake)
    with pytest.raises(ResourceError, match="no replica is up in time"):
        launch.deploy(served("3"))
    assert runs == [("3", None), ("1", experiment if goes_on else None)]


def served(version: str) -> AppArgs:
    return AppArgs(name="a", url="/nowhere/a", digest="0", version=version, config=ServeConfig(auth="none"))
