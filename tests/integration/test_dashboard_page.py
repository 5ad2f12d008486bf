"""The page draws each kind of panel in Chromium, from a Prometheus that watches itself."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from heliostat.infra.dashboards.grafana import Dashboard, Panel, Query, Variable, to_json
from tests.browser import chromium, screenshot, text_of
from tests.page import colours, open_dashboard, page_server, panel, pixels, set_scheme, states
from tests.ports import free_port
from tests.prometheus import running
from tests.tools import need
from tests.waiting import until

HTML = "<img src=x onerror=\"document.title='run'\">"
HTTP = "prometheus_http_requests_total"
LABELLED = f"""label_replace(vector(7), "run", {json.dumps(HTML)}, "", "")"""
OURS = (
    Panel("lines", "Requests.", "reqps", (Query(f"rate({HTTP}[$__rate_interval])", "{{handler}} {{code}}"),)),
    Panel("stacked", "Requests.", "short", (Query(f"sum by (code) ({HTTP})", "{{code}}"),), is_stacked=True),
    Panel("stat", "Memory.", "bytes", (Query("process_resident_memory_bytes", "{{job}}"),), kind="stat"),
    Panel("nothing", "No series.", "short", (Query("no_such_metric", ""),)),
    Panel("other words", "No series.", "short", (Query("no_such_metric", ""),), no_value="nobody is here"),
    Panel("broken", "No PromQL.", "short", (Query("sum by (", ""),)),
    Panel("narrowed", "A variable.", "short", (Query(f'{HTTP}{{handler=~"$handler"}}', "{{handler}}"),)),
    Panel("stranger", "No variable.", "short", (Query("up{job=~'$nobody'}", ""),)),
    Panel("html", "A label.", "short", (Query(LABELLED, "{{run}}"),)),
    Panel("html stat", "A label.", "short", (Query(LABELLED, "{{run}}"), Query("vector(1)", "b")), kind="stat"),
    Panel("narrow stat", "Two.", "s", (Query("vector(0)", "a"), Query("vector(120)", "b")), width=4, kind="stat"),
)
DASHBOARD = Dashboard("kinds", "Kinds", "All.", (Variable("handler", HTTP),), (("Row", OURS),))
BUCKETS = "sum by (le) (increase(prometheus_http_request_duration_seconds_bucket[$__rate_interval]))"
OTHERS: list[dict[str, Any]] = [
    {"type": "table", "title": "table", "targets": [{"refId": "A", "expr": HTTP, "format": "table"}]},
    {"type": "table", "title": "html table", "targets": [{"refId": "A", "expr": LABELLED, "format": "table"}]},
    {"type": "heatmap", "title": "heat map", "targets": [{"refId": "A", "expr": BUCKETS, "format": "heatmap"}]},
    {"type": "bargauge", "title": "bars", "targets": [{"refId": "A", "expr": HTTP, "legendFormat": "{{handler}}"}]},
    {"type": "piechart", "title": "unknown kind", "targets": [{"refId": "A", "expr": HTTP}]},
    {
        "type": "stat",
        "title": "unknown unit",
        "fieldConfig": {"defaults": {"unit": "furlong"}},
        "transformations": [{"id": "reduce"}],
        "targets": [{"refId": "A", "expr": "vector(1)"}],
    },
    {
        "type": "stat",
        "title": "linked",
        "links": [{"title": "itself", "url": "/d/kinds?${__all_variables}"}],
        "fieldConfig": {"defaults": {"links": [{"title": "", "url": "/d/kinds?var-handler=${__field.labels.job}"}]}},
        "targets": [{"refId": "A", "expr": "up", "legendFormat": "{{job}}"}, {"refId": "B", "expr": "vector(1)"}],
    },
]
DRAWN = ("lines", "stacked", "stat", "narrowed", "html", "html stat", "table", "html table", "heat map", "bars")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes itself each second, with ten seconds of data or more."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    job = {"job_name": "itself", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    values = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(values))
    options = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with running([need("prometheus"), *options], port, "/-/ready", folder / "log") as url:
        until(lambda: scrapes(port) >= 10, "ten scrapes", 90)
        yield url


def scrapes(port: int) -> float:
    query = "query=max(count_over_time(up[5m]))"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=5) as answer:
            return max((float(one["value"][1]) for one in json.load(answer)["data"]["result"]), default=0.0)
    except OSError:
        return 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboards")
    values = to_json(DASHBOARD)
    more = [{"id": 100 + at, "gridPos": {"w": 8, "h": 8}, **one} for at, one in enumerate(OTHERS)]
    (folder / "kinds.json").write_text(json.dumps({**values, "panels": [*values["panels"], *more]}))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(prometheus: str, folder: Path) -> Iterator[str]:
    with page_server(prometheus, folder) as url:
        yield f"{url}/d/kinds?from=now-1m&to=now&refresh="


@pytest.fixture
def opened(browser: Chrome, page: str) -> Chrome:
    set_scheme(browser, "light")
    open_dashboard(browser, page)
    return browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_kind_of_panel_is_drawn_in_light_and_dark(opened: Chrome, scheme: str) -> None:
    ground = pixels(panel(opened, "lines")).getpixel((40, 4))
    set_scheme(opened, scheme)
    until(lambda: (pixels(panel(opened, "lines")).getpixel((40, 4)) == ground) == (scheme == "light"), "colours", 10)
    empty = colours(pixels(panel(opened, "nothing").find_element(By.CSS_SELECTOR, ".body")))
    for title in DRAWN:
        body = pixels(panel(opened, title).find_element(By.CSS_SELECTOR, ".body"))
        assert colours(body) > empty + 200, title
    screenshot(opened, f"panels-{scheme}")


def test_each_panel_says_what_became_of_it(opened: Chrome) -> None:
    found = {title: (state, says) for title, state, says, _ in states(opened)}
    assert {title for title in DRAWN if found[title][0] != "drawn"} == set()
    assert found["nothing"] == ("empty", "No data")
    assert found["other words"] == ("empty", "nobody is here")
    assert found["stranger"] == ("error", "variable $nobody is not known")
    assert found["unknown kind"] == ("error", "This page does not know panels of type piechart")
    assert found["broken"][0] == "error"
    assert "parse error" in found["broken"][1]


def test_all_numbers_of_a_panel_are_in_sight(opened: Chrome) -> None:
    list_of = panel(opened, "narrow stat").find_element(By.CSS_SELECTOR, ".stats")
    assert text_of(opened, f'section[aria-labelledby="{panel_id("narrow stat")}"] .figure').splitlines() == [
        "0 s",
        "2 min",
    ]
    assert opened.execute_script("return arguments[0].scrollHeight <= arguments[0].clientHeight", list_of)


def test_what_the_page_does_not_know_of_a_panel_is_named_in_it(opened: Chrome) -> None:
    unknown = {title: text for title, _, _, text in states(opened) if text}
    assert unknown == {"unknown unit": "This page does not know: unit furlong, transformation reduce"}


def test_html_in_a_label_stays_text(opened: Chrome) -> None:
    for title in ("html", "html stat", "html table"):
        assert HTML in panel(opened, title).text
    assert opened.find_elements(By.TAG_NAME, "img") == []
    assert opened.title == "Kinds"


def test_a_value_that_is_chosen_narrows_the_panels_and_is_in_the_address(opened: Chrome) -> None:
    before = len(panel(opened, "narrowed").find_elements(By.CSS_SELECTOR, "tbody tr"))
    menu = opened.find_element(By.CSS_SELECTOR, '.menu[data-variable="handler"]')
    menu.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    until(lambda: len(menu.find_elements(By.TAG_NAME, "input")) > 2, "values", 20)
    for value in ("/metrics", "/api/v1/query"):
        menu.find_element(By.CSS_SELECTOR, f'input[value="{value}"]').send_keys(Keys.SPACE)
    assert menu.find_element(By.TAG_NAME, "summary").text == "Handler: /metrics + /api/v1/query"
    until(lambda: rows(opened, "narrowed") == {"/metrics", "/api/v1/query"}, "two handlers", 20)
    assert before > 2
    assert "var-handler=%2Fmetrics&var-handler=%2Fapi%2Fv1%2Fquery" in opened.current_url
    open_dashboard(opened, opened.current_url)
    assert rows(opened, "narrowed") == {"/metrics", "/api/v1/query"}


def rows(browser: Chrome, title: str) -> set[str]:
    """First column of the panel's legend, read in one step: it may be drawn anew between two."""
    script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText.trim())"
    return set(browser.execute_script(script, f'section[aria-labelledby="{panel_id(title)}"] tbody td:first-child'))


