from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from heliostat.infra.registry.inputs import CategoryColumn, TableInputs
from heliostat.serve.errors import RequestError
from heliostat.serve.http.limits import parse_body
from heliostat.serve.predictors.tables import TableRequest, Tables, row_schema
from tests.tiny_programs import ROW, TABLE

pytestmark = pytest.mark.anyio


@pytest.fixture
def processor() -> Iterator[Tables]:
    made = Tables(TABLE)
    yield made
    made.close()


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key != name}


async def test_rows_become_the_features_of_training(processor: Tables) -> None:
    rows = [ROW, {**ROW, "weight in kg": None}, without("colour"), {**ROW, "size": 2}, {**ROW, "age": 40.5}]
    given = await processor.items(TableRequest(rows=rows))
    assert [one.field for one in given] == [f"rows.{at}" for at in range(5)]
    assert [one.item for one in given] == [TABLE.features(row) for row in rows]
    assert given[3].item[2:5] == [0, 1, 0]
    collated = processor.collate([one.item for one in given])["features"]
    assert (str(collated.dtype), list(collated.shape)) == ("torch.float32", [5, TABLE.width])


@pytest.mark.parametrize(
    ("row", "param", "message"),
    [
        (without("age"), "rows.1.age", "rows.1.age: missing; a value is needed"),
        ({**ROW, "age": None}, "rows.1.age", "rows.1.age: missing; a value is needed"),
        ({**ROW, "size": ""}, "rows.1.size", "rows.1.size: missing; a value is needed"),
        ({**ROW, "age": "38"}, "rows.1.age", "rows.1.age: '38' given; a finite number is needed"),
        ({**ROW, "weight in kg": "nan"}, "rows.1.weight in kg", "rows.1.weight in kg: 'nan' given; a finite number"),
        ({**ROW, "weight in kg": float("nan")}, "rows.1.weight in kg", "rows.1.weight in kg: nan given; a finite"),
        ({**ROW, "age": float("-inf")}, "rows.1.age", "rows.1.age: -inf given; a finite number is needed"),
        ({**ROW, "age": 10**400}, "rows.1.age", f"rows.1.age: 1{'0' * 59} given; a finite number is needed"),
        ({**ROW, "age": 1e300}, "rows.1.age", "rows.1.age: 1e+300 given; a number that 32 bits can hold"),
        ({**ROW, "age": True}, "rows.1.age", "rows.1.age: True given; a finite number is needed"),
        ({**ROW, "age": [38]}, "rows.1.age", "rows.1.age: [38] given; a finite number is needed"),
        ({**ROW, "size": "huge"}, "rows.1.size", "rows.1.size: 'huge' was not in the training data; 1, 2, large were"),
        ({**ROW, "colour": float("nan")}, "rows.1.colour", "rows.1.colour: nan given; null stands for a missing word"),
        ({**ROW, "size": {"a": 1}}, "rows.1.size", "rows.1.size: {'a': 1} given; text or a number is needed"),
        ({**ROW, "a\nge": 1}, "rows.1.a\nge", "rows.1: 'a\\nge' is no column; age, weight in kg, size, colour are"),
        ({}, "rows.1", "rows.1: {} given; the columns age, weight in kg, size, colour are needed"),
    ],
)
async def test_what_is_wrong_is_named_by_row_and_column(
    processor: Tables, row: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        await processor.items(TableRequest(rows=[ROW, row]))
    assert (caught.value.status, caught.value.param) == (422, param)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("body", [{}, {"row": ROW, "rows": [ROW]}, {"rows": []}, {"rows": [ROW] * 257}, {"row": [1]}])
def test_one_row_or_a_list_of_some_is_needed(processor: Tables, body: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_body(processor.asked, json.dumps(body).encode())
    assert caught.value.status == 422


def test_a_column_that_is_given_twice_is_refused(processor: Tables) -> None:
    with pytest.raises(RequestError, match="'age': given twice in one object") as caught:
        parse_body(processor.asked, b'{"rows": [{"age": 1}, {"age": 1, "size": "2", "age": 2}]}')
    assert (caught.value.status, caught.value.param) == (422, "age")


def test_the_description_has_the_columns(processor: Tables) -> None:
    properties = processor.body["requestBody"]["content"]["application/json"]["schema"]["properties"]
    row = properties["row"]["anyOf"][0]
    assert row == properties["rows"]["anyOf"][0]["items"] == row_schema(TABLE)
    assert row["required"] == ["age", "size"]
    assert row["properties"] == {
        "age": {"type": "number", "examples": [40.5]},
        "weight in kg": {"type": ["number", "null"], "examples": [70.0]},
        "size": {"enum": ["1", 1, "2", 2, "large"]},
        "colour": {"enum": ["black", "white", None, ""]},
    }
    jsonschema.validate(ROW, row)


@pytest.mark.parametrize("value", ["true", "-3", "1e3", "01", "1.50", "null", "[1]", '"x"', "é"])
async def test_what_the_description_allows_as_a_category_is_taken(value: str) -> None:
    inputs = TableInputs(columns=(CategoryColumn(name="c", values=("other", value)),))
    processor = Tables(inputs)
    for spelled in row_schema(inputs)["properties"]["c"]["enum"]:
        (given,) = await processor.items(TableRequest(row={"c": spelled}))
        assert given.item == [float(spelled == "other"), float(spelled != "other")]
    processor.close()
