"""The commands, against a cluster that keeps objects; kubectl's port-forward and the registry are stood in for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from heliostat.cli import app
from heliostat.cluster.deploy.api import Api
from heliostat.cluster.deploy.states import State
from heliostat.infra.errors import HeliostatError, KubernetesError
from heliostat.infra.registry import registry
from heliostat.infra.registry.registry import ModelVersion
from heliostat.operations import deploy
from heliostat.operations import kubernetes as operation
from tests.fake_kuberay import FakeKubeRay
from tests.fake_kubernetes import MONITORING, FakeKubernetes
from tests.guides import ROOT, commands

GUIDE = ROOT / "docs/kubernetes.md"
pytestmark = pytest.mark.usefixtures("kuberay", "api")
SPEC = ["sentiment", "storage.url=s3://bucket", "serve.replicas.max=1"]


def version(number: int) -> ModelVersion:
    now = datetime.now(timezone.utc)
    return ModelVersion("sentiment", number, f"s3://bucket/models/r{number}", "cd" * 32, "r", now, (), {})


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A registry with `production`, which the commands reach; endpoints answer as they are asked to."""
    aliases = {"production": 4, "before": 3}

    def promote(storage: Any, name: str, number: int) -> ModelVersion:
        aliases["production"] = number
        return version(number)

    monkeypatch.setattr(registry, "resolve", lambda storage, reference: version(aliases["production"]))
    monkeypatch.setattr(registry, "promote", promote)
    monkeypatch.setattr(registry, "rollback", lambda storage, name: promote(storage, name, aliases["before"]))

    @contextmanager
    def reached(api: Api, wanted: bool = True) -> Iterator[None]:
        yield

    def ask(api: Api, found: Any) -> State:
        return State("done", "answers")

    monkeypatch.setattr(deploy, "registry_of", reached)
    monkeypatch.setattr(operation, "registry_of", reached)
    monkeypatch.setattr(operation, "ask", ask)
    monkeypatch.setattr(deploy.bring_up, "__defaults__", (ask,))
    return aliases


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--context", "test"])


def deployed(tmp_path: Path, *more: str) -> Result:
    return run("deploy", *SPEC, "--out", str(tmp_path / "out"), *more)


def served(kubernetes: FakeKubernetes) -> str:
    found = kubernetes.find("RayService", "sentiment")
    return operation._version(found) if found else ""


def test_a_spec_is_rendered_applied_and_waited_for(tmp_path: Path, kubernetes: FakeKubernetes) -> None:
    done = deployed(tmp_path)

    assert done.exit_code == 0, done.output
    assert "RayService sentiment: answers" in done.output
    assert (tmp_path / "out" / "kustomization.yaml").is_file()
    assert served(kubernetes) == "4"
    assert kubernetes.find("RayJob", "sentiment-1") is None, "only the parts that are asked for"
    assert kubernetes.find("RayCluster", "heliostat") is None


def test_a_kustomization_of_ones_own_is_applied_in_place_of_what_it_takes_in(
    tmp_path: Path, kubernetes: FakeKubernetes
) -> None:
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}
    taken = {"resources": ["out", "mine.yaml"], "components": ["out/k8s/components/redis"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"kind": "Kustomization", **taken}))
    kubernetes.write({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "heliostat-redis"}})

    done = deployed(tmp_path, "--kustomization", str(tmp_path))

    assert done.exit_code == 0, f"{done.output} {done.exception}"
    assert kubernetes.find("ConfigMap", "mine") is not None
    assert kubernetes.find("Service", "heliostat-redis") is not None
    assert served(kubernetes) == "4"


def test_a_part_that_there_is_not_is_refused(tmp_path: Path) -> None:
    assert str(deployed(tmp_path, "--part", "all").exception) == (
        "--part: 'all' given; cluster, train, serve, monitoring is allowed"
    )


def test_nothing_is_applied_without_a_context_where_nobody_can_confirm(kubernetes: FakeKubernetes) -> None:
    done = CliRunner().invoke(app, ["destroy"])

    assert isinstance(done.exception, HeliostatError)
    assert "--context: not given" in str(done.exception)
    assert kubernetes.requests == []


