from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from heliostat.infra import log


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process that has not logged yet and has no rank."""
    root = logging.getLogger("heliostat")
    before = root.handlers[:], root.level, root.propagate
    root.handlers.clear()
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("HELIOSTAT_LOG_LEVEL", raising=False)
    monkeypatch.delitem(sys.modules, "ray.train", raising=False)
    yield monkeypatch
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def speak() -> None:
    logger = log.get("heliostat.train.loop")
    logger.debug("details")
    logger.info("step %d", 3)
    logger.warning("careful")


def test_a_process_without_rank_logs_from_info_up(
    fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speak()
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.endswith(" INFO heliostat.train.loop: step 3")
    assert second.endswith(" WARNING heliostat.train.loop: careful")


@pytest.mark.parametrize(
    ("rank", "level", "said"),
    [
        ("0", "INFO", ["step 3", "careful"]),
        ("1", "INFO", ["careful"]),
        ("1", "DEBUG", ["details", "step 3", "careful"]),
        ("0", "error", []),
    ],
)
def test_only_rank_0_speaks_below_a_warning(
    fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, level: str, said: list[str]
) -> None:
    fresh.setenv("HELIOSTAT_LOG_LEVEL", level)
    fresh.setenv("RANK", rank)
    speak()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in lines] == said
    assert all(f" [rank {rank}] heliostat.train.loop: " in line for line in lines)


def test_a_rank_that_comes_later_counts(fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    logger = log.get("heliostat.x")
    fresh.setitem(
        sys.modules,
        "ray.train",
        SimpleNamespace(get_context=lambda: SimpleNamespace(get_world_rank=lambda: 3)),
    )
    logger.info("hidden")
    logger.error("shown")
    assert capsys.readouterr().err.endswith("ERROR [rank 3] heliostat.x: shown\n")


def test_ray_outside_a_worker_gives_no_rank(fresh: pytest.MonkeyPatch) -> None:
    def outside() -> None:
        raise RuntimeError("no context here")

    fresh.setitem(sys.modules, "ray.train", SimpleNamespace(get_context=outside))
    assert log.rank() is None


def test_a_level_that_is_none_is_named_once(fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fresh.setenv("HELIOSTAT_LOG_LEVEL", "loud")
    log.get("heliostat.a")
    log.get("b").info("still here")
    lines = capsys.readouterr().err.splitlines()
    assert "HELIOSTAT_LOG_LEVEL: 'LOUD' given; allowed: DEBUG, INFO" in lines[0]
    assert lines[1].endswith("INFO heliostat.b: still here")
    assert len(lines) == 2


def test_the_users_own_logging_is_left_alone(fresh: pytest.MonkeyPatch) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    log.get("heliostat.a").warning("x")
    assert (logging.getLogger().handlers, logging.getLogger().level) == before
