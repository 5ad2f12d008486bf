"""Endpoints that are asked through a port of this machine: kubectl is a script here, which leads to a server here."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from heliostat.cluster.deploy import answers, forward
from heliostat.cluster.deploy.api import Api
from heliostat.cluster.deploy.forward import forwarded
from heliostat.infra.errors import KubernetesError
from tests.fake_kubernetes import FakeKubernetes
from tests.waiting import until

FORWARDS = 'print("Forwarding from 127.0.0.1:{port} -> 8000", flush=True); time.sleep(60)'
REFUSES = 'print("error: pods \\"head\\" is forbidden", file=sys.stderr); sys.exit(1)'


class Endpoint:
    """A server with `/mood/health`."""

    def __init__(self) -> None:
        self.status, self.version = 200, "3"
        self.asked: list[str] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked.append(self.path)
                self.send_response(endpoint.status)
                self.end_headers()
                self.wfile.write(json.dumps({"status": "ok", "version": endpoint.version}).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a kubectl first on PATH that runs some lines of Python; its arguments go to a file."""

    def put(lines: str) -> Path:
        said = tmp_path / "arguments"
        script = tmp_path / "bin" / "kubectl"
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f"#!{sys.executable}\nimport sys, time\nopen({str(said)!r}, 'w').write(' '.join(sys.argv[1:]))\n{lines}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
        return said

    return put


def service(version: str = "3", **spec: Any) -> dict[str, Any]:
    ours = {"name": "mood", "route_prefix": "/mood", "args": {"version": version}}
    config = yaml.safe_dump({"applications": [ours, {"name": "theirs", "route_prefix": "/theirs"}]})
    return {"kind": "RayService", "metadata": {"name": "mood"}, "spec": {"serveConfigV2": config, **spec}}


def test_an_endpoint_is_done_when_it_answers_from_the_version_that_is_asked_for(
    api: Api, endpoint: Endpoint, kubectl: Any
) -> None:
    arguments = kubectl(FORWARDS.format(port=endpoint.server.server_port))

    assert answers.ask(api, service()).is_done
    state = answers.ask(api, service("4"))
    assert (state.phase, state.words) == ("waits", "mood answers from version 3, not yet from 4")
    assert set(endpoint.asked) == {"/mood/health"}
    assert arguments.read_text() == (
        "--context test --namespace models port-forward --address 127.0.0.1 service/mood-serve-svc :8000"
    )


def test_an_endpoint_that_is_unwell_or_cannot_be_reached_waits(api: Api, endpoint: Endpoint, kubectl: Any) -> None:
    kubectl(FORWARDS.format(port=endpoint.server.server_port))
    endpoint.status = 503
    assert answers.ask(api, service()).words == "it runs, and cannot be asked: mood/health answers 503"

    kubectl(REFUSES)
    assert answers.ask(api, service()).words == (
        'it runs, and cannot be asked: Service mood-serve-svc: no way to its port 8000: error: pods "head" is forbidden'
    )


def test_the_gateway_is_asked_where_clients_go_there(api: Api, kubernetes: FakeKubernetes, endpoint: Endpoint) -> None:
    upgrade: Any = {"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}}
    gateway_kinds = {"gateway.networking.k8s.io/v1": {"Gateway": ("gateways", True)}}
    kubernetes.kinds = {**kubernetes.kinds, **gateway_kinds}
    assert "Gateway mood-gateway has no address yet" in answers.ask(api, service(**upgrade)).words

    place = {"addresses": [{"value": f"127.0.0.1:{endpoint.server.server_port}"}]}
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "mood-gateway"}}
    kubernetes.write({**gateway, "status": place})
    assert answers.ask(api, service(**upgrade)).is_done


def test_the_way_is_closed_at_the_end_of_the_block(api: Api, kubectl: Any) -> None:
    kubectl(FORWARDS.format(port=1))
    with forwarded(api, "mood", 8000) as port:
        assert port == 1
        [process] = [one for one in psutil.Process().children() if "port-forward" in one.cmdline()]
    until(lambda: not process.is_running(), "the end of kubectl", 10)


def test_a_way_that_does_not_open_is_given_up(api: Api, kubectl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "SECONDS", 0.5)
    kubectl("time.sleep(60)")

    opening = forwarded(api, "mood", 8000)
    with (
        pytest.raises(KubernetesError, match=r"no way to its port 8000: kubectl did not open it within 0.5 s"),
        opening,
    ):
        pass