def test_the_status_says_what_runs_and_what_keeps_the_rest(
    tmp_path: Path, kubernetes: FakeKubernetes, kuberay: FakeKubeRay
) -> None:
    assert "nothing of Heliostat's" in run("status").output
    deployed(tmp_path)
    pull = {"image": "i:1", "state": {"waiting": {"reason": "ErrImagePull", "message": "denied"}}}
    meta = {"name": "head", "labels": {"ray.io/cluster": "sentiment-abcde"}}
    kubernetes.write({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {"containerStatuses": [pull]}})

    well = run("status").output
    kuberay.applications["sentiment"] = {"status": "UNHEALTHY", "message": "no replica"}
    found: Any = kubernetes.find("RayService", "sentiment")
    kubernetes.write({**found, "spec": {**found["spec"], "rayClusterDeletionDelaySeconds": 1}})
    ill = run("status").output

    assert "RayService" in well
    assert "sentiment run" in well
    assert "ErrImagePull" not in well
    assert "sentiment unhealthy: no replica" in ill
    assert "the image i:1 cannot be had" in ill


def test_an_endpoint_goes_back_to_the_version_before(
    tmp_path: Path, kubernetes: FakeKubernetes, published: dict[str, int]
) -> None:
    deployed(tmp_path)
    before: Any = kubernetes.find("RayService", "sentiment")

    done = run("rollback", "sentiment")

    assert done.exit_code == 0, done.output
    assert "sentiment answers from version 3 again, which is production" in done.output
    assert served(kubernetes) == "3"
    assert published["production"] == 3
    after: Any = kubernetes.find("RayService", "sentiment")
    assert after["spec"]["rayClusterConfig"] == before["spec"]["rayClusterConfig"], "nothing else has changed"


def test_a_rollback_that_fails_changes_neither_endpoint_nor_alias(
    tmp_path: Path, kubernetes: FakeKubernetes, published: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(tmp_path)

    def never(api: Api, found: Any) -> State:
        return State("waits", "answers from version 4, not yet from 3")

    monkeypatch.setattr(operation, "ask", never)

    done = run("rollback", "sentiment", "--timeout", "1")

    assert isinstance(done.exception, KubernetesError)
    assert (served(kubernetes), published["production"]) == ("4", 4)


def test_one_endpoint_or_everything_is_taken_away_and_volumes_stay(tmp_path: Path, kubernetes: FakeKubernetes) -> None:
    deployed(tmp_path)

    assert "nothing is ended: test, namespace models: end " in str(run("destroy").exception)
    assert "no endpoint absent" in str(run("destroy", "absent", "--yes").exception)
    one = run("destroy", "sentiment", "--yes")
    assert one.exit_code == 0, one.output
    assert kubernetes.find("RayService", "sentiment") is None
    assert kubernetes.find("ServiceAccount", "heliostat") is not None
    rest = run("destroy", "--yes")
    assert "stay, with their data; --volumes takes them too" in rest.output.replace("\n", " ")
    assert kubernetes.find("ServiceAccount", "heliostat") is None
    assert kubernetes.all_of("PersistentVolumeClaim")
    run("destroy", "--yes", "--volumes")
    assert not kubernetes.all_of("PersistentVolumeClaim")


def test_the_guide_goes_from_an_empty_namespace_to_an_endpoint_and_back(
    tmp_path: Path, kubernetes: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig(tmp_path / "kind", "kind-kind")))
    kubernetes.kinds = {**kubernetes.kinds, **MONITORING}
    monkeypatch.chdir(tmp_path)
    ours = [one for one in commands(GUIDE, "heliostat") if "--context" in one]
    assert {one.split()[1] for one in ours} == {"deploy", "destroy", "rollback", "status"}
    for command in ours:
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, f"{command}: {done.output} {done.exception}"
        if "--part serve" in command:
            assert served(kubernetes) == "4"
    assert kubernetes.find("RayJob", "sentiment-2") is None
    assert kubernetes.find("ServiceAccount", "heliostat") is None
