"""What the manifests say is run, by the nearest thing there is without Kubernetes.

The bucket of the local overlay runs by its own command; the base's RayJob runs as a job on a Ray and publishes into it;
the base's RayService is deployed by `serve deploy` where only the serving image's packages are, and answers from what
the job published. Both take their environment from the ConfigMap.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
import yaml

from heliostat.cluster.folders import free_ports
from heliostat.cluster.kubernetes.build import build
from heliostat.cluster.session import processes
from heliostat.cluster.session.detached import ClusterRecord, find_detached, stop_detached
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from tests.package_sets import make_environment, serve_packages
from tests.ports import free_port
from tests.seaweedfs import BUCKET, KEYS, make_bucket
from tests.unit.k8s.components.conftest import over
from tests.unit.k8s.conftest import K8S, Manifests
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("home")

PROGRAMS = Path(sys.executable).parent
PATIENCE_SECONDS = 240
"""For machines that do other work beside; Ray's workers stand back for it."""
START = """
from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.detached import start_detached
start_detached(ClusterConfig(num_cpus=2))
"""
PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "volume.port.public"),
    *("filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance"),
)
"""Of SeaweedFS, which has all of a pod to itself there, and here not."""


@pytest.fixture(scope="module")
def base() -> Manifests:
    return Manifests("base", build(K8S / "base"))


