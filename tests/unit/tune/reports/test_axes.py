"""Axes of a search's charts."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from heliostat.tune.reports.axes import Axis, Placed, axis_of, of_measured, of_numbers


def test_a_linear_axis_holds_all_numbers_between_round_ones() -> None:
    axis = axis_of([16, 32, 61])
    assert (axis.low, axis.high) == (10, 70)
    assert axis.at(10) == 0
    assert axis.at(70) == 1
    assert axis.at(40) == pytest.approx(0.5)


def test_a_logarithmic_axis_gives_each_power_of_ten_the_same_room() -> None:
    axis = axis_of([1e-5, 1e-2, 3e-4], is_log=True)
    assert [axis.at(value) for value in (1e-5, 1e-4, 1e-3, 1e-2)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [name for _, name in axis.marks()] == ["1e-5", "1e-4", "0.001", "0.01"]
    narrow = axis_of([2e-4, 7e-4], is_log=True)
    assert [name for _, name in narrow.marks()] == ["2e-4", "5e-4"]


def test_a_logarithmic_axis_of_numbers_that_have_no_logarithm_is_linear() -> None:
    assert not axis_of([0.0, 1.0], is_log=True).is_log
    assert 0 <= axis_of([0.0, 1.0], is_log=True).at(0.0) <= 1


@pytest.mark.parametrize("values", [[3.0], [0.0], [1e-4], [-2, -2]])
@pytest.mark.parametrize("is_log", [True, False])
def test_a_single_value_has_an_axis(values: list[float], is_log: bool) -> None:
    axis = axis_of(values, is_log=is_log)
    assert 0 <= axis.at(values[0]) <= 1
    assert axis.marks()


def test_values_that_are_no_numbers_lie_side_by_side() -> None:
    values = ["cosine", None, True, ["a", 1], "linear", 3]
    axis = axis_of([*values, "cosine"])
    places = sorted(axis.at(value) for value in values)
    assert all(after - before == pytest.approx(1 / 6) for before, after in pairwise(places))
    assert {name for _, name in axis.marks()} == {"cosine", "null", "true", '["a", 1]', "linear", "3"}


def test_a_choice_of_numbers_lies_side_by_side_in_their_order() -> None:
    axis = axis_of([64, 16, 128, 64], is_categorical=True)
    assert [name for _, name in axis.marks()] == ["16", "64", "128"]
    assert [axis.at(value) for value in (16, 64, 128)] == pytest.approx([1 / 6, 1 / 2, 5 / 6])


def test_many_choices_have_some_marks_and_long_names_are_cut() -> None:
    axis = axis_of([f"{number:03}{'x' * 40}" for number in range(100)])
    marks = axis.marks(6)
    assert len(marks) <= 6
    assert all(len(name) <= 14 for _, name in marks)
    assert {name for _, name in axis_of([f"{number:03}{'x' * 40}" for number in range(3)]).marks()} == {
        f"{number:03}xxxxxxxxxx…" for number in range(3)
    }


def test_values_far_out_leave_room_for_the_others_and_lie_at_the_edge() -> None:
    usual = [0.3 + step / 100 for step in range(20)]
    axis = of_measured([*usual, 1e6, math.nan, math.inf])
    assert axis.high <= 1
    assert axis.at(1e6) == 1
    assert axis.is_beyond(1e6)
    assert not any(map(axis.is_beyond, usual))


def test_without_spread_or_values_there_is_an_axis() -> None:
    assert of_measured([0.5] * 9 + [0.9]).is_beyond(0.9) is False
    assert of_measured([]) == of_numbers([]) == Axis(0.0, 1.0, ticks=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


def test_a_place_is_in_units_of_the_drawing() -> None:
    placed = Placed(Axis(0.0, 10.0, ticks=(0.0, 10.0)), 200, 100)
    assert [placed.at(value) for value in (0, 5, 10)] == [200, 150, 100]
    assert placed.marks() == [(200, "0"), (100, "10")]
