"""What becomes of an endpoint: a canary that takes over, one that is taken away, replicas that go and come again."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.resources import lacking_resources
from heliostat.cluster.session.session import session
from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.infra.storage.config import StorageConfig
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.args import AppArgs
from heliostat.serve.deploy import experiment_ending
from heliostat.serve.deploy.experiment_ending import experiment_status, last_experiment_status
from heliostat.serve.deploy.experiment_launch import promote, start
from heliostat.serve.deploy.launch import Endpoint, deploy, status, undeploy
from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE, find_coordinator
from tests.integration.tiny_models import app_args, classifier, publish
from tests.ports import free_port
from tests.waiting import until

KEY = generate_key()
PORT = free_port()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lifecycle") / "storage"


@pytest.fixture(scope="module")
def arguments(storage: Path) -> dict[str, AppArgs]:
    """Version -> how it is served; version 6 has no time to answer."""
    found = {}
    for version in ("4", "5", "6"):
        published = publish(storage, "sentiment", "text-classification", classifier, run=f"r{version}")
        settings: dict[str, Any] = {"port": PORT, "cpus_per_replica": 0.25, "replicas": {"min": 1, "max": 1}}
        settings["timeout_seconds"] = 0.00001 if version == "6" else 20
        found[version] = app_args("sentiment", published, storage, version, settings)
    return found


@pytest.fixture(scope="module")
def endpoint(arguments: dict[str, AppArgs]) -> Iterator[Endpoint]:
    os.environ[ENVIRONMENT] = KEY
    with session(ClusterConfig(num_cpus=4), cpus=1):
        yield deploy(arguments["4"])
        undeploy("sentiment")
    os.environ.pop(ENVIRONMENT)


@contextmanager
def asking(url: str) -> Iterator[Counter[str]]:
    """Asks all the time while the block runs: version that answered, or what went wrong -> how often."""
    ended, found = threading.Event(), Counter[str]()

    def ask() -> None:
        with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=30) as http:
            while not ended.is_set():
                try:
                    response = http.post(f"{url}/v1/predict", json={"text": "a joy"})
                    good = response.status_code == 200
                    found[response.headers["x-model-version"] if good else response.text[:200]] += 1
                except httpx.HTTPError as error:
                    found[repr(error)] += 1
                ended.wait(0.1)  # replicas that start need the cores too

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def endpoints() -> dict[str, str | None]:
    return {one.name: one.version for one in status()}


def test_a_candidate_gets_its_share_and_takes_over(endpoint: Endpoint, arguments: dict[str, AppArgs]) -> None:
    with asking(endpoint.url) as found:
        experiment = start(arguments["5"], 0.4)
        assert endpoints() == {"sentiment": "4", "sentiment.candidate": "5"}
        until(lambda: found["sentiment@5"] >= 50, "the candidate has answered", seconds=180)
        with pytest.raises(ConfigError, match="an experiment runs"):
            start(arguments["6"], 0.4)
        feedback = {"version": "sentiment@5", "value": 1}
        headers = {"authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{endpoint.url}/v1/feedback", json=feedback, headers=headers).status_code == 204
        until(lambda: seen().arms[CANDIDATE].feedback.n == 1, "feedback has arrived", seconds=20)
        arms = seen().arms
        asked = {which: arms[which].requests for which in (BASELINE, CANDIDATE)}
        assert asked[CANDIDATE] / sum(asked.values()) == pytest.approx(experiment.share, abs=0.15)
        assert arms[BASELINE].errors == arms[CANDIDATE].errors == 0
        with pytest.raises(ResourceError, match="are up in time"):
            deploy(arguments["4"].model_copy(update={"version": "7"}), deadline_seconds=0)
        assert endpoints() == {"sentiment": "4", "sentiment.candidate": "5"}
        so_far = found["sentiment@5"]
        until(lambda: found["sentiment@5"] >= so_far + 10, "the split goes on after it", seconds=180)
        promote("sentiment")
        assert endpoints() == {"sentiment": "5"}
    assert set(found) == {"sentiment@4", "sentiment@5"}, found
    assert experiment_status("sentiment") is None
    assert last_experiment_status("sentiment", arguments["5"].storage).experiment == experiment
    with asking(endpoint.url) as found:
        until(lambda: sum(found.values()) >= 20, "requests are answered", seconds=30)
    assert set(found) == {"sentiment@5"}


def seen() -> Any:
    found = experiment_status("sentiment")
    assert found
    return found


def test_a_candidate_that_fails_is_taken_away_and_no_client_sees_it(
    endpoint: Endpoint, arguments: dict[str, AppArgs], storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asking(endpoint.url) as found:
        start(arguments["6"], 0.3)
        coordinator = find_coordinator("sentiment")
        until(lambda: "sentiment.candidate" not in endpoints(), "the candidate is taken away", seconds=90)
        until(lambda: experiment_status("sentiment") is None, "the experiment has ended", seconds=30)
    assert set(found) == {"sentiment@5"}, found
    record = last_experiment_status("sentiment", StorageConfig(url=str(storage)))
    assert record.verdict
    assert record.verdict.startswith("version 6 failed")
    assert record.arms[CANDIDATE].errors == record.arms[CANDIDATE].requests > 0
    monkeypatch.setattr(experiment_ending, "find_coordinator", lambda name: coordinator)
    assert experiment_status("sentiment") is None, "also for who found the coordinator before it ended"


def test_a_candidate_takes_over_where_there_is_no_room_for_another_replica(
    endpoint: Endpoint, arguments: dict[str, AppArgs]
) -> None:
    config = arguments["4"].config.model_copy(update={"cpus_per_replica": 1.5, "route": "/crowded"})
    crowded = {
        version: arguments[version].model_copy(update={"name": "crowded", "config": config}) for version in ("4", "5")
    }
    with asking(deploy(crowded["4"]).url) as found:
        start(crowded["5"], 0.4)
        assert lacking_resources(1.5, 0)["CPU"] < 1.5, "two of the four CPUs' replicas leave too little for a third"
        until(lambda: found["crowded@5"] >= 5, "the candidate has answered", seconds=180)
        promote("crowded")
        assert {name: version for name, version in endpoints().items() if "crowded" in name} == {"crowded": "5"}
    assert set(found) == {"crowded@4", "crowded@5"}, found
    assert last_experiment_status("crowded", arguments["5"].storage).experiment.candidate == "5"
    undeploy("crowded")


def test_what_cannot_begin_says_why(endpoint: Endpoint, arguments: dict[str, AppArgs]) -> None:
    with pytest.raises(ConfigError, match="version 5 is served already"):
        start(arguments["5"], 0.1)
    with pytest.raises(ConfigError, match="other: no such endpoint"):
        start(arguments["5"].model_copy(update={"name": "other"}), 0.1)
    with pytest.raises(ConfigError, match="sentiment: no experiment runs"):
        promote("sentiment")


def test_an_endpoint_that_nobody_asks_takes_nothing_and_the_first_requests_wait(
    endpoint: Endpoint, storage: Path
) -> None:
    published = publish(storage, "idle", "text-classification", classifier)
    settings = {
        "port": PORT, "cpus_per_replica": 0.25, "replicas": {"min": 0, "max": 1},
        "scale_to_zero_delay_seconds": 1, "max_queued_requests": 2,
    }  # fmt: skip
    url = deploy(app_args("idle", published, storage, "1", settings)).url
    until(lambda: replicas_of("idle") == 0, "the last replica has gone", seconds=180)
    assert endpoints()["idle"] is None
    assert replicas_of("idle") == 0, "looking starts none"
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, url) for _ in range(5)]
        answers = [one.result() for one in asked]
    found = Counter(answer.status_code for answer in answers)
    assert found == {200: 2, 429: 3}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 429)
    assert replicas_of("idle") == 1
    undeploy("idle")


def ask(url: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/predict", json={"text": "a joy"}, headers={"authorization": f"Bearer {KEY}"}, timeout=60
    )


def replicas_of(name: str) -> int:
    return next(one.replicas for one in status() if one.name == name)
