"""`heliostat render k8s`: the manifests of one model, from its spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat import __version__
from heliostat.cluster.kubernetes import folder, kustomization, refusals
from heliostat.cluster.kubernetes.build import Manifest, built
from heliostat.cluster.kubernetes.helm import chart
from heliostat.cluster.kubernetes.overlays import OVERLAYS, package
from heliostat.cluster.kubernetes.plain import dump, plain
from heliostat.cluster.kubernetes.workload import SPEC_FILE, Endpoint, Workload, check_image, check_name
from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.operations import memory, sizes
from heliostat.serve.replica.ingress import ingress_variables
from heliostat.serve.replica.scaling import draining
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.serve.args import AppArgs

PORT = 8000
"""Of endpoints in the manifests; policies and probes name it."""


JOBS = ("prepare", "train", "tune", "evaluate")
"""Commands that a RayJob can run."""
FORMS = ("kustomize", "plain", "helm")
"""A folder for `kubectl apply -k`, one file, and a chart."""
MANIFESTS = "manifests.yaml"
"""The one file of a plain rendering."""


@dataclass(frozen=True)
class Request:
    """What is to be rendered of a spec."""

    overlay: str = "local"
    job: str = "train"
    run: str | None = None
    """Name of the RayJob, and of the run that it is."""
    model: str | None = None
    """The version that is served; the spec's `production` where None."""
    images: Mapping[str, str] = field(default_factory=dict)
    is_served: bool = True


def render(spec: Spec, request: Request, out: Path, *, form: str, shows: bool, force: bool) -> None:
    """Writes the folder in a form of FORMS, or shows with `shows` what would change in it.

    Raises ConfigError for what Kubernetes, KubeRay or the overlay has no place for, and for files that were edited;
    ModelError if no such version is published; ResourceError where a form needs kubectl and there is none.
    """
    view = View()
    files = manifests(spec, request, view)
    objects = _built(files, view, is_needed=form != "kustomize")
    if form == "plain":
        files = {MANIFESTS: plain(objects)}
    elif form == "helm":
        files = chart(objects, spec.name, __version__)
    if shows:
        view.say(folder.difference(out, files) or f"{out}: as it would be rendered")
        return
    found = folder.write(out, files, force=force)
    view.say(f"{out}: {len(found.written)} files written, {len(found.removed)} removed, of {len(files)}")
    for line in _next(spec, request, out, form):
        view.say(line)


def _next(spec: Spec, request: Request, out: Path, form: str) -> list[str]:
    """The commands that apply what is written."""
    if form == "helm":
        return [f"helm upgrade --install {spec.name} {out}"]
    place = f"-f {out / MANIFESTS}" if form == "plain" else f"-k {out}"
    parts = ("platform", "train", *(["serve"] if request.is_served else []))
    return [f"kubectl apply --server-side {place} -l app.kubernetes.io/component={part}" for part in parts]


def manifests(spec: Spec, request: Request, view: View) -> dict[str, str]:
    """The files of a folder for `kubectl apply -k`.

    What does not fit is said before the registry is asked. Raises as `render` does.
    """
    if request.overlay not in OVERLAYS:
        raise ConfigError(f"--overlay: {request.overlay!r} given; {', '.join(OVERLAYS)} is allowed")
    if request.job not in JOBS:
        raise ConfigError(f"--job: {request.job!r} given; {', '.join(JOBS)} is allowed")
    check(spec)
    check_fit(spec, request.overlay, request.run, request.images, request.is_served, request.job)
    for key in unused(spec):
        view.say(f"{key}: given, and not used on Kubernetes, where pods and services say it")
    if request.job in ("train", "tune"):
        trained = memory.as_trained(spec, request.overlay)
        model = memory.planned(trained)
        if isinstance(model, str):
            view.say(f"memory of worker pods is the overlay's or cluster.pod_memory_gib, not planned: {model}")
        else:
            memory.check_memory(trained, request.overlay, model)
    served = _served(spec, request.model) if request.is_served else None
    wanted = workload(spec, request.overlay, request.run, request.images, served, request.job, request.model)
    return kustomization.files(wanted, request.overlay, package())


