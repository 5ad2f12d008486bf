"""The same numbers of a record of training and of a request."""

from __future__ import annotations

import numpy as np
import pytest

from heliostat.infra.drift.reference import MOST_COLUMNS
from heliostat.infra.drift.statistics import ImageStatistics, TableStatistics, TextStatistics, common_tokens
from heliostat.infra.registry.inputs import CategoryColumn, NumberColumn, TableInputs
from tests.tiny_programs import ROW, TABLE


def test_a_table_is_counted_by_column() -> None:
    statistics = TableStatistics(TABLE)
    values = statistics.values([TABLE.features(row) for row in (ROW, {**ROW, "size": "1", "colour": "white"})])
    assert statistics.categories == {"size", "colour"}
    assert {name: one.tolist() for name, one in values.items()} == {
        "age": pytest.approx([-0.25] * 2),
        "weight in kg": pytest.approx([0.3] * 2),
        "size": [2, 0],
        "colour": [0, 1],
    }


def test_as_many_cells_as_were_missing_in_training_are_missing_again() -> None:
    number = NumberColumn(name="x", mean=2.0, std=1.0, fill=2.0, missing=0.2)
    word = CategoryColumn(name="c", values=("a", "b"), fill="b", missing=0.4)
    inputs = TableInputs(columns=(number, word))
    cells = ((1, "a"), (2, None), (None, "b"), (5, "b"), (4, None))
    statistics = TableStatistics(inputs)
    values = statistics.with_missing(statistics.values([inputs.features({"x": x, "c": c}) for x, c in cells]))
    assert np.isnan(values["x"]).sum() == 1
    assert sorted(values["x"][~np.isnan(values["x"])]) == [-1, 0, 2, 3]
    assert np.isnan(values["c"]).sum() == 2
    assert sorted(values["c"][~np.isnan(values["c"])]) == [0, 1, 1]


def test_a_wide_table_says_how_many_columns_are_left_out() -> None:
    columns = tuple(NumberColumn(name=str(at), mean=0, std=1) for at in range(MOST_COLUMNS + 7))
    statistics = TableStatistics(TableInputs(columns=columns))
    assert statistics.left_out == 7
    assert list(statistics.values(np.zeros((2, len(columns))))) == [str(at) for at in range(MOST_COLUMNS)]


def test_a_text_is_counted_by_its_tokens() -> None:
    statistics = TextStatistics(1, common_tokens([np.array([5, 5, 2, 9]), np.array([2])]))
    assert statistics.common == {2, 5, 9}
    values = statistics.values([statistics.kept([5, 1, 7, 2]), statistics.kept([])])
    assert {name: one.tolist() for name, one in values.items()} == {
        "length": [4, 0],
        "unknown_share": [0.25, 0],
        "common_share": [0.5, 0],
    }
    assert TextStatistics(None, ()).kept([1, 2])[1] == 0


def test_an_image_is_counted_by_brightness_and_contrast() -> None:
    statistics = ImageStatistics()
    stripes = np.zeros((500, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    grey = np.full((4, 3, 1), 51, np.uint8)
    values = statistics.values([statistics.kept(grey), statistics.kept(stripes)])
    assert values["brightness"] == pytest.approx([0.2, 0.5], abs=0.02)
    assert values["contrast"] == pytest.approx([0, 0.5], abs=0.02)
