"""A port of this machine that leads to a Service, through `kubectl port-forward`, which no network policy keeps out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from heliostat.cluster.deploy.api import Api
from heliostat.cluster.kubernetes.build import kubectl
from heliostat.infra.errors import KubernetesError

SECONDS = 20.0
"""How long the way may take to open."""


@contextmanager
def forwarded(api: Api, service: str, port: int) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to one of the Service's pods, inside the block.

    Raises KubernetesError, in kubectl's words, if there is no way.
    """
    command = [kubectl(), "--context", api.context, "--namespace", api.namespace, "port-forward"]
    process = subprocess.Popen(
        [*command, "--address", "127.0.0.1", f"service/{service}", f":{port}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    limit = Timer(SECONDS, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        match = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        limit.cancel()
        if match is None:
            raise KubernetesError(f"Service {service}: no way to its port {port}: {_last_words(process)}")
        yield int(match[1])
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


def _last_words(process: subprocess.Popen[str]) -> str:
    process.kill()
    said = process.communicate()[1].strip().splitlines()
    return said[-1] if said else f"kubectl did not open it within {SECONDS:g} s"