@pytest.fixture(scope="module")
def bucket(home: Path) -> Iterator[str]:
    """The local overlay's S3 server, run by the command of its Deployment; yields its address."""
    deployment = Manifests("local", build(K8S / "overlays" / "local")).only("Deployment", "heliostat-bucket")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    program, *words = map(str, container["command"] + container["args"])
    port, *others = free_ports(1 + len(PORTS))
    places = {"dir": home, "ip.bind": "127.0.0.1", "s3.port": port, **dict(zip(PORTS, others, strict=True))}
    places |= {"s3.localSocket": home / "s3.sock", "filer.localSocket": home / "filer.sock"}
    command = [str(PROGRAMS / program), *words, *(f"-{name}={at}" for name, at in places.items())]
    with (home / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, env={**os.environ, **KEYS})
        try:
            make_bucket(f"http://127.0.0.1:{port}", process, home / "weed.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def settings(base: Manifests, bucket: str, home: Path) -> Iterator[dict[str, str]]:
    """The environment of the ConfigMap, with the addresses of what runs here, while the tests run."""
    settings = dict(base.only("ConfigMap", "heliostat-environment")["data"])
    assert settings["HELIOSTAT_STORAGE"] == f"s3://{BUCKET}"
    settings |= {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "AWS_ENDPOINT_URL_S3": bucket, **KEYS}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**settings, "AWS_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        yield settings


@contextmanager
def ray_of(programs: Path, **variables: str) -> Iterator[ClusterRecord]:
    """A Ray that the Python of an environment starts; all of its processes, and no others, are gone afterwards."""
    run(programs / "python", "-c", START, **variables)
    record = find_detached()
    assert record
    try:
        yield record
    finally:
        family = processes.family(record.mark)
        assert stop_detached()
    assert [one for one in family if one.is_running()] == []


def run(program: Path, *words: str | Path, **variables: str) -> str:
    """What a program says, once it has succeeded; it sees the packages of its own environment only."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", **variables}
    if program.parent != PROGRAMS:
        environment.pop("PYTHONPATH", None)
    command = [str(program), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env=environment, cwd=Path.home(), check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def logs(
    base: Manifests, settings: dict[str, str], tiny_values: dict[str, Any], home: Path, tmp_path_factory: Any
) -> tuple[str, str]:
    """The log of the base's RayJob, run as a job with a small spec in place of the mounted one; then what the command
    of the component retraining says, which hands another run to the same Ray."""
    spec = {**tiny_values, "name": "sentiment"}
    spec["train"] = {**spec["train"], "workers": 1, "epochs": 1, "zero_stage": 0}
    (home / "spec.yaml").write_text(yaml.safe_dump(spec))
    entrypoint = in_home(base.only("RayJob")["spec"]["entrypoint"], home)
    cron = over("retraining", tmp_path_factory.mktemp("retraining")).only("CronJob")
    [container] = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    program, *words = (in_home(word, home) for word in container["command"] + container["args"])
    with ray_of(PROGRAMS) as ray:
        first = run(PROGRAMS / "ray", "job", "submit", "--address", ray.dashboard_url, "--", *shlex.split(entrypoint))
        words[words.index("--address") + 1] = ray.dashboard_url
        return first, run(PROGRAMS / program, *words)


def in_home(command: str, home: Path) -> str:
    return command.replace("/etc/heliostat/spec.yaml", f"{home}/spec.yaml")


@pytest.fixture(scope="module")
def job(logs: tuple[str, str]) -> str:
    return logs[0]


def said(log: str, name: str) -> str:
    """A value of the table that a job's log ends with."""
    [value] = re.findall(rf"^\W*{re.escape(name)}\W+(\S+)", log, re.MULTILINE)
    return value


def test_the_bucket_of_the_local_overlay_takes_its_keys_and_nothing_without_them(bucket: str) -> None:
    assert httpx.get(f"{bucket}/healthz").status_code == 200
    assert httpx.get(f"{bucket}/{BUCKET}").status_code == 403
    assert httpx.put(f"{bucket}/{BUCKET}/key", content=b"x").status_code == 403


def test_the_job_trains_evaluates_and_publishes(base: Manifests, job: str) -> None:
    assert said(job, "version") == "1"
    assert said(job, "files") == application(base)["args"]["url"], "where the RayService looks for it"
    assert re.fullmatch("[0-9a-f]{64}", said(job, "manifest SHA-256"))


def test_retraining_compares_its_version_with_the_one_in_production(logs: tuple[str, str]) -> None:
    words = (
        r"version [12] of sentiment (stays in production|is production now): accuracy [\d.]+, and [\d.]+ of version 1"
    )
    assert re.search(words, " ".join(logs[1].split())), logs[1][-2000:]


def application(base: Manifests) -> dict[str, Any]:
    [found] = yaml.safe_load(base.only("RayService")["spec"]["serveConfigV2"])["applications"]
    return dict(found)


def configured(base: Manifests, log: str, port: int) -> str:
    """The RayService's serveConfigV2 as the guide has it filled in, on a port of the test's and with fewer CPUs."""
    config = yaml.safe_load(base.only("RayService")["spec"]["serveConfigV2"])
    args = config["applications"][0]["args"]
    args |= {"url": said(log, "files"), "digest": said(log, "manifest SHA-256"), "version": said(log, "version")}
    args["config"] |= {"host": "127.0.0.1", "port": port, "cpus_per_replica": 0.5}
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    return str(yaml.safe_dump(config))


def test_the_service_answers_with_what_the_serving_image_has(base: Manifests, job: str, home: Path) -> None:
    programs, key, port = make_environment(home / "serving", serve_packages()), generate_key(), free_port()
    (home / "serve.yaml").write_text(configured(base, job, port))
    with ray_of(programs, **{ENVIRONMENT: key}) as ray:
        run(programs / "serve", "deploy", home / "serve.yaml", "--address", ray.dashboard_url)
        until(lambda: is_up(ray, port), "the endpoint is up", PATIENCE_SECONDS)
        url, body = f"http://127.0.0.1:{port}{application(base)['route_prefix']}/v1/predict", {"text": "the film was"}
        answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {key}"}, timeout=90)
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == "1"
        assert httpx.post(url, json=body, timeout=90).status_code == 401
        assert "RUNNING" in run(programs / "serve", "status", "--address", ray.dashboard_url)
        assert probed(base, ray, port) == {"/api/healthz", "/-/healthz"}


def is_up(ray: ClusterRecord, port: int) -> bool:
    """Whether the readiness probe of a serving pod passes; AssertionError where the deployment has failed."""
    token = (Path.home() / ".ray" / "auth_token").read_text()
    asked = httpx.get(
        f"{ray.dashboard_url}/api/serve/applications/", headers={"authorization": f"Bearer {token}"}, timeout=90
    )
    for one in asked.json()["applications"].values():
        assert one["status"] != "DEPLOY_FAILED", one["message"]
    return answers(port, "/-/healthz")


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def probed(base: Manifests, ray: ClusterRecord, port: int) -> set[str]:
    """The paths of the serving pods' probes that answer, of Ray's agent on the port that it has here."""
    paths = set()
    for pod in base.pods():
        if pod.owner["kind"] == "RayService":
            [container] = pod.spec["containers"]
            paths |= {
                container[kind]["httpGet"]["path"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")
            }
    ports = {port} | {
        at for one in processes.family(ray.mark) for at in listening(one) if "agent" in name_of(one).lower()
    }
    return {path for path in paths if any(answers(at, path) for at in ports)}


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def listening(process: psutil.Process) -> list[int]:
    try:
        return [one.laddr.port for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return []
