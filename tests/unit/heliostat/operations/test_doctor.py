"""Where `heliostat doctor --cluster` runs: on a Ray that it joins, or as a job."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster import jobs
from heliostat.infra.config.strict import parse_yaml
from heliostat.infra.errors import ConfigError, JobError, ResourceError
from heliostat.operations import doctor
from heliostat.spec import load_spec

URL = "http://head:8265"


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "HELIOSTAT_STORAGE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HELIOSTAT_HOME", "RAY_TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))


class Cluster:
    """Takes jobs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[str] = []
        self.specs: list[dict[str, Any]] = []
        self.variables: Mapping[str, str] = {}
        self.followed: list[str] = []
        monkeypatch.setattr(jobs, "environment", self.environment)
        monkeypatch.setattr(jobs, "submit", self.submit)
        monkeypatch.setattr(doctor, "follow_job", lambda job, address, view: self.followed.append(job))

    @contextmanager
    def environment(self, files: Mapping[str, Path], variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
        self.specs = [parse_yaml(file.read_text()) for file in files.values()]
        self.variables = variables
        yield {}

    def submit(self, address: str, entrypoint: str, environment: Any, *, metadata: Mapping[str, str]) -> str:
        assert address == URL
        self.commands.append(entrypoint.partition(" -m heliostat ")[2])
        return "raysubmit_1"


def test_a_dashboard_is_sent_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    monkeypatch.setenv("HELIOSTAT_STORAGE", "s3://bucket/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8333")
    assert doctor.check_cluster(None, URL, bandwidth=False)
    assert cluster.commands == ["doctor --cluster --no-bandwidth"]
    assert cluster.variables == {"HELIOSTAT_STORAGE": "s3://bucket/x"}
    assert (cluster.specs, cluster.followed) == ([], ["raysubmit_1"])
    monkeypatch.setenv("HELIOSTAT_STORAGE", "/home/me/data")
    doctor.check_cluster(None, URL, bandwidth=True)
    assert cluster.variables == {}


def test_a_job_joins_the_cluster_that_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    spec = load_spec("sentiment", ["cluster.address=outside:6379", "storage.url=s3://bucket/x"])
    doctor.check_cluster(spec, URL, bandwidth=True)
    assert cluster.commands == ["doctor spec.yaml --cluster"]
    assert cluster.specs[0]["cluster"].get("address") is None
    assert cluster.specs[0]["storage"]["url"] == "s3://bucket/x"


@pytest.mark.parametrize("bandwidth", [True, False])
def test_the_job_s_command_is_one_that_there_is(monkeypatch: pytest.MonkeyPatch, bandwidth: bool) -> None:
    cluster = Cluster(monkeypatch)
    doctor.check_cluster(load_spec("sentiment"), URL, bandwidth)
    command: Any = typer.main.get_command(app)
    words = shlex.split(cluster.commands[0])
    given = command.commands[words[0]].make_context("doctor", words[1:]).params
    assert (given["spec"], given["cluster"], given["bandwidth"]) == ("spec.yaml", True, bandwidth)


def test_the_environment_names_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    monkeypatch.setenv("RAY_ADDRESS", URL)
    doctor.check_cluster(None, None, bandwidth=True)
    assert cluster.commands == ["doctor --cluster"]


def test_what_fails_in_the_job_fails_here(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch)

    def fail(*_: Any) -> None:
        raise JobError("job raysubmit_1: failed", 1)

    monkeypatch.setattr(doctor, "follow_job", fail)
    with pytest.raises(JobError):
        doctor.check_cluster(None, URL, bandwidth=True)


def test_without_a_cluster_there_is_none_to_check() -> None:
    with pytest.raises(ResourceError, match=r"^--cluster: no Ray to join; give --address"):
        doctor.check_cluster(None, None, bandwidth=True)


def test_a_wrong_address_is_named_by_the_option() -> None:
    with pytest.raises(ConfigError, match=r"^--address: nowhere given; host:port"):
        doctor.check_cluster(None, "nowhere", bandwidth=True)
    with pytest.raises(ResourceError, match=r"^Ray at 127.0.0.1:1: nothing answers"):
        doctor.check_cluster(None, "127.0.0.1:1", bandwidth=True)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--address", URL], "--address: given without --cluster"),
        (["--no-bandwidth"], "--no-bandwidth: given without --cluster"),
        (["--cluster", "--compile"], "--compile: given with --cluster"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], named: str) -> None:
    result = CliRunner().invoke(app, ["doctor", *words])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(named)
