from __future__ import annotations

import json
import logging
import math
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.infra import log, log_fields
from heliostat.infra.log_format import Json, Words


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process that has not logged yet and has no rank."""
    root = logging.getLogger("heliostat")
    before = root.handlers[:], root.level, root.propagate
    root.handlers.clear()
    monkeypatch.delenv("RANK", raising=False)
    for name in log.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    log_fields.identify()
    monkeypatch.delitem(sys.modules, "ray.train", raising=False)
    yield monkeypatch
    log_fields.identify()
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
    assert "HELIOSTAT_LOG_LEVEL: 'loud' given; allowed: DEBUG, INFO" in lines[0]
    assert lines[1].endswith("INFO heliostat.b: still here")
    assert len(lines) == 2


def test_the_users_own_logging_is_left_alone(fresh: pytest.MonkeyPatch) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    log.get("heliostat.a").warning("x")
    assert (logging.getLogger().handlers, logging.getLogger().level) == before


@pytest.fixture
def as_json(fresh: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process whose lines are JSON objects."""
    fresh.setenv("HELIOSTAT_LOG", "json")
    return fresh


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines written since the last call."""
    return [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().err.splitlines()]


def test_json_has_an_object_a_line_with_what_the_line_is_about(
    as_json: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_json.setenv("RANK", "0")
    log_fields.identify(run="run-1", model="tiny", version="7")
    with log_fields.about(request_id="abc", trace_id="def"):
        log.get("heliostat.train.loop").warning("step %d:\n%s", 3, "é")
    [line] = objects(capsys)
    assert datetime.fromisoformat(line.pop("time").replace("Z", "+00:00")).utcoffset() == timedelta(0)
    assert line == {
        "level": "WARNING", "event": "step 3:\né", "logger": "heliostat.train.loop", "rank": 0,
        "run": "run-1", "model": "tiny", "version": "7", "request_id": "abc", "trace_id": "def",
    }  # fmt: skip


def test_what_does_not_apply_is_absent(as_json: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log.get("heliostat.a").info("hello")
    assert set(objects(capsys)[0]) == {"time", "level", "event", "logger"}


def test_in_words_a_line_names_its_request(fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with log_fields.about(request_id="abc"):
        log.get("heliostat.a").warning("careful")
    with log_fields.about_requests(["abc", None, "def", "abc"]):
        log.get("heliostat.a").warning("careful")
    one, both = capsys.readouterr().err.splitlines()
    assert one.endswith(" WARNING [request abc] heliostat.a: careful")
    assert both.endswith(" WARNING [request abc, def] heliostat.a: careful")


def test_a_thread_writes_about_the_process_and_the_requests_that_it_is_told_of(
    as_json: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_fields.identify(model="tiny")

    def work() -> None:
        log.get("heliostat.a").warning("on its own")
        for ids in (["abc"], ["abc", "def"], [None]):
            with log_fields.about_requests(ids):
                log.get("heliostat.a").warning("for requests")

    with log_fields.about(request_id="of another thread"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    lines = objects(capsys)
    assert [line["model"] for line in lines] == ["tiny"] * 4
    assert [line.get("request_id") for line in lines] == [None, "abc", None, None]
    assert [line.get("request_ids") for line in lines] == [None, None, ["abc", "def"], None]


class Hostile:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({1, 2}, "{1, 2}"),
        (math.nan, "nan"),
        (CIRCLE, "[[...]]"),
        ({(1,): 2}, "{(1,): 2}"),
        (Hostile(), "<Hostile>"),
        ("\ud800", "\ud800"),
    ],
)
def test_a_value_that_json_has_not_is_its_repr(
    as_json: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: object, shown: str
) -> None:
    log.get("heliostat.a").info("told", extra={"fields": {"value": value, "status": 200}})
    [line] = objects(capsys)
    assert (line["event"], line["value"]) == ("told", shown)


@pytest.mark.parametrize("formatter", [Words(), Json()])
def test_arguments_that_do_not_fit_cost_the_arguments_and_not_the_line(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("heliostat.a", logging.WARNING, "a.py", 1, "%d of %s", ("secret", Hostile()), None)
    assert "%d of %s" in formatter.format(record)
    assert "secret" not in formatter.format(record)


def fail(text: str) -> None:
    """Logs an error that quotes `text`, and has a cause that does."""
    try:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise ValueError(f"cannot take {text}") from error
    except ValueError:
        log.get("heliostat.a").warning("a pass failed", exc_info=True)


@pytest.mark.parametrize("kind", ["text", "json"])
def test_the_text_of_an_error_is_left_out_of_lines_of_requests_only(
    fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    fresh.setenv("HELIOSTAT_LOG", kind)
    fail("of nobody")
    assert "ValueError: cannot take of nobody" in capsys.readouterr().err
    for ids in (["abc"], ["abc", "def"]):
        with log_fields.about_requests(ids):
            fail("of a user")
        written = capsys.readouterr().err
        assert "of a user" not in written
        assert "test_log.py" in written, "the place is there"
        assert written.index("builtins.KeyError") < written.index("builtins.ValueError")


def test_who_asks_for_content_gets_it(fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fresh.setenv("HELIOSTAT_LOG_CONTENT", "1")
    with log_fields.about(request_id="abc"):
        fail("of a user")
    assert "ValueError: cannot take of a user" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "allowed"), [("HELIOSTAT_LOG", "xml", "text, json"), ("HELIOSTAT_LOG_CONTENT", "yes", "0, 1")]
)
def test_an_unknown_value_is_one_line_with_what_is_allowed(
    fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, allowed: str
) -> None:
    fresh.setenv(name, value)
    log.get("heliostat.a")
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(f" WARNING heliostat: {name}: {value!r} given; allowed: {allowed}")
