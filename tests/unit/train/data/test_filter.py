"""The row filter: what it keeps, and what it refuses to read."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError, DataError
from heliostat.train.data.config import DataConfig
from heliostat.train.data.filter import parse

RECORD: dict[str, Any] = {
    "source": "imdb",
    "text": "A Fine film",
    "stars": "8",
    "score": 0.5,
    "votes": 12,
    "checked": "True",
    "town": "cafe\u0301",
    "missing": None,
    "blank": "",
    "odd name": "x",
    "tags": ["a", "b"],
}


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("source == 'imdb'", True),
        ("source != 'imdb'", False),
        ("stars > 7", True),
        ("stars == 8.0", True),
        ("stars == '8.0'", True),
        ("checked == 'true'", True),
        ("checked in ['TRUE']", True),
        ("town == 'caf\u00e9'", True),
        ("town in ['cafe\u0301']", True),
        ("town.startswith('caf\u00e9') and 'caf\u00e9' in town", True),
        ("len(town) == 4", True),
        ("10 > stars >= 8", True),
        ("10 > stars > 8", False),
        ("score < -1", False),
        ("votes in [1, 12]", True),
        ("source in ('rotten', 'imdb') and not votes < 5", True),
        ("source not in ['imdb']", False),
        ("source == 'x' or (votes == 12 and score == 0.5)", True),
        ("'Fine' in text", True),
        ("'fine' in text.lower()", True),
        ("text.strip().startswith('A')", True),
        ("text.endswith('book')", False),
        ("len(text) > 10", True),
        ("checked == True", True),
        ("checked == false", False),
        ("checked", True),
        ("missing is None", True),
        ("missing is not None", False),
        ("missing > 3", False),
        ("missing == 3", False),
        ("missing != 3", True),
        ("blank > 3", False),
        ("len(missing) == 0", True),
        ("column('odd name') == 'x'", True),
        ("'b' in tags", True),
        ("'c' in tags", False),
    ],
)
def test_a_record_is_kept_or_not(expression: str, kept: bool) -> None:
    assert parse(expression)(RECORD) is kept


def test_the_columns_asked_for_are_known_before_any_record() -> None:
    found = parse("a == 1 and (b in [2] or not column('c d').lower() == 'x') and true").columns
    assert found == ("a", "b", "c d")


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("source = 'imdb'", "invalid syntax"),
        ("__import__('os').system('true')", "__import__"),
        ("source.__class__", "source.__class__"),
        ("source.format('x')", "source.format"),
        ("source.startswith()", "source.startswith()"),
        ("lambda: 1", "lambda: 1"),
        ("[x for x in source]", "for x in source"),
        ("source[0]", "source[0]"),
        ("votes + 1 > 2", "votes + 1"),
        ("9**9**9 > 1", "9 ** 9 ** 9"),
        ("f'{source}' == 'x'", "source"),
        ("len(source, text)", "len(source, text)"),
        ("source == b'x'", "b'x'"),
        ("(source", "never closed"),
        ("", "not an expression"),
        ("a == " + "1" * 3000, "3005 characters"),
    ],
)
def test_anything_else_is_refused_by_name_when_the_spec_is_read(expression: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(DataConfig, {"source": "x.csv", "where": expression})
    message = str(caught.value)
    assert message.startswith("where: ")
    assert named in message
    assert "allowed" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("source > 3", "data.where: 'imdb' cannot be compared with 3; a number is needed"),
        ("tags > 3", "data.where: ['a', 'b'] cannot be compared with 3 (list and int)"),
        ("text", "data.where: 'A Fine film' is neither true nor false; compare it with something"),
    ],
)
def test_values_that_do_not_compare_are_named(expression: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(expression)(RECORD)
    assert str(caught.value) == message
