"""What is passed on to Prometheus, and what is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlencode

import pytest

from heliostat.cluster.loopback import RefusedError
from heliostat.cluster.monitor.page import proxy
from heliostat.cluster.monitor.page.proxy import Proxy, checked
from tests.ports import free_port

RANGE = "/api/v1/query_range"
WINDOW = {"query": "up", "start": "0", "end": "3600", "step": "15"}


class Fake(ThreadingHTTPServer):
    """In place of Prometheus: answers what it was asked, an error to `broken`, and `slow` when it is let."""

    def __init__(self) -> None:
        self.release, self.busy, self.most = threading.Event(), 0, 0
        super().__init__(("127.0.0.1", 0), Answers)


class Answers(BaseHTTPRequestHandler):
    server: Fake

    def do_GET(self) -> None:
        self.server.busy += 1
        self.server.most = max(self.server.most, self.server.busy)
        if "slow" in self.path:
            self.server.release.wait(20)
        self.server.busy -= 1
        body = json.dumps({"error": "1:1: parse error"} if "broken" in self.path else {"data": self.path}).encode()
        self.send_response(400 if "broken" in self.path else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def prometheus() -> Iterator[Fake]:
    with Fake() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.release.set()
        server.shutdown()


def proxy_of(server: Fake) -> Proxy:
    return Proxy(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/v1/query", {"query": 'up{job="ray"}', "time": "1700000000.5"}),
        (RANGE, WINDOW),
        ("/api/v1/label/model/values", {"match[]": 'up{job=~".*"}', "start": "0", "end": "60"}),
    ],
)
def test_queries_within_bounds_are_passed_on_as_they_are(
    prometheus: Fake, path: str, parameters: dict[str, str]
) -> None:
    answer = json.loads(proxy_of(prometheus).ask(path, urlencode(parameters)))
    assert answer == {"data": f"{path}?{urlencode(parameters)}"}


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/admin/tsdb/delete_series", "/api/v1/status/config", "/api/v1/targets", "/-/quit", "/-/reload",
        "/api/v1/query/../status/config", "/api/v1/label/a/b/values", "/api/v1/label/a%2Fb/values", "/metrics",
        "/api/v1/query_exemplars", "/api/v1/query_range/", "//evil.example/api/v1/query",
    ],
)  # fmt: skip
def test_no_other_path_is_asked(path: str) -> None:
    with pytest.raises(RefusedError, match="not a path that this page asks") as caught:
        checked(path, "query=up")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"timeout": "1h"}, "timeout: allowed are end, query, start, step"),
        ({"query": "x" * 8193}, "query: more than 8192 characters"),
        ({"end": "2700000"}, "end - start: from 0 to 2678400 seconds"),
        ({"end": "-1"}, "end - start: from 0"),
        ({"step": "0"}, "step: above 0"),
        ({"step": "-5"}, "step: above 0"),
        ({"step": "1"}, "at most 2000 points"),
        ({"start": "nan"}, "start: 'nan' is not a number"),
        ({"end": "inf"}, "end: 'inf' is not a number"),
        ({"step": "1h"}, "step: '1h' is not a number"),
        ({"start": ""}, "start: '' is not a number"),
    ],
)
def test_what_is_out_of_bounds_is_named(changed: dict[str, str], why: str) -> None:
    with pytest.raises(RefusedError, match=why.replace("(", "\\(")) as caught:
        checked(RANGE, urlencode({**WINDOW, **changed}))
    assert caught.value.status == 400


def test_a_range_without_its_step_or_with_two_is_refused() -> None:
    with pytest.raises(RefusedError, match="needs all of them"):
        checked(RANGE, "query=up&start=0&end=60")
    with pytest.raises(RefusedError, match="each at most once"):
        checked(RANGE, urlencode(WINDOW) + "&step=15")


def test_label_values_are_bounded_in_time_too() -> None:
    with pytest.raises(RefusedError, match="end - start"):
        checked("/api/v1/label/model/values", "start=0&end=2700000")


def test_an_error_of_prometheus_is_told_in_its_words(prometheus: Fake) -> None:
    with pytest.raises(RefusedError, match="1:1: parse error") as caught:
        proxy_of(prometheus).ask("/api/v1/query", "query=broken")
    assert caught.value.status == 502


def test_a_prometheus_that_is_down_is_named() -> None:
    with pytest.raises(RefusedError, match=r"Prometheus at http://127.0.0.1:.* does not answer: .*refused"):
        Proxy(f"http://127.0.0.1:{free_port()}").ask("/api/v1/query", "query=up")


def test_one_that_is_too_slow_is_told_of(prometheus: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "ANSWER_SECONDS", 0.2)
    with pytest.raises(RefusedError, match="does not answer: timed out"):
        proxy_of(prometheus).ask("/api/v1/query", "query=slow")


def test_an_answer_that_is_too_long_is_refused(prometheus: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MAX_ANSWER_BYTES", 10)
    with pytest.raises(RefusedError, match="narrow it down"):
        proxy_of(prometheus).ask("/api/v1/query", "query=up")


def test_only_so_many_queries_are_asked_at_the_same_time(prometheus: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "WAIT_SECONDS", 0.2)
    asked, refused = proxy_of(prometheus), []

    def ask() -> None:
        try:
            asked.ask("/api/v1/query", f"query={quote('slow')}")
        except RefusedError as error:
            refused.append(error.status)
            prometheus.release.set()  # the first that is refused lets the others end

    threads = [threading.Thread(target=ask) for _ in range(proxy.AT_ONCE + 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert prometheus.most <= proxy.AT_ONCE
    assert 503 in refused
    assert json.loads(asked.ask("/api/v1/query", "query=up")), "places are given back"