def _built(files: dict[str, str], view: View, is_needed: bool) -> list[Manifest]:
    """The objects that the files build, none of which KubeRay refuses; raises as `render` does.

    Without kubectl, which builds them, there are none, and a line says so, unless they are needed.
    """
    try:
        objects = built(files)
    except ResourceError as error:
        if is_needed:
            raise
        view.say(f"not held against what KubeRay refuses: {error}")
        return []
    refusals.check(objects)
    for line in refusals.ignored(objects):
        view.say(line)
    return objects


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
    cluster = [f"cluster.{key}" for key in sorted(spec.cluster.model_fields_set - {"autoscales", "pod_memory_gib"})]
    return [*serve, *cluster]


def _is_local(source: str) -> bool:
    return ":" not in source


def check_fit(
    spec: Spec, overlay: str, run: str | None, images: Mapping[str, str], is_served: bool, job: str = "train"
) -> None:
    """Raises ConfigError for names, images and sizes that the overlay has no place for; asks nobody."""
    check_name("name", spec.name)
    check_name("--run" if run else f"name (the job is {_named(spec, job)})", run or _named(spec, job))
    for kind in ("train", "serve"):
        if kind in images:
            check_image(f"--{kind}-image", images[kind])
        elif OVERLAYS[overlay].registry:
            raise ConfigError(f"--{kind}-image: not given; the overlay {overlay} names none that there is")
    sizes.workers(spec, overlay, job)
    if is_served:
        sizes.replicas(spec, overlay)


def workload(
    spec: Spec,
    overlay: str,
    run: str | None,
    images: Mapping[str, str],
    served: AppArgs | None,
    job: str = "train",
    model: str | None = None,
) -> Workload:
    """What the overlay runs of a spec. Pure; raises ConfigError where it does not fit."""
    check_fit(spec, overlay, run, images, served is not None, job)
    name = run or _named(spec, job)
    return Workload(
        name=spec.name,
        run=name,
        command=(job, SPEC_FILE, *_overrides(spec, overlay, job), *_options(job, name, model)),
        spec=_for_pods(spec),
        settings={"HELIOSTAT_STORAGE": spec.storage.url, **(ingress_variables(spec.serve) if served else {})},
        images=images,
        workers=sizes.workers(spec, overlay, job),
        memory_gib=spec.cluster.pod_memory_gib,
        endpoint=_endpoint(spec, overlay, served) if served else None,
    )


def _named(spec: Spec, job: str) -> str:
    return f"{spec.name}-1" if job == "train" else f"{spec.name}-{job}-1"


def _overrides(spec: Spec, overlay: str, job: str) -> tuple[str, ...]:
    """What the overlay asks for: its GPUs, where a job trains and the spec leaves it open."""
    uses_gpus = OVERLAYS[overlay].gpus and job in ("train", "tune") and spec.train.use_gpu == "auto"
    return ("train.use_gpu=true",) if uses_gpus else ()


def _options(job: str, name: str, model: str | None) -> tuple[str, ...]:
    if job == "train":
        return ("--run", name)
    if job == "tune":
        return ("tune.resume=auto", "--search", name)
    return ("--model", model) if job == "evaluate" and model else ()


def _endpoint(spec: Spec, overlay: str, served: AppArgs) -> Endpoint:
    seconds = draining(spec.serve)["graceful_shutdown_timeout_s"]
    return Endpoint(_serve_config(served), sizes.replicas(spec, overlay), math.floor(seconds) + 1)


def _for_pods(spec: Spec) -> str:
    """The spec without what the overlay says: where storage is, and which Ray is joined."""
    values = spec.model_dump(mode="json", exclude={"storage", "cluster"}, exclude_unset=True)
    values["cluster"] = {"autoscales": True}
    return dump(values)


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
    return dump({**top, "applications": [application]})
