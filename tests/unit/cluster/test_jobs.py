from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from heliostat.cluster import jobs, package
from heliostat.cluster.folders import free_ports
from heliostat.cluster.session import address
from heliostat.infra.errors import ConfigError, ResourceError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path / "home"))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)


def test_the_files_travel_in_the_working_directory(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: a")
    with jobs.environment({"spec.yaml": spec}, {"WHO": "me"}) as environment:
        folder = Path(environment["working_dir"])
        assert {one.name for one in folder.iterdir()} == {"spec.yaml", ".rayignore"}
        assert (folder / "spec.yaml").read_text() == "name: a"
        assert environment["env_vars"] == {"WHO": "me", "RAY_JOB_STOP_WAIT_TIME_S": "180"}
    assert not folder.exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    files = {"spec.yaml": tmp_path / "spec.yaml"}
    with pytest.raises(ConfigError, match=r"spec\.yaml: no such file"), jobs.environment(files):
        pass


def test_a_checkout_takes_its_package_along_as_real_files(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    found = package.checkout()
    assert found is not None
    environment = package.code_runtime_env()
    assert environment["py_modules"] == [str(found)]
    archive = tmp_path / "package.zip"
    create_package(str(found), archive, include_gitignore=True, include_parent_dir=True, excludes=["**/__pycache__/"])
    with zipfile.ZipFile(archive) as content:
        names = content.namelist()
        here = Path(package.__file__).read_bytes()
        assert content.read("heliostat/cluster/package.py") == here
    assert {"heliostat/__init__.py", "heliostat/infra/errors.py", "heliostat/cluster/launch/aws.yaml"} <= {*names}
    assert any(name.startswith("heliostat/recipes/") for name in names)
    assert not [name for name in names if "__pycache__" in name]


def test_an_installed_package_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import heliostat

    (tmp_path / "heliostat" / "cluster").mkdir(parents=True)
    monkeypatch.setattr(heliostat, "__path__", [str(tmp_path / "heliostat")])
    assert package.code_runtime_env() == {}
    with jobs.environment() as environment:
        assert set(environment) == {"working_dir", "env_vars"}


def test_a_job_has_its_package_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert package.code_runtime_env() == {}


@pytest.mark.parametrize("given", ["head:8265", "ray://head:10001", "http://", "", "http://head:99999", "http://[x"])
def test_an_address_of_another_kind(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--address: .* given; http://HOST:8265"):
        jobs.submit(given, "true")


def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "ANSWER_SECONDS", 0.5)
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    for ask in (lambda: jobs.submit(url, "true"), lambda: jobs.every(url), lambda: list(jobs.follow(url, "a"))):
        with pytest.raises(ResourceError, match=rf"{url}: nothing answers there \(Connection refused\)"):
            ask()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RAY_API_SERVER_ADDRESS", "http://head:8265", "http://head:8265"),
        ("RAY_ADDRESS", "https://head", "https://head"),
        ("RAY_ADDRESS", "10.0.0.1:6379", None),
    ],
)
def test_the_default_address(name: str, value: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs.default_address() is None
    monkeypatch.setenv(name, value)
    assert jobs.default_address() == expected
