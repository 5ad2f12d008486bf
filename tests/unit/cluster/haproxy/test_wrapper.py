"""Which replica a conversation goes to, with the real HAProxy and two servers."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from heliostat.cluster.folders import free_ports
from heliostat.cluster.haproxy import ingress
from heliostat.cluster.haproxy.wrapper import adapted
from tests.waiting import until

CONFIG = """\
defaults
    mode http
    timeout client 10s
    timeout connect 5s
    timeout server 10s
    balance leastconn
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend http-chat if {{ path_beg /chat }}
    default_backend default_backend
backend default_backend
    http-request return status 404
backend http-chat
    server one 127.0.0.1:{one}
    server two 127.0.0.1:{two}
"""
SYSTEM = {"role": "system", "content": "Answer in one word."}


class Server(BaseHTTPRequestHandler):
    """Says which server it is, once it may."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.gate.wait(10)  # type: ignore[attr-defined]
        port = str(self.server.server_port).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", str(len(port)))
        self.end_headers()
        self.wfile.write(port)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def server(gate: threading.Event) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        listening.gate = gate  # type: ignore[attr-defined]
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


@pytest.fixture
def gate() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def client(tmp_path: Path, gate: threading.Event) -> Iterator[httpx.Client]:
    with ExitStack() as stack:
        one, two = (stack.enter_context(server(gate)) for _ in range(2))
        port = free_ports(1)[0]
        config = tmp_path / "haproxy.cfg"
        known = config.with_name("refused.map")
        known.touch()
        config.write_text(adapted(CONFIG.format(port=port, one=one, two=two), {}, {}, known))
        binary = ingress.haproxy_binary()
        assert binary
        process = stack.enter_context(subprocess.Popen([binary, "-db", "-f", str(config)]))
        stack.callback(process.terminate)
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}/chat", timeout=30))
        until(lambda: _answers(http), "HAProxy listens", seconds=10)
        yield http


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/").status_code > 0
    except httpx.ConnectError:
        return False


def ask(http: httpx.Client, *messages: dict[str, str], **more: Any) -> str:
    return http.post("/v1/chat/completions", json={**more, "messages": messages}).text


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize("system", [[], [SYSTEM], [{**SYSTEM, "role": "developer"}]])
def test_a_conversation_stays_with_a_replica(client: httpx.Client, system: list[dict[str, str]]) -> None:
    replicas = []
    for number in range(8):
        first = ask(client, *system, *turns(f"question {number}"))
        second = ask(client, *system, *turns(f"question {number}", "yes", "why?"), temperature=0)
        third = ask(client, *system, *turns(f"question {number}", "yes", "why?", "so", "and?"), seed=number)
        assert first == second == third
        replicas.append(first)
    assert len(set(replicas)) == 2


def test_a_beginning_that_many_have_goes_to_all_replicas(client: httpx.Client, gate: threading.Event) -> None:
    ask(client, user("the same"))
    gate.clear()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, client, user("the same")) for _ in range(8)]
        threading.Timer(1, gate.set).start()
        replicas = [one.result() for one in asked]
    assert sorted(map(replicas.count, set(replicas))) == [4, 4]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"messages": 1}', b'{"messages": [{"role": "system"}]}', b"\xff\x00", b'{"messages": [[]]}'],
)
def test_what_is_no_conversation_is_passed_on(client: httpx.Client, body: bytes) -> None:
    answers = {client.post("/v1/chat/completions", content=body).status_code for _ in range(3)}
    assert answers == {200}


def test_content_in_parts_is_a_beginning_too(client: httpx.Client) -> None:
    def asked(number: int) -> str:
        parts = [{"type": "text", "text": f"question {number}"}]
        return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}]}).text

    replicas = [{asked(number) for _ in range(3)} for number in range(8)]
    assert all(len(one) == 1 for one in replicas)
    assert len(set.union(*replicas)) == 2
