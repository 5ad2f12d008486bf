"""What commands need of a namespace on Kubernetes: its registry, its endpoints, and what runs in it."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from heliostat.cluster.deploy import apply, wait
from heliostat.cluster.deploy.answers import ask
from heliostat.cluster.deploy.api import Api, Reference
from heliostat.cluster.deploy.forward import forwarded
from heliostat.cluster.deploy.owned import applied
from heliostat.cluster.deploy.remove import deployed
from heliostat.cluster.deploy.states import serve_config
from heliostat.cluster.environment import applied as environment
from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.pin import Pin
from heliostat.cluster.kubernetes.plain import dump
from heliostat.cluster.kubernetes.pods import ray_cluster
from heliostat.infra.errors import ConfigError, KubernetesError
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.storage.config import StorageConfig
from heliostat.view.terminal import View

KINDS = ("RayService", "RayJob", "RayCluster")
WAYS = {
    "MLFLOW_TRACKING_URI": ("heliostat-mlflow", 5000),
    "AWS_ENDPOINT_URL_S3": ("heliostat-bucket", 8333),
}
"""Variable -> Service and port in the namespace that it leads to, where nothing else is set."""
KEYS = "heliostat-s3"
"""The Secret with the bucket's keys, named as the variables are."""


@contextmanager
def registry_of(api: Api, wanted: bool = True) -> Iterator[None]:
    """Lets this process read the registry and the bucket of the namespace, through ports of this machine.

    What the environment names already is taken as it is. Raises KubernetesError if there is no way.
    """
    with ExitStack() as stack:
        variables: dict[str, str | None] = {}
        for variable, (service, port) in WAYS.items() if wanted else ():
            if variable not in os.environ and api.get(Reference("v1", "Service", service)):
                variables[variable] = f"http://127.0.0.1:{stack.enter_context(forwarded(api, service, port))}"
        if "AWS_ENDPOINT_URL_S3" in variables:
            variables.update(_keys(api))
        stack.enter_context(environment(variables))
        yield


def show(api: Api) -> None:
    """Prints the endpoints, jobs and clusters of the namespace, and what keeps those that are not there."""
    view = View()
    rows, lines = [], []
    for one in deployed(api, (("ray.io/v1", kind) for kind in KINDS)):
        state = wait.state_of(api, one)
        rows.append([one["kind"], one["metadata"]["name"], _version(one), state.words])
        lines += [] if state.is_done else wait.troubles(api, one)
    title = f"{api.context}, namespace {api.namespace}"
    view.table(title if rows else f"{title}: nothing of Heliostat's", ["kind", "name", "version", "state"], rows)
    for line in lines:
        view.say(line)


def roll_back(api: Api, name: str, version: int | None, seconds: float) -> None:
    """Serves an earlier version and makes it `production`; if one of the two fails, neither is changed.

    Raises ConfigError if there is no such endpoint, KubernetesError if it does not answer in time.
    """
    from heliostat.operations.experiment import rolled_back

    reference = Reference("ray.io/v1", "RayService", name)
    live = api.get(reference)
    if live is None:
        raise ConfigError(f"{name}: no such endpoint in {api.context}, namespace {api.namespace}")
    before, view = applied(live), View()

    def serve(model: ModelVersion) -> None:
        try:
            _apply(api, pinned(before, name, model), seconds, view)
        except BaseException:
            apply.apply(api, [before], apply.Applied())
            raise

    with registry_of(api):
        rolled_back(_storage(api, live), name, _version(live), version, serve)


def pinned(service: Manifest, name: str, model: ModelVersion) -> Manifest:
    """The RayService with another version of one application; raises ConfigError if it has no such application."""
    config = serve_config(service)
    application = next((one for one in config.get("applications", []) if one["name"] == name), None)
    if application is None:
        raise ConfigError(f"RayService {service['metadata']['name']}: serves no application {name}")
    application["args"].update(asdict(Pin.of(model)))
    return {**service, "spec": {**service["spec"], "serveConfigV2": dump(config)}}


def _apply(api: Api, manifest: Manifest, seconds: float, view: View) -> None:
    apply.apply(api, [manifest], apply.Applied())
    wait.wait(api, [Reference.of(manifest)], seconds, view.say, lambda found: ask(api, found))


def _version(one: Manifest) -> str:
    """The versions that a RayService's configuration names."""
    if one["kind"] != "RayService":
        return ""
    return ", ".join(str(app.get("args", {}).get("version", "")) for app in serve_config(one).get("applications", []))


def _storage(api: Api, service: Manifest) -> StorageConfig:
    """Where the pods of the endpoint find storage: in the ConfigMap that they read."""
    containers = ray_cluster(service)["headGroupSpec"]["template"]["spec"]["containers"]
    names = [one["configMapRef"]["name"] for one in containers[0].get("envFrom", []) if "configMapRef" in one]
    for name in names:
        data: dict[str, Any] = (api.get(Reference("v1", "ConfigMap", name)) or {}).get("data", {})
        if "HELIOSTAT_STORAGE" in data:
            return StorageConfig(url=data["HELIOSTAT_STORAGE"])
    raise KubernetesError(f"RayService {service['metadata']['name']}: none of {', '.join(names)} names its storage")


def _keys(api: Api) -> dict[str, str | None]:
    """The bucket's keys, where this user may read them and has none."""
    data = (api.get(Reference("v1", "Secret", KEYS)) or {}).get("data", {})
    return {name: base64.b64decode(value).decode() for name, value in data.items() if name not in os.environ}
