"""A head that is lost: with the components head-recovery and redis, endpoints answer on, and the next head has them.

Ray 2.60 gives the ingress an empty list of replicas when Serve's controller is back, until it has found them again: for
some seconds (five, watched) there are no answers then.

Head, worker and Redis are pods on a network of their own (`tests/pods.py`), with the commands that KubeRay and the
manifests give them. Run by `make faults`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cluster.kubernetes.build import build
from tests.integration.ray_pods import (
    KEY,
    PATIENCE_SECONDS,
    asked,
    environment,
    needs_pods,
    pods_network,
    start_head,
    start_worker,
    wait_for_head,
)
from tests.integration.tiny_models import app_args, classifier, publish
from tests.pods import Network, Pod
from tests.tools import need
from tests.unit.k8s.conftest import K8S, Manifests
from tests.waiting import until

pytestmark = [pytest.mark.faults, needs_pods]
AWAY_SECONDS = 90
"""How long the head is away: longer than the 60 s after which Ray's processes give up by themselves."""
PASSWORD = secrets.token_urlsafe(24)
NO_ANSWER = "HTTPError: HTTP Error 503: Service Unavailable"
PREDICT = "/sentiment/v1/predict"
ASK = """
import json, sys, time, urllib.request
address, key = sys.argv[1:]
while True:
    asked = urllib.request.Request(address, b'{"text": "a joy"}', {"authorization": f"Bearer {key}",
                                   "content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            said = json.load(answer)["version"]
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(said, flush=True)
    time.sleep(0.2)
"""
"""A client that asks for as long as it lives, and says which version answered, or what went wrong."""
REPLICAS = """
import psutil
found = [one.info for one in psutil.process_iter(["pid", "create_time", "cmdline"])]
titles = {(one["pid"], one["create_time"]): " ".join(one["cmdline"] or ()).strip() for one in found}
print(sorted(process for process, title in titles.items() if title.startswith("ray::ServeReplica:")))
"""


@pytest.fixture
def net() -> Iterator[Network]:
    with pods_network() as made:
        yield made


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    folder = tmp_path_factory.mktemp("k8s")
    links = [os.path.relpath(K8S / name, folder) for name in ("base", "components/head-recovery", "components/redis")]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": links[:1], "components": links[1:]}))
    return Manifests("with redis", build(folder))


def start_redis(net: Network, manifests: Manifests) -> Pod:
    """By the command of the Deployment, with its /data in the test's folder."""
    [container] = manifests.only("Deployment", "heliostat-redis")["spec"]["template"]["spec"]["containers"]
    (net.folder / "data").mkdir(exist_ok=True)
    command = [word.replace("dir /data", f"dir {net.folder}/data") for word in container["command"] + container["args"]]
    names = {one["name"] for one in container["env"]}
    redis = net.start("redis", 2, command, dict.fromkeys(names, PASSWORD))
    probe = container["readinessProbe"]["exec"]["command"]
    until(lambda: succeeds(redis, *probe), "Redis answers its probe", 60)
    return redis


def succeeds(pod: Pod, *command: str) -> bool:
    try:
        pod.run(*command)
    except AssertionError:
        assert pod.is_up(), pod.said()
        return False
    return True


