"""What the page's server answers, and to whom."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.cluster.monitor.page.server import Server, static_files
from heliostat.infra.dashboards import build
from tests.page import page_server
from tests.ports import free_port


@pytest.fixture
def page(tmp_path: Path) -> Iterator[int]:
    """The port of a page with our dashboards, in front of no Prometheus."""
    for name, content in build.files().items():
        (tmp_path / name).write_text(content)
    with page_server(f"http://127.0.0.1:{free_port()}", tmp_path) as url:
        yield int(url.rpartition(":")[2])


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer, answer.read()


@pytest.mark.parametrize("path", ["/", "/d/heliostat", "/d/heliostat-training/any-words?var-run=a&from=now-1h"])
def test_the_page_is_at_the_addresses_that_grafana_gives_dashboards(page: int, path: str) -> None:
    answer, body = ask(page, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'<html lang="en">' in body


@pytest.mark.parametrize("uid", [one.uid for one in build.DASHBOARDS])
def test_it_gives_the_dashboards_that_grafana_reads(page: int, uid: str) -> None:
    listed = json.loads(ask(page, "/dashboards.json")[1])
    assert uid in [one["uid"] for one in listed["dashboards"]]
    assert json.loads(ask(page, f"/dashboards/{uid}.json")[1]) == json.loads(build.files()[f"{uid}.json"])


def test_the_overview_comes_first(page: int) -> None:
    assert json.loads(ask(page, "/dashboards.json")[1])["dashboards"][0]["uid"] == "heliostat"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1]:{port}"]
)
def test_a_request_under_another_name_is_refused(page: int, host: str) -> None:
    for path in ("/", "/dashboards.json", "/api/v1/query?query=up"):
        answer, body = ask(page, path, Host=host.format(port=page))
        assert answer.status == 421
        assert json.loads(body)["error"] == "this page answers on the loopback only"


def test_localhost_is_the_loopback(page: int) -> None:
    assert ask(page, "/", Host=f"localhost:{page}")[0].status == 200


def test_it_listens_on_the_loopback_only(tmp_path: Path) -> None:
    with Server(0, "http://127.0.0.1:1", tmp_path, 5) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"
        assert server.socket.family == socket.AF_INET


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_only_get_is_answered(page: int, method: str) -> None:
    assert ask(page, "/api/v1/query?query=up", method)[0].status == 501


@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/static/main.js", "/%2e%2e/server.py", "/uplot/LICENSE", "/d/", "/dashboards/..%2fx.json"],
)
def test_nothing_but_the_files_of_the_page_is_given(page: int, path: str) -> None:
    assert ask(page, path)[0].status == 404


def test_another_site_may_not_query(page: int) -> None:
    path = "/api/v1/query?query=up"
    assert ask(page, path, Sec_Fetch_Site="cross-site")[0].status == 403
    assert ask(page, path, Sec_Fetch_Site="same-site")[0].status == 403
    answer, body = ask(page, path, Sec_Fetch_Site="same-origin")
    assert answer.status == 502
    assert "does not answer" in json.loads(body)["error"]


@pytest.mark.parametrize("path", ["/", "/main.js", "/dashboards.json", "/nothing", "/api/v1/query?query=up"])
def test_each_answer_has_a_strict_policy(page: int, path: str) -> None:
    headers = ask(page, path)[0].headers
    policy = dict(one.split(" ", 1) for one in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_no_script_or_style_of_its_own_and_nothing_from_elsewhere() -> None:
    found = {path: one.body.decode() for path, one in static_files().items()}
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", found["/"])
    sources = r"""(?:src|href)="([^"]+)"|\b(?:from|import) "([^"]+)"|(?:url\(|@import)([^;]+)"""
    named = {"".join(found) for text in found.values() for found in re.findall(sources, text)}
    assert {"./api.js", "/main.js", "/uplot/uPlot.iife.min.js"} <= named
    assert [name for name in named if not name.startswith(("/", "./"))] == []
    assert not [path for path, text in found.items() if "innerHTML" in text or "insertAdjacentHTML" in text]


def test_what_modules_import_is_there() -> None:
    found = static_files()
    for path, one in found.items():
        for name in re.findall(r'from "\./([\w.]+)"', one.body.decode()):
            assert f"/{name}" in found, (path, name)
