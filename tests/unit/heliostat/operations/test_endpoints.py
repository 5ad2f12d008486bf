"""`heliostat stop` does not end a Ray that another command uses without a question."""

from __future__ import annotations

import pytest

from heliostat.cluster.session import address, detached
from heliostat.cluster.session.detached import ClusterRecord
from heliostat.infra.errors import ResourceError
from heliostat.operations.endpoints import stop_serving

RECORD = ClusterRecord("127.0.0.1:1", "http://127.0.0.1:2", 1, 1, "", "mark", "")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Filled when the detached Ray is ended."""
    calls: list[bool] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(detached, "find_detached", lambda: RECORD)
    monkeypatch.setattr(detached, "stop_detached", lambda: calls.append(True))
    return calls


def at_work(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    monkeypatch.setattr(address, "drivers", lambda _: list(found))


def test_a_ray_that_another_command_uses_is_not_ended_without_a_yes(
    ended: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work(monkeypatch, "process 7 (heliostat train spec.yaml)")
    with pytest.raises(ResourceError, match=r"process 7 \(heliostat train spec\.yaml\) is at work .*--yes"):
        stop_serving(None, sure=False)
    assert ended == []
    stop_serving(None, sure=True)
    assert ended == [True]


@pytest.mark.parametrize("answer", [True, False])
def test_at_a_terminal_it_asks(ended: list[bool], monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    at_work(monkeypatch, "process 7 (heliostat train spec.yaml)")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda _: answer)
    if answer:
        stop_serving(None, sure=False)
    else:
        with pytest.raises(ResourceError, match="nothing is ended"):
            stop_serving(None, sure=False)
    assert ended == [True] * answer


def test_a_ray_that_nobody_uses_or_that_does_not_answer_is_ended(
    ended: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work(monkeypatch)
    stop_serving(None, sure=False)

    def silent(_: str) -> list[str]:
        raise ResourceError("nothing answers there")

    monkeypatch.setattr(address, "drivers", silent)
    stop_serving(None, sure=False)
    assert ended == [True, True]
