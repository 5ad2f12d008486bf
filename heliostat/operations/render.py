"""`heliostat render k8s`: the manifests of one model, from its spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from heliostat.cluster.kubernetes import folder, kustomization
from heliostat.cluster.kubernetes.overlays import OVERLAYS, Overlay, package
from heliostat.cluster.kubernetes.workload import Endpoint, Pods, Workload, check_image, check_name
from heliostat.infra.errors import ConfigError
from heliostat.serve.replica.ingress import ingress_variables
from heliostat.serve.replica.scaling import draining
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.serve.args import AppArgs

PORT = 8000
"""Of endpoints in the manifests; policies and probes name it."""


def render(
    spec: Spec,
    overlay: str,
    out: Path,
    *,
    run: str | None,
    model: str | None,
    images: Mapping[str, str],
    is_served: bool,
    shows: bool,
    force: bool,
) -> None:
    """Writes the folder, or shows with `shows` what would change in it.

    `model` refers to the version that is served, the spec's `production` where None. Raises ConfigError for what
    Kubernetes, KubeRay or the overlay has no place for, and for files that were edited; ModelError if no such version
    is published.
    """
    if overlay not in OVERLAYS:
        raise ConfigError(f"--overlay: {overlay!r} given; {', '.join(OVERLAYS)} is allowed")
    view = View()
    check(spec)
    for key in unused(spec):
        view.say(f"{key}: given, and not used on Kubernetes, where pods and services say it")
    served = _served(spec, model) if is_served else None
    files = kustomization.files(workload(spec, overlay, run, images, served), overlay, package())
    if shows:
        view.say(folder.difference(out, files) or f"{out}: as it would be rendered")
        return
    found = folder.write(out, files, force=force)
    view.say(f"{out}: {len(found.written)} files written, {len(found.removed)} removed, of {len(files)}")
    for part in ("platform", "train", *(["serve"] if is_served else [])):
        view.say(f"kubectl apply --server-side -k {out} -l app.kubernetes.io/component={part}")


def _served(spec: Spec, model: str | None) -> AppArgs:
    from heliostat.pipeline.serve import app_args, resolve_model

    return app_args(spec, resolve_model(spec, model))


def check(spec: Spec) -> None:
    """Raises ConfigError for what only this machine has."""
    if not spec.storage.url.startswith("s3://"):
        raise ConfigError(
            f"storage.url: {spec.storage.url} given; pods need a bucket, s3://BUCKET or s3://BUCKET/PREFIX"
        )
    for key, source in (("data.source", spec.data.source), ("model.source", spec.model.source)):
        if source is not None and _is_local(source):
            raise ConfigError(f"{key}: {source} given, which no pod sees; s3://…, hf:…, pkg:…, dataset:… are allowed")
    if spec.serve.tls is not None:
        raise ConfigError("serve.tls: given; on Kubernetes the Gateway or Ingress in front has the certificate")


def unused(spec: Spec) -> list[str]:
    """Keys of the spec that say where this machine's own Ray and endpoints are."""
    serve = [f"serve.{key}" for key in ("host", "port") if key in spec.serve.model_fields_set]
    cluster = [f"cluster.{key}" for key in sorted(spec.cluster.model_fields_set - {"autoscales"})]
    return [*serve, *cluster]


def _is_local(source: str) -> bool:
    return ":" not in source


def workload(spec: Spec, overlay: str, run: str | None, images: Mapping[str, str], served: AppArgs | None) -> Workload:
    """What the overlay runs of a spec. Pure; raises ConfigError where it does not fit."""
    found = OVERLAYS[overlay]
    name = run or f"{spec.name}-1"
    check_name("name", spec.name)
    check_name("--run" if run else "name (the run is NAME-1)", name)
    for kind in ("train", "serve"):
        if kind in images:
            check_image(f"--{kind}-image", images[kind])
        elif found.registry:
            raise ConfigError(f"--{kind}-image: not given; the overlay {overlay} names none that there is")
    return Workload(
        name=spec.name,
        run=name,
        spec=_for_pods(spec),
        arguments=("train.use_gpu=true",) if found.gpus and spec.train.use_gpu == "auto" else (),
        settings={"HELIOSTAT_STORAGE": spec.storage.url, **(ingress_variables(spec.serve) if served else {})},
        images=images,
        workers=_workers(spec, overlay, found),
        endpoint=_endpoint(spec, overlay, found, served) if served else None,
    )


