"""The committed overlays are what the recipe is rendered to over them: the same objects, but for what is named here."""

from __future__ import annotations

import json
import re
import shlex
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cluster.kubernetes import kustomization
from heliostat.cluster.kubernetes.build import built
from heliostat.cluster.kubernetes.overlays import OVERLAYS, package
from heliostat.cluster.kubernetes.pods import CLUSTERS
from heliostat.infra.config.strict import build as parsed
from heliostat.operations.render import workload
from heliostat.serve.args import AppArgs
from heliostat.spec import Spec, load_spec
from tests.unit.k8s.conftest import Manifests, manifests_of

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
LISTENS = ("host", "port")
HASHED = re.compile(r"^(heliostat-(?:spec|environment))-[a-z0-9]{10}$")


def application(manifests: Manifests) -> Any:
    (found,) = yaml.safe_load(manifests.only("RayService")["spec"]["serveConfigV2"])["applications"]
    return found


def overrides(manifests: Manifests) -> list[str]:
    """What the overlay sets over the recipe: in its job, its endpoint, and its settings."""
    words = shlex.split(manifests.only("RayJob")["spec"]["entrypoint"])
    config = {
        key: value for key, value in application(manifests)["args"]["config"].items() if key not in ("host", "port")
    }
    storage = manifests.only("ConfigMap", "heliostat-environment")["data"]["HELIOSTAT_STORAGE"]
    return [*words[3:-2], f"serve={json.dumps(config)}", f"storage.url={storage}"]


def images(manifests: Manifests) -> dict[str, str]:
    used = {pod.owner["kind"]: pod.spec["containers"][0]["image"] for pod in manifests.pods() if pod.role == "head"}
    return {"train": used["RayJob"], "serve": used["RayService"]}


@cache
def both(overlay: str) -> tuple[Manifests, Manifests]:
    """The committed overlay, and the recipe rendered over it."""
    committed = manifests_of(f"overlays/{overlay}")
    spec = load_spec("sentiment", overrides(committed))
    args = application(committed)["args"]
    served = AppArgs(
        **{key: args[key] for key in ("name", "url", "digest", "version")}, config=spec.serve, storage=spec.storage
    )
    wanted = workload(spec, overlay, None, images(committed), served)
    return committed, Manifests(overlay, built(kustomization.files(wanted, overlay, package())))


def without_names(one: dict[str, Any]) -> dict[str, Any]:
    """The object without what must differ: hashes of ConfigMaps, texts compared below, bounds of training pods."""
    found = json.loads(json.dumps(one), object_hook=_unhashed)
    spec = found.get("spec", {})
    if found["kind"] == "ConfigMap" and found["metadata"]["name"] == "heliostat-spec":
        found["data"] = {}
    if found["kind"] == "RayService":
        spec["serveConfigV2"] = ""
    if found["kind"] == "RayJob":
        spec["entrypoint"] = ""
    if found["kind"] in ("RayJob", "RayCluster"):
        for group in spec.get("rayClusterSpec", spec)["workerGroupSpecs"]:
            del group["minReplicas"], group["maxReplicas"]
    return dict(found)


def _unhashed(value: dict[str, Any]) -> dict[str, Any]:
    return {key: HASHED.sub(r"\1", item) if isinstance(item, str) else item for key, item in value.items()}


def planned(manifests: Manifests, tmp_path: Path) -> Spec:
    """The spec that the job trains, with the overrides of its command."""
    file = tmp_path / "spec.yaml"
    file.write_text(manifests.only("ConfigMap", "heliostat-spec")["data"]["spec.yaml"])
    return load_spec(file, shlex.split(manifests.only("RayJob")["spec"]["entrypoint"])[3:-2])


@each_overlay
def test_the_committed_overlay_is_the_recipe_rendered_over_it(overlay: str) -> None:
    committed, rendered = both(overlay)
    ours, theirs = ([without_names(one) for one in found.objects] for found in (committed, rendered))
    assert [one for one in ours if one not in theirs] == []
    assert [one for one in theirs if one not in ours] == []


@each_overlay
def test_its_job_trains_the_same(overlay: str, tmp_path: Path) -> None:
    committed, rendered = both(overlay)
    first, second = (planned(one, tmp_path) for one in (committed, rendered))
    ignored = {"serve"}  # the endpoint is compared by what it serves
    assert first.model_dump(exclude=ignored) == second.model_dump(exclude=ignored)
    ends = [shlex.split(one.only("RayJob")["spec"]["entrypoint"])[-2:] for one in (committed, rendered)]
    assert ends == [["--run", "sentiment-1"]] * 2


@each_overlay
def test_its_endpoint_serves_the_same(overlay: str) -> None:
    committed, rendered = both(overlay)
    first, second = (application(one) for one in (committed, rendered))
    assert parsed(AppArgs, first.pop("args")) == parsed(AppArgs, second.pop("args"))
    assert first == second
    tops = [yaml.safe_load(one.only("RayService")["spec"]["serveConfigV2"]) for one in (committed, rendered)]
    for top in tops:
        del top["applications"]
    assert tops[0] == tops[1]


@each_overlay
def test_a_committed_cluster_has_room_for_the_job_and_for_others(overlay: str) -> None:
    committed, rendered = both(overlay)
    for kind, path in CLUSTERS.items():
        if kind == "RayService":
            continue
        bounds = []
        for found in (committed, rendered):
            spec = deepcopy(found.only(kind)["spec"])
            for key in path:
                spec = spec[key]
            (group,) = spec["workerGroupSpecs"]
            bounds.append((group["minReplicas"], group["maxReplicas"]))
        (_, most), (_, needed) = bounds
        assert most >= needed


def test_a_difference_is_found() -> None:
    committed, rendered = both("local")
    changed = deepcopy(rendered.only("RayService"))
    changed["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] += 1
    assert without_names(changed) not in [without_names(one) for one in committed.objects]
