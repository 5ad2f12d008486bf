"""What one client can do to the others at the address, with the real HAProxy, Ray's configuration, fake replicas."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from ray.serve._private.haproxy_metrics import HAProxyMetricsCollector

from heliostat.cluster.haproxy.deadlines import Deadlines
from heliostat.cluster.haproxy.settings import HEADER_SECONDS_VARIABLE, REPLAYED_BYTES, SOURCE_VARIABLE
from tests.edge import Edge, FakeReplica, edge
from tests.waiting import until

SHORT = {HEADER_SECONDS_VARIABLE: "1", SOURCE_VARIABLE: "20"}
"""Limits that a test reaches."""
CRASH = "crash:please"


def error(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error; AssertionError where it is not in the shape of the OpenAI API."""
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    return response.status_code, found["code"]


@contextmanager
def half_headers(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections from one address that have each begun a request."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            connections.append(one)
            with suppress(ConnectionError):  # closed already
                one.connect(("127.0.0.1", port))
                one.sendall(b"POST /app/v1/predict HTTP/1.1\r\nHost: ")
        yield connections


def has_ended(connection: socket.socket) -> bool:
    """Whether the server has said something, or nothing, and closed."""
    try:
        return connection.recv(4096, socket.MSG_DONTWAIT) is not None
    except BlockingIOError:
        return False
    except OSError:  # reset, or never connected
        return True


def test_clients_that_never_finish_their_headers_leave_room_for_others() -> None:
    with (
        edge(environment={**SHORT, HEADER_SECONDS_VARIABLE: "60"}, max_connections=40) as running,
        half_headers(running.port, 60) as held,
        httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as other,
    ):
        until(lambda: sum(map(has_ended, held)) >= 40, "those above the limit of a source are closed", 30)
        assert not all(map(has_ended, held)), "the others wait for their deadline"
        assert other.post(f"{running.url}/v1/predict", content="hello").status_code == 200


def test_headers_have_a_deadline_and_slow_answers_have_not() -> None:
    with edge(environment=SHORT) as running, half_headers(running.port, 5) as held, running.client() as client:
        silent = socket.create_connection(("127.0.0.1", running.port))
        until(lambda: all(map(has_ended, [*held, silent])), "all are closed", 30)
        for _ in range(2):
            assert client.post("/x", content="wait:3").status_code == 200, "longer than a header may take"


def test_a_body_has_the_time_that_the_spec_of_its_endpoint_says() -> None:
    with edge(deadlines=Deadlines(60, 2)) as running:
        head = "POST /app/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
        late, in_time = (socket.create_connection(("127.0.0.1", running.port)) for _ in range(2))
        for one in (late, in_time):
            one.sendall(head.encode() + b"half")
        time.sleep(1)
        in_time.sendall(b"there")
        assert in_time.recv(1 << 16).startswith(b"HTTP/1.1 200")
        late.settimeout(30)
        assert late.recv(1 << 16).startswith(b"HTTP/1.1 408")
        assert running.bodies == ["halfthere"]


def test_a_request_that_ends_its_replicas_takes_two_and_is_then_refused() -> None:
    with edge(4) as running, running.client() as client:
        assert error(client.post("/x", content=CRASH)) == (502, "replica_lost")
        assert running.bodies == [CRASH] * 2
        until(lambda: sum(one.process.poll() is not None for one in running.replicas) == 2, "both have ended", 30)
        running.reload()
        assert error(client.post("/x", content=CRASH)) == (400, "request_lost"), "on a connection of the HAProxy before"
        with running.client() as other:
            for _ in range(3):
                assert error(other.post("/x", content=CRASH)) == (400, "request_lost")
            assert running.bodies == [CRASH] * 2
            assert other.post("/x", content="hello").status_code == 200
            assert error(other.post("/y", content=CRASH)) == (502, "replica_lost"), "another route is another request"


def test_a_request_too_long_to_be_kept_is_sent_once_and_refused_after_two_losses() -> None:
    long = CRASH + "x" * 2 * REPLAYED_BYTES
    with edge(4) as running, running.client() as client:
        found = [error(client.post("/x", content=long)) for _ in range(3)]
        assert found == [(502, "replica_lost"), (502, "replica_lost"), (400, "request_lost")]
        assert len(running.bodies) == 2


def busy(running: Edge, before: dict[int, int]) -> list[FakeReplica]:
    """The replicas that live and have more requests than before."""
    alive = [one for one in running.replicas if one.process.poll() is None]
    return [one for one in alive if len(one.requests) > before[one.port]]


def test_a_request_that_was_answered_before_is_not_refused_when_it_is_lost() -> None:
    with edge(3) as running, running.client() as client, ThreadPoolExecutor() as threads:
        assert client.post("/x", content="wait:2").status_code == 200
        before = {one.port: len(one.requests) for one in running.replicas}
        asked = threads.submit(client.post, "/x", content="wait:2")
        for _ in range(2):  # the replica that has it, and then the one that it is sent to
            until(lambda: busy(running, before), "a replica has it", 30)
            process = busy(running, before)[0].process
            process.kill()
            process.wait()
        assert error(asked.result()) == (502, "replica_lost")
        running.reload()
        assert client.post("/x", content="wait:2").status_code == 200


def test_a_request_whose_replica_is_killed_is_answered_by_another_one() -> None:
    with edge(2) as running, running.client() as client, ThreadPoolExecutor() as threads:
        asked = threads.submit(client.post, "/x", content="wait:2")
        until(lambda: running.bodies, "a replica has it", 30)
        [asked_first] = [one for one in running.replicas if one.requests]
        asked_first.process.kill()
        assert asked.result().status_code == 200
        assert running.bodies == ["wait:2"] * 2


def test_without_a_replica_left_rays_own_proxy_has_it_and_knows_that_one_had_it_before() -> None:
    with edge(1, has_fallback=True) as running, running.client() as client, ThreadPoolExecutor() as threads:
        asked = threads.submit(client.post, "/x", content="wait:2")
        until(lambda: running.bodies, "the replica has it", 30)
        running.replicas[0].process.kill()
        answer = asked.result().json()
        assert (answer["port"], answer["headers"]["x-heliostat-replica-up"]) == (running.fallback.port, "1")  # type: ignore[union-attr]
        spoofed = {"x-heliostat-replica-up": "1"}
        until(lambda: not up(running), "HAProxy knows that there is none", 30)
        assert "x-heliostat-replica-up" not in client.post("/x", content="hi", headers=spoofed).json()["headers"]


def up(running: Edge) -> bool:
    """Whether HAProxy asks the first replica."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(running.folder / "admin.sock"))
        admin.sendall(b"show stat\n")
        said = b"".join(iter(lambda: admin.recv(4096), b"")).decode()
    [line] = [line for line in said.splitlines() if line.startswith(f"http-app,replica-{running.replicas[0].port},")]
    return line.split(",")[17] == "UP"


def test_requests_of_a_stopped_replica_end_as_its_spec_says() -> None:
    with edge(2, deadlines=Deadlines(1, 30)) as running, ThreadPoolExecutor() as threads:
        running.replicas[0].process.send_signal(signal.SIGSTOP)
        with httpx.Client(base_url=running.url, timeout=30) as client:
            asked = [threads.submit(client.post, "/x", content=f"hello {number}") for number in range(8)]
            answers = [one.result() for one in asked]
    assert {one.status_code for one in answers} == {200, 504}
    assert {error(one)[1] for one in answers if one.status_code != 200} == {"timeout"}


def test_a_stream_goes_on_while_haproxy_is_replaced() -> None:
    with (
        edge(1) as running,
        running.client() as client,
        client.stream("POST", "/x", content="stream:3") as response,
    ):
        lines = response.iter_lines()
        assert next(lines) == "data: 0"
        running.reload()
        assert [line for line in lines if line][-1] == "data: 29"


def test_pages_about_haproxy_are_closed_to_other_machines() -> None:
    """Without the ports in the environment, as in the images."""
    with edge(1) as running:
        for port in (running.metrics_port, running.stats_port):
            socket.create_connection(("127.0.0.1", port)).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port))


def test_what_is_not_offered_is_answered_properly() -> None:
    websocket = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    with edge(1) as running, running.client() as client:
        assert error(httpx.get(f"http://127.0.0.1:{running.port}/-/routes")) == (404, "not_found")
        assert error(httpx.get(f"http://127.0.0.1:{running.port}/elsewhere")) == (404, "not_found")
        assert error(client.get("/v1/chat/completions", headers=websocket)) == (400, "websocket")
        assert error(client.post("/x", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})) == (415, "encoding")
        assert client.post("/x", content=b"hi", headers={"content-encoding": "identity"}).status_code == 200
        head = client.head("/health")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 0


def test_methods_that_clients_invent_are_refused_and_counted_nowhere() -> None:
    with edge(1) as running, running.client() as client, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as counted:
        counted.bind(str(running.folder / "metrics.sock"))
        counted.settimeout(30)
        for number in range(10):
            assert error(client.request(f"INVENTED{number}", "/x")) == (405, "method_not_allowed")
        assert client.get("/x").status_code == 200
        found = HAProxyMetricsCollector.parse_line(counted.recv(8192))
        assert found is not None, "Ray reads the line"
        assert (found.app, found.method, found.status_code) == ("app", "GET", "200"), "the first that is counted"


def test_an_id_is_kept_or_made_for_each_request_and_returned_with_what_is_refused() -> None:
    with edge() as running, running.client() as client:
        for given in ("abc-1", "x" * 128):
            assert client.get("/x", headers={"x-request-id": given}).headers["x-request-id"] == given
        for sent in ([], ["x" * 129], ["a b"], ["a\xe9"], [""], ["abc", "def"], ["a,b c"]):
            headers = [(b"x-request-id", one.encode("latin-1")) for one in sent]
            made = client.get("/x", headers=headers).headers.get_list("x-request-id")
            assert len(made) == 1
            assert made[0] not in sent
            assert re.fullmatch("[0-9a-f-]{36}", made[0])
        for path, status in (("/-/routes", 404), ("/nothing", 404)):
            refused = client.get(f"http://127.0.0.1:{running.port}{path}", headers={"x-request-id": "abc"})
            assert (refused.status_code, refused.headers["x-request-id"]) == (status, "abc")
        asked = client.post("/x", content="headers", headers={"x-request-id": "abc"})
        assert asked.json()["headers"]["x-request-id"] == "abc"