def start_recoverable_head(net: Network, manifests: Manifests, number: int) -> Pod:
    options = manifests.only("RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    recovery = {"RAY_REDIS_ADDRESS": options["redisAddress"], "REDIS_PASSWORD": PASSWORD}
    recovery["RAY_external_storage_namespace"] = "uid-of-the-cluster"
    variables = {**environment(net, manifests, "serve"), **recovery}
    return start_head(net, number, variables, " --redis-password=$REDIS_PASSWORD")


def config(net: Network, manifests: Manifests, version: str) -> dict[str, Any]:
    """The RayService's serveConfigV2 with a tiny model."""
    found = yaml.safe_load(manifests.only("RayService")["spec"]["serveConfigV2"])
    published = publish(net.folder / "storage", "sentiment", "text-classification", classifier, run=f"r{version}")
    settings = {**found["applications"][0]["args"]["config"], "cpus_per_replica": 0.5}
    args = app_args("sentiment", published, net.folder / "storage", version, settings)
    found["applications"][0]["args"] = args.model_dump(mode="json")
    return dict(found)


def is_running(net: Network, head: Pod) -> bool:
    assert head.is_up(), head.said()
    try:
        found = json.loads(asked(net, head, "/api/serve/applications/"))["applications"]
    except (AssertionError, ValueError):  # it comes up
        return False
    assert found.get("sentiment", {}).get("status") != "DEPLOY_FAILED", found
    return bool(found.get("sentiment", {}).get("status") == "RUNNING")


def deploy(net: Network, head: Pod, given: dict[str, Any]) -> None:
    file = net.folder / "serve.json"
    file.write_text(json.dumps(given))
    asked(net, head, "/api/serve/applications/", "-X", "PUT", "-H", "Content-Type: application/json", "-d", f"@{file}")


def is_healthy(net: Network, worker: Pod, manifests: Manifests) -> bool:
    """Whether the liveness and the readiness probe of a serving pod pass."""
    [pod] = [one for one in manifests.pods() if one.role == "worker" and one.owner["kind"] == "RayService"]
    [container] = pod.spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        get, port = probe["httpGet"], probe["httpGet"]["port"]
        url = f"http://{worker.address}:{ports.get(port, port)}{get['path']}"
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", str(probe["timeoutSeconds"])]
        if net.run("bash", "-c", f"{' '.join(command)} {url} || true").strip() != "200":
            return False
    return True


def test_replicas_answer_without_a_head_and_the_next_one_has_them(net: Network, manifests: Manifests) -> None:
    need("redis-server")
    need("curl")
    redis = start_redis(net, manifests)
    net.resolve(heliostat_redis=redis)
    head = start_recoverable_head(net, manifests, 3)
    net.resolve(heliostat_redis=redis, head_svc=head)
    wait_for_head(net, head)
    recovering = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}  # KubeRay's, for workers
    worker = start_worker(net, 4, {**environment(net, manifests, "serve"), **recovering})
    deploy(net, head, config(net, manifests, "1"))
    until(lambda: is_running(net, head), "the endpoint is up", PATIENCE_SECONDS)
    until(lambda: is_healthy(net, worker, manifests), "the pod is ready", PATIENCE_SECONDS)
    replicas = worker.run(sys.executable, "-c", REPLICAS)
    assert replicas != "[]\n"
    said = net.folder / "answers"
    with (
        said.open("w") as output,
        net.popen(sys.executable, "-c", ASK, f"http://{worker.address}:8000{PREDICT}", KEY, stdout=output) as client,
    ):
        try:
            until(lambda: said.read_text().count("\n") > 5, "answers with the head", 60)
            head.kill()
            before = said.read_text().count("\n")
            until(lambda: gone_by(said, before), "answers without the head", AWAY_SECONDS * 10)
            assert is_healthy(net, worker, manifests), "the kubelet would restart it"
            away = said.read_text().count("\n")
            head = start_recoverable_head(net, manifests, 5)  # a new pod has a new address
            net.resolve(heliostat_redis=redis, head_svc=head)
            until(lambda: is_running(net, head), "the endpoint is the new head's too", PATIENCE_SECONDS)
            assert worker.run(sys.executable, "-c", REPLICAS) == replicas
            deploy(net, head, config(net, manifests, "2"))
            until(lambda: said.read_text().endswith("2\n"), "the new head deploys the next version", PATIENCE_SECONDS)
        finally:
            client.send_signal(signal.SIGTERM)
    found = said.read_text().split("\n")[:-1]
    assert set(found[:away]) == {"1"}, "each request is answered while the head is away"
    back = found[away : found.index("2")]
    assert set(back) <= {"1", NO_ANSWER}
    assert back[-1] == "1", "the replicas are found again before a version is deployed"
    assert set(found[found.index("2") :]) == {"2"}, "and all goes on as ever"


def gone_by(said: Path, before: int) -> bool:
    return said.read_text().count("\n") - before > AWAY_SECONDS * 4
