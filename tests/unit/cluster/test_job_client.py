"""How a cluster is reached: Ray's variables, TLS, versions, errors."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from heliostat.cluster import job_client, jobs
from heliostat.infra.errors import ConfigError, ResourceError


def test_a_traceback_from_the_server_becomes_its_last_line() -> None:
    error = RuntimeError("Request failed with status code 500: {'error': 'Traceback\\n  File x\\nKeyError: no such'}.")
    assert job_client._short(error) == "KeyError: no such"
    assert job_client._short(RuntimeError("")) == "RuntimeError"


def test_rays_own_variables_do_not_redirect_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.job_submission

    seen: list[tuple[str, bool]] = []

    class Client:
        def __init__(self, address: str, verify: bool) -> None:
            seen.append((address, "RAY_ADDRESS" in os.environ))

    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", Client)
    job_client._new_client("http://head:8265")
    assert seen == [("http://head:8265", False)]
    assert os.environ["RAY_ADDRESS"] == "http://elsewhere:8265"


def test_a_ca_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE: .*ca\.pem given; a file of certificates"):
        jobs.every("https://head")


def test_code_that_travels_is_for_one_minor_version_of_ray() -> None:
    major, minor, *_ = ray.__version__.split(".")
    job_client.check_version(SimpleNamespace(_server_ray_version=f"{major}.{minor}.99"), "http://head:8265")
    with pytest.raises(ResourceError, match=r"http://head:8265: it runs Ray 2\.9\.3, and the code of this checkout"):
        job_client.check_version(SimpleNamespace(_server_ray_version="2.9.3"), "http://head:8265")