def _endpoint(spec: Spec, overlay: str, found: Overlay, served: AppArgs) -> Endpoint:
    seconds = draining(spec.serve)["graceful_shutdown_timeout_s"]
    return Endpoint(_serve_config(served), _replicas(spec, overlay, found), math.floor(seconds) + 1)


def _for_pods(spec: Spec) -> str:
    """The spec without what the overlay says: where storage is, and which Ray is joined."""
    values = spec.model_dump(mode="json", exclude={"storage", "cluster"}, exclude_unset=True)
    values["cluster"] = {"autoscales": True}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


def _workers(spec: Spec, overlay: str, found: Overlay) -> Pods:
    train = spec.train
    uses_gpu = bool(found.gpus) if train.use_gpu == "auto" else train.use_gpu
    each = found.in_a_pod(train.cpus_per_worker, 1 if uses_gpu else 0)
    if each == 0:
        raise ConfigError(
            f"train.cpus_per_worker: {train.cpus_per_worker} given{' on a GPU' if uses_gpu else ''}; a worker pod of "
            f"the overlay {overlay} has {found.cpus} CPUs and {found.gpus} GPUs"
        )
    return _pods("train.workers", train.workers.min, train.workers.max, each, overlay, found.most_workers)


def _replicas(spec: Spec, overlay: str, found: Overlay) -> Pods:
    serve = spec.serve
    each = found.in_a_pod(serve.cpus_per_replica, serve.gpus_per_replica)
    if each == 0:
        raise ConfigError(
            f"serve.cpus_per_replica: {serve.cpus_per_replica:g} given, and gpus_per_replica"
            f" {serve.gpus_per_replica:g}; a serving pod of the overlay {overlay} has {found.cpus} CPUs and"
            f" {found.gpus} GPUs"
        )
    pods = _pods("serve.replicas", serve.replicas.min, serve.replicas.max, each, overlay, found.most_replicas)
    if pods.least < found.least_replicas:
        raise ConfigError(
            f"serve.replicas.min: {serve.replicas.min} given, {each} to a pod; the overlay {overlay} drains a node at"
            f" a time, which needs {found.least_replicas} pods: {(found.least_replicas - 1) * each + 1} replicas"
        )
    return pods


def _pods(key: str, least: int, most: int, each: int, overlay: str, allowed: int | None) -> Pods:
    pods = Pods(max(1, math.ceil(least / each)), max(1, math.ceil(most / each)))
    if allowed is not None and pods.most > allowed:
        raise ConfigError(
            f"{key}: {most} given, {each} to a pod; the overlay {overlay} has room for {allowed * each} in all"
        )
    return pods


def _serve_config(args: AppArgs) -> str:
    """Ray Serve's configuration of the endpoint, with its version pinned."""
    values = args.model_dump(mode="json", exclude_unset=True, exclude={"storage", "config"})
    config = args.config.model_dump(mode="json", exclude_unset=True, exclude={"host", "port", "adapters"})
    application: dict[str, Any] = {
        "name": args.application,
        "route_prefix": args.route,
        "import_path": "heliostat.serve.app:build",
        "args": {**values, "config": {"host": "0.0.0.0", "port": PORT, **config}},
    }
    top = {"proxy_location": "EveryNode", "http_options": {"host": "0.0.0.0", "port": PORT}}
    return yaml.safe_dump({**top, "applications": [application]}, sort_keys=False, allow_unicode=True, width=110)
