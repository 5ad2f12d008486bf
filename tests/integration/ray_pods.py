"""Pods of Ray: started as KubeRay starts them, with the environment of the image and of the manifests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from heliostat.cluster.haproxy.ingress import haproxy_binary, wrap
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from tests.dockerfile import environment as image_environment
from tests.machines import missing
from tests.pods import Network, Pod, network
from tests.unit.k8s.conftest import Manifests
from tests.waiting import until

KEY, TOKEN = generate_key(), secrets.token_hex(32)
START = "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; ray start --block --dashboard-agent-listen-port=52365 "
"""How KubeRay 1.7 starts Ray; both kinds of pods have these words."""
SMALL = "--object-store-memory=100000000 --metrics-export-port=8080 "
HEAD = START + SMALL + "--head --no-monitor --dashboard-host=0.0.0.0 --num-cpus=0"
WORKER = START + SMALL + "--address=head-svc:6379 --num-cpus=2"
PATIENCE_SECONDS = 300
needs_pods = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@contextmanager
def pods_network() -> Iterator[Network]:
    """A network with a folder that its pods see, of a short path."""
    with (
        TemporaryDirectory(dir="/tmp", prefix="hs-", ignore_cleanup_errors=True) as folder,
        network(Path(folder)) as made,
    ):
        yield made


def environment(net: Network, manifests: Manifests, image: str) -> dict[str, str]:
    """What pods of Ray have: the environment of their image, the ConfigMap, the Secrets."""
    binary = haproxy_binary()
    assert binary
    proxy = {"RAY_SERVE_HAPROXY_BINARY_PATH": str(wrap(binary, net.folder / "heliostat-haproxy"))}
    settings = {**image_environment(image), **manifests.only("ConfigMap", "heliostat-environment")["data"], **proxy}
    settings |= {"HELIOSTAT_STORAGE": f"{net.folder}/storage", "HOME": str(net.folder)}
    return {**settings, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, ENVIRONMENT: KEY}


def start_head(net: Network, number: int, environment: Mapping[str, str], options: str = "") -> Pod:
    """A head at the address that ends with `number`; `options` are more words of `ray start`."""
    return net.start("head", number, ["bash", "-c", "--", HEAD + options], environment)


def start_worker(net: Network, number: int, environment: Mapping[str, str]) -> Pod:
    """A worker that looks for its head at the name of its Service, `head-svc`."""
    return net.start("worker", number, ["bash", "-c", "--", WORKER], environment)


def asked(net: Network, head: Pod, path: str, *more: str) -> str:
    """What the head's dashboard answers, asked as KubeRay does it."""
    command = ["curl", "-sS", "--fail-with-body", "--max-time", "30", "-H", f"Authorization: Bearer {TOKEN}", *more]
    return net.run(*command, f"http://{head.address}:8265{path}")


def answers(net: Network, head: Pod) -> bool:
    assert head.is_up(), head.said()
    try:
        return bool(asked(net, head, "/api/version"))
    except AssertionError:
        return False


def wait_for_head(net: Network, head: Pod) -> None:
    until(lambda: answers(net, head), "the head is up", PATIENCE_SECONDS)
