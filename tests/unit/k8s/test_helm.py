"""The Helm chart: with its own values it is what kustomize builds, and other values show where they should."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart, HelmError, lint
from typer.testing import CliRunner

from heliostat import __version__
from heliostat.cli import app
from heliostat.cluster.kubernetes.build import LOADER
from heliostat.cluster.kubernetes.folder import write
from heliostat.cluster.kubernetes.helm import chart
from tests.unit.k8s.conftest import EVERY_TARGET, IMAGES, Manifests, manifests_of

DIGEST = f"sha256:{'7a' * 32}"
CHANGED: dict[str, Any] = {
    "names": {"endpoint": "joy", "job": "joy-9"},
    "images": {"train": {"repository": "ghcr.io/us/train", "digest": DIGEST}, "serve": {"tag": "0.2.0", "digest": ""}},
    "training": {"minReplicas": 2, "maxReplicas": 7, "resources": {"limits": {"cpu": "4", "memory": "16Gi"}}},
    "serving": {"minReplicas": 5, "maxReplicas": 9, "config": "applications: []\n"},
}


@pytest.fixture(scope="module", params=EVERY_TARGET)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifests, Path]:
    """Objects, and the folder of their chart."""
    manifests, place = manifests_of(request.param), tmp_path_factory.mktemp("chart") / "mood"
    write(place, chart(manifests.objects, "mood", __version__))
    return manifests, place


@cache
def by_default(folder: Path) -> list[dict[str, Any]]:
    """The objects of a chart with its own values."""
    return templated(folder)


def templated(folder: Path, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """As `helm template` gives them."""
    with Chart.load(folder) as loaded:
        texts = loaded.render(values, name="mood", namespace="models").values()
    return [one for text in texts for one in yaml.load_all(text, Loader=LOADER) if one]


def test_the_default_values_give_what_kustomize_builds(target: tuple[Manifests, Path]) -> None:
    manifests, folder = target
    found = by_default(folder)
    assert len(found) == len(manifests.objects)
    for one in manifests.objects:
        assert one in found, one["metadata"]["name"]


def test_helm_has_nothing_to_say_of_the_chart(target: tuple[Manifests, Path]) -> None:
    report = lint(target[1], strict=True, kube_version="v1.30.0")
    assert report["total_charts_linted"] == 1
    assert [one for one in report["messages"] if "icon is recommended" not in one["error"]] == []


def test_values_that_are_changed_show(target: tuple[Manifests, Path]) -> None:
    found = Manifests("changed", templated(target[1], CHANGED))
    job, service, standing = (found.only(kind) for kind in ("RayJob", "RayService", "RayCluster"))
    assert (service["metadata"]["name"], job["metadata"]["name"]) == ("joy", "joy-9")
    assert job["spec"]["entrypoint"].endswith(" --run joy-9")
    assert service["spec"]["serveConfigV2"] == "applications: []\n"
    for cluster in (standing["spec"], job["spec"]["rayClusterSpec"]):
        (group,) = cluster["workerGroupSpecs"]
        assert (group["minReplicas"], group["maxReplicas"]) == (2, 7)
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert (limits["cpu"], limits["memory"]) == ("4", "16Gi")
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (5, 9)
    for budget in found.of("PodDisruptionBudget"):
        assert budget["spec"]["minAvailable"] == 4
    images = {container["image"] for pod in found.pods() for container in pod.spec["containers"]}
    assert f"ghcr.io/us/train@{DIGEST}" in images
    assert [one for one in images if one.endswith("/serve:0.2.0")]
    assert not [one for one in images if "/train:" in one]


def test_values_that_there_are_not_and_wrong_ones_are_refused(target: tuple[Manifests, Path]) -> None:
    wrong: list[dict[str, Any]] = [
        {"serving": {"replicas": 3}},
        {"images": {"train": {"tag": "latest"}}},
        {"names": {"job": "Joy_9"}},
        {"training": {"minReplicas": "two"}},
    ]
    for values in wrong:
        with pytest.raises(HelmError):
            templated(target[1], values)


def test_texts_with_braces_reach_the_cluster_as_they_are(target: tuple[Manifests, Path]) -> None:
    """Alerts and dashboards have templates of their own."""
    manifests, folder = target
    assert ("{{" in json.dumps(manifests.objects)) == (manifests.target != "base")
    assert json.dumps(by_default(folder)).count("{{") == json.dumps(manifests.objects).count("{{")


def test_the_same_objects_give_the_same_chart(target: tuple[Manifests, Path]) -> None:
    manifests, folder = target
    for path, text in chart(reversed(manifests.objects), "mood", __version__).items():
        assert (folder / path).read_text() == text, path


def test_the_command_writes_a_chart_without_an_endpoint(tmp_path: Path) -> None:
    out = tmp_path / "chart"
    words = ["render", "helm", "sentiment", "storage.url=s3://bucket", "--no-serve", "--out", str(out)]
    done = CliRunner().invoke(app, [*words, "--train-image", IMAGES["train"]])
    assert done.exit_code == 0, done.output
    assert f"helm upgrade --install sentiment {out}" in done.output.replace("\n", " ")
    values = yaml.safe_load((out / "values.yaml").read_text())
    assert values["images"]["train"]["repository"] == "registry.local:5000/heliostat/train"
    assert "serving" not in values
    assert not [one for one in templated(out) if one["kind"] == "RayService"]
    (out / "values.yaml").write_text("names: {}\n")
    edited = CliRunner().invoke(app, words)
    assert re.search(r"values\.yaml changed since it was rendered", str(edited.exception))
