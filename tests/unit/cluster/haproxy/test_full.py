"""Whom HAProxy refuses because a replica just did, with the real HAProxy and two servers."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from heliostat.cluster.folders import free_ports
from heliostat.cluster.haproxy import ingress, rules
from heliostat.cluster.haproxy.rules import FULL_HEADER
from heliostat.cluster.haproxy.wrapper import adapted
from tests.waiting import until

CONFIG = """\
defaults
    mode http
    timeout client 60s
    timeout connect 5s
    timeout server 60s
    balance leastconn
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend http-chat-1.0 if {{ path_beg /chat/ }}
    use_backend http-other if {{ path_beg /other/ }}
    default_backend default_backend
backend default_backend
    http-request return status 404
backend http-chat-1.0
    server one 127.0.0.1:{one}
    server two 127.0.0.1:{two}
backend http-other
    server one 127.0.0.1:{one}
"""
HOUR = 3_600_000
KEY, OTHER = {"authorization": "Bearer one"}, {"authorization": "Bearer another"}


class Replicas(ThreadingHTTPServer):
    """A server that has no place for the keys in `full`, and keeps the path of each request that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Replica)
        self.full: set[str] = set()
        self.asked: list[str] = []
        self.gate = threading.Event()


class Replica(BaseHTTPRequestHandler):
    """Answers 429 for keys that have no place, otherwise the status in the query, or a stream until its gate opens."""

    protocol_version = "HTTP/1.1"
    server: Replicas

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(self.path)
        _, _, status = self.path.partition("?")
        self.answer(429 if self.headers.get("authorization", "") in self.server.full else int(status or 200))

    def answer(self, status: int) -> None:
        self.send_response(status)
        if status == 429 and "quota" not in self.path:
            self.send_header(FULL_HEADER, "1")
        if "stream" not in self.path:
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"2\r\nhi\r\n")
        self.server.gate.wait(60)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class Edge(httpx.Client):
    """A client of an HAProxy in front of two servers, of which the application `other` has the first one only."""

    def __init__(self, port: int, servers: list[Replicas]) -> None:
        super().__init__(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self.servers = servers

    @property
    def asked(self) -> int:
        """How many requests came to servers."""
        return sum(len(one.asked) for one in self.servers)

    def fill(self, *keys: str) -> None:
        """From now on, only these keys have no place."""
        for one in self.servers:
            one.full = set(keys)

    def status(self, path: str = "/chat/x", headers: dict[str, str] = KEY, body: bytes = b"{}") -> tuple[int, bool]:
        """The status of an answer, and whether a server was asked."""
        before = self.asked
        answer = self.post(path, content=body, headers=headers)
        assert FULL_HEADER not in answer.headers
        return answer.status_code, self.asked > before


@contextmanager
def running(folder: Path) -> Iterator[Edge]:
    with ExitStack() as stack:
        servers = [stack.enter_context(Replicas()) for _ in range(2)]
        for one in servers:
            threading.Thread(target=one.serve_forever, daemon=True).start()
            stack.callback(one.shutdown)
        [port] = free_ports(1)
        known, config = folder / "refused.map", folder / "haproxy.cfg"
        known.touch()
        ours = adapted(CONFIG.format(port=port, one=servers[0].server_port, two=servers[1].server_port), {}, {}, known)
        config.write_text(ours)
        binary = ingress.haproxy_binary()
        assert binary
        process = stack.enter_context(subprocess.Popen([binary, "-db", "-f", str(config)]))
        stack.callback(process.kill)
        edge = stack.enter_context(Edge(port, servers))
        until(lambda: _answers(edge), "HAProxy listens", seconds=30)
        yield edge


def _answers(edge: Edge) -> bool:
    try:
        return edge.get("/chat/health").status_code == 200
    except httpx.ConnectError:
        return False


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    """Without an end of refusals by time."""
    monkeypatch.setattr(rules, "FULL_MILLISECONDS", HOUR)
    monkeypatch.setattr(rules, "PROBE_MILLISECONDS", HOUR)
    with running(tmp_path) as started:
        yield started


@pytest.mark.parametrize("headers", [KEY, {}])
def test_a_client_without_a_place_is_refused_at_the_ingress_and_others_are_not(
    edge: Edge, headers: dict[str, str]
) -> None:
    edge.fill(headers.get("authorization", ""))
    assert edge.status(headers=headers) == (429, True)
    assert [edge.status(headers=headers) for _ in range(5)] == [(429, False)] * 5
    assert edge.get("/chat/health", headers=headers).status_code == 200
    assert edge.status(headers=OTHER) == (200, True)


def test_a_client_that_was_refused_keeps_the_places_that_it_had(edge: Edge) -> None:
    """Streams hold theirs to their end."""
    with ExitStack() as stack:
        for _ in range(2):
            stream = stack.enter_context(edge.stream("POST", "/chat/stream", content=b"{}", headers=KEY))
            assert next(stream.iter_raw()) == b"hi"
        edge.fill(KEY["authorization"])
        assert edge.status() == (429, True)
        edge.fill()
        assert edge.status() == (429, False)
        for one in edge.servers:
            one.gate.set()
        until(lambda: edge.status() == (200, True), "a stream has ended", seconds=30)
        assert [edge.status() for _ in range(5)] == [(200, True)] * 5


@pytest.mark.parametrize("ends", ["FULL_MILLISECONDS", "PROBE_MILLISECONDS"])
def test_a_refusal_ends_with_its_time_or_with_the_next_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Whichever comes first, here after two seconds."""
    for name in ("FULL_MILLISECONDS", "PROBE_MILLISECONDS"):
        monkeypatch.setattr(rules, name, 2000 if name == ends else HOUR)
    with running(tmp_path) as edge:
        edge.fill(KEY["authorization"])
        assert edge.status() == (429, True)
        edge.fill()
        assert edge.status() == (429, False)
        until(lambda: edge.status() == (200, True), "it is let through", seconds=30)


def test_the_refusal_has_the_shape_of_the_openai_api_and_keeps_the_connection(edge: Edge) -> None:
    edge.fill(KEY["authorization"])
    edge.status()
    answer = edge.post("/chat/x", content=b"{}", headers=KEY)
    error = json.loads(answer.content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert (answer.headers["retry-after"], answer.headers["content-type"]) == ("1", "application/json")
    assert "connection" not in answer.headers


def test_a_quota_that_is_used_up_is_the_replicas_to_tell(edge: Edge) -> None:
    assert [edge.status("/chat/quota?429") for _ in range(3)] == [(429, True)] * 3


def test_applications_refuse_apart(edge: Edge) -> None:
    edge.fill(KEY["authorization"])
    assert edge.status() == (429, True)
    edge.fill()
    assert edge.status("/other/x") == (200, True)
    assert edge.status() == (429, False)


def test_a_page_of_another_origin_hears_it_from_the_replica(edge: Edge) -> None:
    """Whose answer has the headers that browsers want to see."""
    edge.fill(KEY["authorization"])
    edge.status()
    assert edge.status(headers={**KEY, "origin": "https://app.example.com"}) == (429, True)


def test_a_full_replica_of_a_conversation_says_nothing_about_the_others(edge: Edge) -> None:
    chat, body = "/chat/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    assert edge.status(chat, body=body) == (200, True)
    [stuck_to] = [one for one in edge.servers if one.asked]
    stuck_to.full = {KEY["authorization"]}
    assert [edge.status(chat, body=body) for _ in range(3)] == [(429, True)] * 3
    edge.fill(KEY["authorization"])
    new = json.dumps({"messages": [{"role": "user", "content": "a new one"}]}).encode()
    assert edge.status(chat, body=new) == (429, True)
    assert edge.status(chat, body=new) == (429, False)