def panel_id(title: str) -> str:
    return next(f"panel-{at + 2}" for at, one in enumerate(OURS) if one.title == title)


def test_links_of_panels_and_of_series_have_variables_and_labels(opened: Chrome, page: str) -> None:
    found = panel(opened, "linked").find_elements(By.TAG_NAME, "a")
    root = page.partition("/d/")[0]
    assert [one.get_attribute("href") for one in found] == [
        f"{root}/d/kinds?var-handler=All",
        f"{root}/d/kinds?var-handler=itself",
        f"{root}/d/kinds?var-handler=",
    ]


def test_the_browser_has_nothing_to_complain_of_and_asks_nobody_else(opened: Chrome, page: str) -> None:
    names = opened.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert names
    assert [one for one in names if not one.startswith(page.partition("/d/")[0])] == []
    said = [one["message"] for one in opened.get_log("browser")]  # type: ignore[no-untyped-call]
    assert [one for one in said if "502 (Bad Gateway)" not in one] == [], "but for the query that is refused"


def test_a_narrow_screen_shows_a_panel_beside_none_and_needs_no_scrolling_sideways(opened: Chrome) -> None:
    opened.set_window_size(500, 900)
    lefts = opened.execute_script("return [...document.querySelectorAll('.panel')].map(one => one.offsetLeft)")
    assert len(set(lefts)) == 1
    assert opened.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_prometheus_that_is_down_is_named_in_each_panel(browser: Chrome, folder: Path) -> None:
    with page_server(f"http://127.0.0.1:{free_port()}", folder) as url:
        open_dashboard(browser, f"{url}/d/kinds?refresh=")
        found = {title: says for title, _, says, _ in states(browser)}
    assert "does not answer: [Errno 111] Connection refused" in found["lines"]
    assert "does not answer: [Errno 111] Connection refused" in found["table"]


def test_a_dashboard_that_is_not_there_is_named_with_those_that_are(browser: Chrome, page: str) -> None:
    browser.get(page.replace("/d/kinds", "/d/kind"))
    until(lambda: "There is no dashboard kind. There are: kinds" in text_of(browser, "#rows"), "the message", 20)
