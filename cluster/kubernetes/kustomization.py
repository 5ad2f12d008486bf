"""A folder for `kubectl apply -k`: the shipped manifests, and a kustomization that makes them those of one model.

Pure: the same workload gives the same bytes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heliostat.cluster.kubernetes.overlays import OVERLAYS
from heliostat.cluster.kubernetes.workload import Pods, Workload

HEADER = "# Written by `heliostat render k8s`: change the spec and render again, which keeps to what you have edited.\n"
SHIPPED = "k8s"
"""Folder of the shipped manifests in the rendered one."""
DASHBOARDS = "infra/grafana"
"""What the component for monitoring refers to."""
STOP_SECONDS = 30
"""Of a pod's grace, for the end of Ray itself."""
_WORKERS = "/spec/workerGroupSpecs/0"
_REPLICAS = "/spec/rayClusterConfig/workerGroupSpecs/0"
_BUDGET = {"group": "policy", "kind": "PodDisruptionBudget"}


def files(workload: Workload, overlay: str, package: Path) -> dict[str, str]:
    """Path -> text of all files, for an overlay of the manifests in `package`."""
    return {
        "kustomization.yaml": HEADER + _kustomization(workload, overlay, package / SHIPPED),
        "spec.yaml": workload.spec,
        **{name: (package / name).read_text(encoding="utf-8") for name in _needed(package, overlay)},
    }


def _needed(package: Path, overlay: str) -> list[str]:
    """The base, the components, the one overlay, and the dashboards where it has them; sorted."""
    found = [file.relative_to(package) for file in (package / SHIPPED).rglob("*") if file.suffix in (".yaml", ".env")]
    kept = [file for file in found if file.parts[1] != "overlays" or file.parts[2] == overlay]
    has_dashboards = (
        "components/monitoring" in (package / SHIPPED / "overlays" / overlay / "kustomization.yaml").read_text()
    )
    dashboards = (package / DASHBOARDS).rglob("*") if has_dashboards else ()
    return sorted(str(file) for file in (*kept, *(one.relative_to(package) for one in dashboards if one.is_file())))


def _kustomization(workload: Workload, overlay: str, manifests: Path) -> str:
    has_budget = (manifests / "overlays" / overlay / "disruption.yaml").is_file()
    patches = [
        _patch({"group": "ray.io", "kind": "RayCluster"}, [*_scaled(_WORKERS, workload.workers), *_memory(workload)]),
        _patch({"group": "ray.io", "kind": "RayJob"}, _job(workload)),
        *_of_the_endpoint(workload, has_budget),
    ]
    lines = [
        "apiVersion: kustomize.config.k8s.io/v1beta1",
        "kind: Kustomization",
        f"resources: [{SHIPPED}/overlays/{overlay}]",
        "configMapGenerator:",
        "  - {name: heliostat-spec, behavior: replace, files: [spec.yaml]}",
        "  - name: heliostat-environment",
        "    behavior: merge",
        "    literals:",
        *(f"      - {json.dumps(f'{name}={value}')}" for name, value in sorted(workload.settings.items())),
        *_images(workload, overlay),
        "patches:",
        *(line for patch in patches for line in patch),
        "# A job trains on a cluster of its own, like the one that stands.",
        "replacements:",
        "  - source: {kind: RayCluster, name: heliostat, fieldPath: spec}",
        "    targets:",
        "      - select: {kind: RayJob}",
        "        fieldPaths: [spec.rayClusterSpec]",
    ]
    return "\n".join(lines) + "\n"


def _images(workload: Workload, overlay: str) -> list[str]:
    lines = ["images:"] if workload.images else []
    for kind, image in sorted(workload.images.items()):
        name, at, digest = image.partition("@")
        place, _, last = name.rpartition("/")
        base, _, tag = last.partition(":")
        new = f"{place}/{base}" if place else base
        pin = f'digest: "{digest}"' if at else f'newTag: "{tag}"'
        lines += [f"  - name: {OVERLAYS[overlay].registry}heliostat/{kind}", f"    newName: {new}", f"    {pin}"]
    return lines


def _job(workload: Workload) -> Iterator[tuple[str, Any]]:
    yield "/metadata/name", workload.run
    yield "/spec/entrypoint", shlex.join(["heliostat", *workload.command])


def _of_the_endpoint(workload: Workload, has_budget: bool) -> Iterator[list[str]]:
    service = {"group": "ray.io", "kind": "RayService"}
    if workload.endpoint is None:
        yield from (_deletion(one) for one in (service, *([_BUDGET] if has_budget else [])))
        return
    replicas, seconds = workload.endpoint.replicas, workload.endpoint.drain_seconds
    pod = f"{_REPLICAS}/template/spec"
    values = [
        ("/metadata/name", workload.name),
        ("/spec/serveConfigV2", workload.endpoint.config),
        *_scaled(_REPLICAS, replicas),
        (f"{pod}/terminationGracePeriodSeconds", seconds + STOP_SECONDS),
        (f"{pod}/containers/0/lifecycle/preStop/exec/command", ["bash", "-c", f"sleep {seconds}; ray stop"]),
    ]
    yield _patch(service, values)
    if has_budget:
        yield _patch({**_BUDGET, "name": "heliostat-serve"}, [("/spec/minAvailable", replicas.least - 1)])


def _scaled(group: str, pods: Pods) -> list[tuple[str, Any]]:
    return [(f"{group}/minReplicas", pods.least), (f"{group}/maxReplicas", pods.most)]


def _memory(workload: Workload) -> list[tuple[str, Any]]:
    """What a training pod asks for and may use: Ray plans with its limit, so it must be there."""
    resources = f"{_WORKERS}/template/spec/containers/0/resources"
    amount = f"{workload.memory_gib}Gi"
    return [(f"{resources}/{one}/memory", amount) for one in ("requests", "limits") if workload.memory_gib]


def _patch(target: dict[str, str], values: Any) -> list[str]:
    """Lines of a patch that replaces values by path. JSON is YAML, and long texts stay readable as blocks."""
    lines = [f"  - target: {{{', '.join(f'{key}: {value}' for key, value in target.items())}}}"]
    lines += ["    options: {allowNameChange: true}", "    patch: |-"]
    for path, value in values:
        lines += ["      - op: replace", f"        path: {path}"]
        if isinstance(value, str) and "\n" in value:
            lines += ["        value: |", *(f"          {line}" for line in value.splitlines())]
        else:
            lines.append(f"        value: {json.dumps(value)}")
    return lines


def _deletion(target: dict[str, str]) -> list[str]:
    """Lines of a patch that leaves an object of the overlay out."""
    version = {"ray.io": "ray.io/v1", "policy": "policy/v1"}[target["group"]]
    return [
        f"  - target: {{group: {target['group']}, kind: {target['kind']}}}",
        "    patch: |-",
        "      $patch: delete",
        f"      apiVersion: {version}",
        f"      kind: {target['kind']}",
        "      metadata: {name: all}",
    ]
