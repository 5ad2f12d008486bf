"""Table inputs: validates the cells of rows and turns them into numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, WithJsonSchema, create_model

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import CategoryColumn, NumberColumn, TableInputs, spelled
from heliostat.serve.errors import RequestError, invalid
from heliostat.serve.predictors.inputs import MAX_INPUTS, InputProcessor, ModelInput, PredictRequest

if TYPE_CHECKING:
    import torch

    from heliostat.serve.drift.watch import DriftWatch


class TableRequest(PredictRequest):
    """One row, or a list of rows."""

    one = "row"

    row: dict[str, Any] | None = None
    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_INPUTS)] | None = None


class Tables(InputProcessor[TableRequest, list[float]]):
    """Parses requests with rows."""

    def __init__(self, inputs: TableInputs) -> None:
        super().__init__(request_of(inputs))
        self.inputs = inputs
        self.drift: DriftWatch | None = None
        self.columns = {column.name: column for column in inputs.columns}

    @property
    def blank(self) -> list[float]:
        """A row of zeros, for the trial passes."""
        return [0.0] * self.inputs.width

    async def items(self, asked: TableRequest) -> list[ModelInput[list[float]]]:
        """The features of each row, float [width]; RequestError 422 names the first invalid row and column."""
        features = await self.in_thread(self._features, asked.inputs)
        return [
            ModelInput(field, row, missing=self._missing(given))
            for (field, given), row in zip(asked.inputs, features, strict=True)
        ]

    def collate(self, batch: Sequence[list[float]]) -> dict[str, torch.Tensor]:
        """The model's input: float32 [rows, width]."""
        import torch

        return {"features": torch.tensor(batch, dtype=torch.float32)}

    def _features(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> list[list[float]]:
        return [self._row(field, row) for field, row in rows]

    def _row(self, field: str, row: dict[str, Any]) -> list[float]:
        for name in row:
            if name not in self.columns:
                names = ", ".join(self.columns)
                raise invalid(f"{field}.{name}", f"{field}: {name[:60]!r} is no column; {names} are allowed")
        if not row:
            raise invalid(field, f"{field}: {{}} given; the columns {', '.join(self.columns)} are needed")
        found: list[float] = []
        for name, column in self.columns.items():
            value = row.get(name)
            try:
                found += _numbers(column, value, f"{field}.{name}")
            except RequestError:
                self._count_refused(column, value)
                raise
        return found

    def _missing(self, row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(name for name, column in self.columns.items() if _is_missing(column, row.get(name)))

    def _count_refused(self, column: NumberColumn | CategoryColumn, value: Any) -> None:
        """Counts an empty cell, or a word that is unknown: what drift looks like where the model refuses it."""
        is_missing = _is_missing(column, value)
        if self.drift and (is_missing or (column.kind == "category" and isinstance(value, (str, int, float)))):
            self.drift.refuse(column.name, is_missing=is_missing)


def _numbers(column: NumberColumn | CategoryColumn, value: Any, field: str) -> list[float]:
    """The cell as numbers. A number must be a JSON number, so that no text is read as a missing value."""
    if column.kind == "number" and value is not None and not _is_finite(value):
        raise invalid(field, f"{field}: {repr(value)[:60]} given; a finite number is needed")
    if column.kind == "category" and isinstance(value, float) and not math.isfinite(value):
        raise invalid(field, f"{field}: {value} given; null stands for a missing word")
    try:
        return column.numbers(value)
    except DataError as error:
        raise invalid(field, f"{field.removesuffix(column.name)}{error}") from None


def _is_missing(column: NumberColumn | CategoryColumn, value: Any) -> bool:
    return value is None or (column.kind == "category" and isinstance(value, str) and spelled(value) is None)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, int) or math.isfinite(value))


def request_of(inputs: TableInputs) -> type[TableRequest]:
    """The request model with these columns in its schema; cells are validated later, for all rows in one way."""
    row: Any = Annotated[dict[str, Any], WithJsonSchema(row_schema(inputs))]
    rows: Any = Annotated[list[row], Field(min_length=1, max_length=MAX_INPUTS)]
    return create_model("TableRequest", __base__=TableRequest, row=(row | None, None), rows=(rows | None, None))


def row_schema(inputs: TableInputs) -> dict[str, Any]:
    """JSON Schema of a row."""
    return {
        "type": "object",
        "properties": {column.name: _cell_schema(column) for column in inputs.columns},
        "required": [column.name for column in inputs.columns if column.fill is None],
        "additionalProperties": False,
        "minProperties": 1,
    }


def example_row(inputs: TableInputs) -> dict[str, Any]:
    """An example row: the mean of each number column, the first value of each category column."""
    return {column.name: _usual(column) for column in inputs.columns}


def _usual(column: NumberColumn | CategoryColumn) -> float | str:
    return float(f"{column.mean:.4g}") if column.kind == "number" else column.values[0]


def _cell_schema(column: NumberColumn | CategoryColumn) -> dict[str, Any]:
    """JSON Schema of a cell."""
    may_miss = column.fill is not None
    if column.kind == "category":
        missing = [None, ""] if may_miss else []
        return {"enum": [*(spelled for value in column.values for spelled in _spellings(value)), *missing]}
    return {"type": ["number", "null"] if may_miss else "number", "examples": [_usual(column)]}


def _spellings(value: str) -> list[Any]:
    """JSON values that stand for a category: one that looks like an integer or boolean may be sent as such, too."""
    try:
        read = json.loads(value)
    except ValueError:
        return [value]
    is_same = isinstance(read, bool | int) and json.dumps(read) == value
    return [value, read] if is_same else [value]
