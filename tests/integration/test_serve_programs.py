"""Models of our own making on a real Ray, through HAProxy, asked by clients and by a person on their pages."""

from __future__ import annotations

import base64
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.session import session
from heliostat.infra.drift.reference import Reference, category_bins, number_bins, write_reference
from heliostat.infra.drift.statistics import TableStatistics
from heliostat.infra.errors import ModelError
from heliostat.infra.images import decode, png
from heliostat.pipeline.example_call import example_call
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.deploy.launch import Endpoint, deploy
from heliostat.serve.drift.window import DriftLedger
from heliostat.serve.ledger import ledger_name
from heliostat.serve.models.bundles import describe
from tests.browser import chromium, give, screenshot, text_of, visit
from tests.integration.observed import named_actors, samples
from tests.integration.tiny_models import app_args, publish_described
from tests.ports import free_port
from tests.tiny_programs import IMAGE, LABELS, ROW, TABLE, WRITERS, description
from tests.tools import need
from tests.waiting import until

KEY = generate_key()
PORT = free_port()
NAMES = {"table": "pets", "image": "photos", "noise": "dreams"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve") / "storage"


def published(storage: Path, kind: str, place: str, **more: Any) -> tuple[str, str]:
    return publish_described(
        storage,
        f"{place}/r1",
        with_reference if kind == "table" else WRITERS[kind],
        lambda probe: description(kind, probe, name=place, **more),
    )


@pytest.fixture(scope="module")
def endpoints(storage: Path) -> Iterator[dict[str, Endpoint]]:
    """One of each kind, in small replicas."""
    settings = {"port": PORT, "cpus_per_replica": 0.3, "max_body_bytes": 20_000, "timeout_seconds": 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, KEY)
        with session(ClusterConfig(num_cpus=2), cpus=1):
            yield {
                kind: deploy(app_args(name, published(storage, kind, name), storage, "3", settings))
                for kind, name in NAMES.items()
            }


def with_reference(folder: Path) -> dict[str, Any]:
    """A table's program, trained on as many black ones as white ones; returns its probe."""
    statistics = TableStatistics(TABLE)
    rows = [TABLE.features({**ROW, "age": 20 + at % 40, "colour": ("black", "white")[at % 2]}) for at in range(2000)]
    bins = [
        category_bins(name, values) if name in statistics.categories else number_bins(name, values)
        for name, values in statistics.values(rows).items()
    ]
    write_reference(folder.parent, Reference(columns=tuple(bins)))
    return WRITERS["table"](folder)


def ask(endpoint: Endpoint, body: Any = None, **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}", **options.pop("headers", {})}
    return httpx.post(f"{endpoint.url}/v1/predict", json=body, headers=headers, timeout=30, **options)


def test_a_row_gets_its_label_with_the_version_that_answered(endpoints: dict[str, Endpoint]) -> None:
    response = ask(endpoints["table"], {"rows": [ROW, {**ROW, "colour": None}]})
    body = response.json()
    assert (response.status_code, body["model"], body["version"]) == (200, "pets", "3")
    assert [set(one["scores"]) for one in body["predictions"]] == [set(LABELS)] * 2
    assert response.headers["x-model-version"] == "pets@3"
    refused = ask(endpoints["table"], {"row": {**ROW, "size": "huge"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "row.size")


def test_drift_of_what_is_asked_is_exported(endpoints: dict[str, Endpoint]) -> None:
    rows = [{**ROW, "age": 20 + at % 40, "colour": ("black", "white")[at % 10 > 0]} for at in range(100)]
    for _ in range(8):
        assert ask(endpoints["table"], {"rows": rows}).status_code == 200

    def detected(column: str) -> float:
        return samples("heliostat_drift_detected", model="pets", version="3", column=column)

    until(lambda: detected("colour") == 1, "the words have drifted", seconds=120)
    assert detected("age") == 0
    assert samples("heliostat_drift_psi", model="pets", column="colour") > 0.2
    assert samples("heliostat_drift_columns", model="pets", verdict="stable") == 3
    assert ledger_name(DriftLedger, "pets") in named_actors()


def test_an_image_is_the_same_in_json_and_in_a_form(endpoints: dict[str, Endpoint], storage: Path) -> None:
    probe = describe(f"{storage}/models/photos/r1", None).probe
    image = base64.b64decode(probe["input"]["image"])
    in_json = ask(endpoints["image"], {"images": [probe["input"]["image"]] * 2}).json()["predictions"]
    in_form = ask(endpoints["image"], files=[("image", image)] * 2).json()["predictions"]
    assert in_json == in_form
    assert in_json[0]["label"] == probe["output"]["label"]
    assert in_json[0]["scores"] == pytest.approx(probe["output"]["scores"], abs=1e-4)
    assert ask(endpoints["image"], files={"image": b"x" * 20_000}).status_code == 413


def test_what_the_command_prints_can_be_run(endpoints: dict[str, Endpoint], storage: Path, tmp_path: Path) -> None:
    need("curl")
    image = describe(f"{storage}/models/photos/r1", None).probe["input"]["image"]
    (tmp_path / "image.png").write_bytes(base64.b64decode(image))
    for kind, name in NAMES.items():
        model = describe(f"{storage}/models/{name}/r1", None)
        call = example_call(endpoints[kind].url, name, model, needs_key=True)
        done = subprocess.run(
            ["bash", "-c", f"{call} --silent --fail-with-body"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, (shlex.split(call), done.stdout)
    assert decode((tmp_path / "images.png").read_bytes(), "own", "x").shape == (16, 12, 3)


def test_a_model_that_answers_otherwise_than_it_was_trained_is_not_served(
    endpoints: dict[str, Endpoint], storage: Path
) -> None:
    def describe_wrongly(probe: dict[str, Any]) -> Any:
        wrong = {"label": LABELS[0], "scores": {LABELS[0]: 1.0, LABELS[1]: 0.0}}
        return description("table", {**probe, "output": wrong}, name="wrong")

    place = publish_described(storage, "wrong/r1", WRITERS["table"], describe_wrongly)
    with pytest.raises(ModelError, match="the loaded model answers its probe with"):
        deploy(app_args("wrong", place, storage, "1", {"port": PORT, "cpus_per_replica": 0.1}))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as opened:
        yield opened


def opened(browser: Chrome, endpoint: Endpoint) -> None:
    """The page of an endpoint, with the key."""
    visit(browser, endpoint.url)
    give(browser, "key", KEY + "\n")


def no_complaints(browser: Chrome) -> bool:
    logged = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return not [line for line in logged if "Content Security Policy" in line["message"]]


def test_a_person_fills_in_a_row(browser: Chrome, endpoints: dict[str, Endpoint]) -> None:
    opened(browser, endpoints["table"])
    until(lambda: "weight in kg" in text_of(browser, "#fields"), "the page shows the columns", seconds=20)
    age = browser.find_element(By.CSS_SELECTOR, "#fields [name=age]")
    assert age.get_attribute("value") == "40.5"
    age.clear()
    browser.find_element(By.ID, "send").click()
    until(lambda: "row.age: missing" in text_of(browser, "#error"), "the page says what is missing", seconds=20)
    age.send_keys("38")
    described = loaded(browser, "/openapi.json")
    give(browser, "key", KEY + "\n")
    until(lambda: loaded(browser, "/openapi.json") >= described + 2, "without a key, then with it", seconds=20)
    browser.find_element(By.ID, "send").click()
    until(lambda: text_of(browser, "#scores"), "the page shows scores", seconds=20)
    assert all(label in text_of(browser, "#scores") for label in LABELS)
    assert not text_of(browser, "#error")
    browser.find_element(By.TAG_NAME, "summary").click()
    assert '"age":38,' in text_of(browser, "#curl")
    browser.find_element(By.ID, "why").click()
    until(lambda: "Why " in text_of(browser, "#reason"), "the page says why", seconds=20)
    assert "weight in kg" in text_of(browser, "#reasons")
    screenshot(browser, "table")
    assert no_complaints(browser)


def test_a_person_chooses_an_image(browser: Chrome, endpoints: dict[str, Endpoint], tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(png(np.arange(36, dtype=np.uint8).reshape(IMAGE.shape) * 7))
    opened(browser, endpoints["image"])
    browser.find_element(By.ID, "send").click()
    until(lambda: "no image is chosen" in text_of(browser, "#error"), "the page wants an image", seconds=20)
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "cat.png"))
    until(lambda: shown(browser) == [(3, 4)], "the page shows the image", seconds=20)
    browser.find_element(By.ID, "send").click()
    until(lambda: text_of(browser, "#scores"), "the page shows scores", seconds=20)
    browser.find_element(By.TAG_NAME, "summary").click()
    assert "-F 'image=@cat.png'" in text_of(browser, "#curl")
    browser.find_element(By.ID, "why").click()
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "#reasons img"), "the page shows the heat map", seconds=20)
    screenshot(browser, "image")
    assert no_complaints(browser)


def test_a_person_has_images_made(browser: Chrome, endpoints: dict[str, Endpoint]) -> None:
    opened(browser, endpoints["noise"])
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "#fields [name=label]"), "the page has its fields", seconds=20)
    Select(browser.find_element(By.CSS_SELECTOR, "#fields [name=label]")).select_by_visible_text("dog")
    count = browser.find_element(By.CSS_SELECTOR, "#fields [name=count]")
    count.clear()
    count.send_keys("5")
    browser.find_element(By.ID, "send").click()
    until(lambda: shown(browser) == [(3, 4)] * 5, "the page shows the images", seconds=20)
    assert "seed 0" in text_of(browser, "#figures")
    browser.find_element(By.TAG_NAME, "summary").click()
    assert '"label":"dog"' in text_of(browser, "#curl")
    screenshot(browser, "images")
    assert no_complaints(browser)


def loaded(browser: Chrome, name: str) -> int:
    """How often the page has had an answer for an address that ends in `name`."""
    script = "return performance.getEntriesByType('resource').filter(one => one.name.endsWith(arguments[0])).length"
    return int(browser.execute_script(script, name))  # type: ignore[no-untyped-call]


def shown(browser: Chrome) -> list[tuple[int, int]]:
    """Width and height of each picture on the page."""
    script = "return [...document.querySelectorAll('#pictures img')].map(one => [one.naturalWidth, one.naturalHeight])"
    return [(width, height) for width, height in browser.execute_script(script)]  # type: ignore[no-untyped-call]
