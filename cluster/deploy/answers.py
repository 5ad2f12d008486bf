"""Whether an endpoint answers from the version that its RayService names, at the address that clients use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from heliostat.cluster.deploy.api import Api, Reference
from heliostat.cluster.deploy.forward import forwarded
from heliostat.cluster.deploy.states import State, serve_config
from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.kuberay.services import INCREMENTAL
from heliostat.infra.errors import KubernetesError

PORT = 8000
SECONDS = 10


def ask(api: Api, service: Manifest) -> State:
    """`done` if each application answers as the version that it is configured with; else says what it says."""
    try:
        with _address(api, service) as url:
            return judged(service, lambda route: _health(f"{url}{route}/health"))
    except KubernetesError as error:
        return State("waits", f"it runs, and cannot be asked: {error}")


def judged(service: Manifest, health: Callable[[str], dict[str, Any]]) -> State:
    """The state by what `/health` under each route says; `health` raises KubernetesError where nothing answers."""
    said = []
    for application in _ours(service):
        wanted, found = str(application["args"]["version"]), health(application["route_prefix"].rstrip("/"))
        version = str(found.get("version"))
        if version != wanted:
            return State("waits", f"{application['name']} answers from version {version}, not yet from {wanted}")
        said.append(f"{application['name']} answers from version {version}")
    return State("done", "; ".join(said) or "runs")


def _ours(service: Manifest) -> Iterable[dict[str, Any]]:
    """Applications of Heliostat's; others have addresses of their own."""
    return (one for one in serve_config(service).get("applications", []) if "version" in (one.get("args") or {}))


@contextmanager
def _address(api: Api, service: Manifest) -> Iterator[str]:
    """The Gateway's address, or the Service through a port of this machine."""
    name = service["metadata"]["name"]
    if service["spec"].get("upgradeStrategy", {}).get("type") == INCREMENTAL:
        gateway = api.get(Reference("gateway.networking.k8s.io/v1", "Gateway", f"{name}-gateway")) or {}
        addresses = gateway.get("status", {}).get("addresses") or []
        if not addresses:
            raise KubernetesError(f"Gateway {name}-gateway has no address yet")
        yield f"http://{addresses[0]['value']}"
        return
    with forwarded(api, f"{name}-serve-svc", PORT) as port:
        yield f"http://127.0.0.1:{port}"


def _health(url: str) -> dict[str, Any]:
    try:
        with urlopen(url, timeout=SECONDS) as response:
            return dict(json.load(response))
    except HTTPError as error:
        raise KubernetesError(f"{url.rpartition('//')[2].partition('/')[2]} answers {error.code}") from None
    except (URLError, OSError, ValueError) as error:
        raise KubernetesError(f"no answer: {getattr(error, 'reason', error)}") from None
