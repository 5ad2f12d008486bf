"""What the commands for experiments print and refuse; no Ray."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from heliostat.infra.errors import ConfigError, ModelError, ResourceError
from heliostat.infra.registry import registry
from heliostat.operations import experiment
from heliostat.serve.deploy import applications, launch
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE, Arms, ExperimentStatus, new_arms
from heliostat.spec import load_spec
from heliostat.view.experiment import show_experiment_status
from heliostat.view.terminal import View

EXPERIMENT = Experiment(share=0.1, baseline="3", candidate="4", url="http://127.0.0.1:8000/tiny.candidate")
STARTED = datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)


def shown(arms: Arms, verdict: str | None = None, ended: bool = False) -> list[str]:
    out = io.StringIO()
    status = ExperimentStatus("tiny", EXPERIMENT, STARTED, arms, verdict)
    show_experiment_status(status, ended=ended, view=View(Console(file=out, width=200, highlight=False)))
    return [" ".join(line.split()) for line in out.getvalue().splitlines() if line.strip()]


def test_a_new_experiment_shows_that_little_is_known() -> None:
    lines = shown(new_arms())
    assert lines[0] == "tiny: experiment of 2026-01-02 03:04 UTC, running"
    assert lines[3:5] == ["baseline 3 90% 0 0", "candidate 4 10% 0 0"]
    assert lines[5:] == [f"{what}: too little is known" for what in ("failed", "time", "feedback")]


def test_both_versions_are_shown_with_what_sets_them_apart() -> None:
    arms, draw = new_arms(), random.Random(0)
    for which, seconds, count in ((BASELINE, 0.1, 2000), (CANDIDATE, 0.2, 300)):
        for _ in range(count):
            arms[which].add(seconds * draw.lognormvariate(0, 0.2))
            arms[which].feedback.add(draw.choice((0.0, 1.0)))
    arms[CANDIDATE].add(None)
    lines = shown(arms, verdict="rolled back", ended=True)
    assert lines[0].endswith("ended")
    assert "301 1 (0.33%)" in lines[4]
    failed, time, feedback, verdict = lines[5:]
    assert failed.endswith(": no difference seen")
    assert time.startswith(("time: 1.9", "time: 2.0"))
    assert time.endswith(": a difference")
    assert feedback.endswith(": no difference seen")
    assert verdict == "rolled back"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((5.0, 5.0, None), "--canary and --ab given"),
        ((None, None, "x-user"), "neither --canary nor --ab given"),
        ((0.0, None, None), "--canary: 0 given; a percentage above 0 and below 100 is allowed"),
        ((None, 100.0, None), "--ab: 100 given"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: tuple[Any, Any, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        experiment.start_experiment(load_spec("sentiment", ()), None, *options)


def test_without_a_ray_there_is_nothing_to_promote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.cluster.session.address.find_address", lambda config: None)
    for command in (experiment.promote_candidate, experiment.stop_experiment):
        with pytest.raises(ResourceError, match="nothing is running"):
            command("tiny")


def model(version: int) -> Any:
    return SimpleNamespace(version=version, url=f"u{version}", digest=f"d{version}")


class Registry:
    """Versions 1 to 3 of a model; 3 is production, 2 was before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.production, self.served = 3, 3

        @contextmanager
        def session() -> Iterator[None]:
            yield

        def promote(storage: Any, name: str, version: int) -> Any:
            self.production = version
            return model(version)

        def deploy(args: Any) -> None:
            if args.version == "1":
                raise ModelError("it does not load")
            assert (args.url, args.digest) == (f"u{args.version}", f"d{args.version}")
            self.served = int(args.version)

        class Args(SimpleNamespace):
            def model_copy(self, update: dict[str, Any]) -> Any:
                return Args(**{**vars(self), **update})

        monkeypatch.setattr(experiment, "_running", session)

        def deployed(name: str) -> Any:
            return Args(storage=None, version=str(self.served)) if name == "tiny" else None

        monkeypatch.setattr(applications, "deployed", deployed)
        monkeypatch.setattr(launch, "deploy", deploy)
        monkeypatch.setattr(registry, "resolve", lambda storage, reference: model(self.production))
        monkeypatch.setattr(registry, "promote", promote)
        monkeypatch.setattr(registry, "rollback", lambda storage, name: promote(storage, name, 2))


@pytest.mark.parametrize(("version", "expected"), [(None, 2), (2, 2)])
def test_a_rollback_moves_the_endpoint_and_production(
    version: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Registry(monkeypatch)
    experiment.roll_back("tiny", version)
    assert (known.production, known.served) == (expected, expected)


def test_a_candidate_that_took_over_gives_way_to_production(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Registry(monkeypatch)
    known.served = 4
    experiment.roll_back("tiny", None)
    assert (known.production, known.served) == (3, 3)


def test_a_rollback_that_fails_moves_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Registry(monkeypatch)
    with pytest.raises(ModelError, match="does not load"):
        experiment.roll_back("tiny", 1)
    assert (known.production, known.served) == (3, 3)
    with pytest.raises(ConfigError, match="other: no such endpoint"):
        experiment.roll_back("other", None)
