"""A run's page, as a browser would read it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from heliostat.train.evaluation.report import charts, curves
from heliostat.train.evaluation.report.page import Report, render
from tests.markup import Page

ATTACK = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
STEPS = 40
CURVES = {
    "train/loss": {step: 1 / step for step in range(1, STEPS + 1)},
    "train/learning_rate": {step: 1e-4 * step for step in range(1, STEPS + 1)},
    "train/grad_norm": dict.fromkeys(range(1, STEPS + 1), 2.0),
    "validation/loss": {20: 0.3, 40: 0.2},
    "validation/accuracy": {20: 0.5, 40: 0.75},
}
REPORT = Report(
    name="sentiment",
    subtitle="Version 3, published by run r1",
    facts={"data fingerprint": "0123456789abcdef", "base model": ATTACK},
    metrics={"loss": 0.25, "accuracy": 0.8125, "roc_auc": 0.98765432},
    metric="accuracy",
    spec=f"name: sentiment\nnote: {ATTACK}\n",
    labels=("negative", ATTACK),
    curves=CURVES,
    confusion=[[6, 2], [1, 7]],
    reliability=[
        {"low": 0.8, "high": 0.9, "count": 4, "confidence": 0.85, "accuracy": 0.5},
        {"low": 0.9, "high": 1.0, "count": 12, "confidence": 0.95, "accuracy": 11 / 12},
        {"low": 0.0, "high": 0.1, "count": 0, "confidence": 0.0, "accuracy": 0.0},
    ],
    worst=[
        {"text": ATTACK, "true label": "negative", "predicted label": ATTACK, "probability": 0.98764},
        {"text": "fine\nthough", "true label": ATTACK, "predicted label": "negative", "probability": 0.7},
    ],
)
EMPTY = {"meta", "circle", "rect", "line", "path"}


def points(path: dict[str, str | None]) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in (path["d"] or "").removeprefix("M").split()]
    return [(float(x), float(y)) for x, y in pairs]


def test_the_page_names_what_it_is_given() -> None:
    page = Page(render(REPORT))
    for said in ("sentiment", "Version 3, published by run r1", "0123456789abcdef", "0.8125", "0.9877", "87.5%"):
        assert said in page.texts, said
    assert "Predicted wrong: 3 of 16 records of the test split; the 2 with the highest" in page.text
    assert "0.9876" in page.texts
    assert "fine\nthough" in page.texts
    assert [cell["style"] for cell in page.of("td", "hit")] == ["--share: 0.750", "--share: 0.875"]


def test_text_that_nobody_has_vetted_stays_text() -> None:
    html = render(REPORT)
    page = Page(html)
    assert page.of("script") == page.of("img") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.texts.count(ATTACK) == 7  # a fact, two headings and a row of the tables, three cells of examples
    assert f"note: {ATTACK}" in page.text


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    page = Page(render(REPORT))
    policy = {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }
    assert policy in page.of("meta")
    assert not any({"src", "href", "xlink:href", "srcset"} & attributes.keys() for _, attributes in page.elements)
    assert "url(" not in page.text
    assert "@import" not in page.text
    assert "prefers-color-scheme: dark" in page.text


def test_every_curve_has_a_point_for_each_value() -> None:
    page = Page(render(REPORT))
    lines = {kind: [points(path) for path in page.of("path", kind)] for kind in ("raw", "smooth", "link")}
    assert [len(line) for line in lines["raw"]] == [STEPS, STEPS]
    assert [len(line) for line in lines["smooth"]] == [STEPS, STEPS, STEPS]
    assert [len(line) for line in lines["link"]] == [2]
    loss = lines["raw"][0]
    assert loss == sorted(loss), "time runs to the right, and a loss that falls goes down"
    titles = [text for text in page.texts if text.startswith("step ")]
    assert titles == ["step 20: 0.3", "step 40: 0.2", "step 20: 0.5", "step 40: 0.75"]
    assert len(page.of("circle")) == 4


def test_steps_that_are_no_numbers_are_marked_and_the_rest_drawn() -> None:
    losses = {**CURVES["train/loss"], 7: math.nan, 9: math.inf}
    norms = {**CURVES["train/grad_norm"], 9: math.inf, 11: math.nan}
    page = Page(render(replace(REPORT, curves={**CURVES, "train/loss": losses, "train/grad_norm": norms})))
    assert [len(points(path)) for path in page.of("path", "raw")] == [STEPS - 2, STEPS - 2]
    assert len(page.of("line", "gap")) == 4
    assert "Steps left out, because their loss or gradients were no numbers: 3." in page.texts
    nothing = Page(render(replace(REPORT, curves={"train/loss": {1: math.nan}})))
    assert "No step has a loss that is a number." in nothing.texts


def test_long_curves_keep_their_highest_and_lowest() -> None:
    values = {step: math.sin(step) for step in range(1, 25_001)}
    values[12_345] = 50.0
    values[20_001] = -50.0
    kept = curves.thinned(curves.finite(values))
    assert len(kept) <= curves.MOST_POINTS
    assert kept == sorted(kept)
    assert {(12_345, 50.0), (20_001, -50.0)} <= set(kept)
    chart = charts.by_step("Loss", values, smooth=True)
    assert chart is not None
    assert chart.note == "Of 25,000 steps, the lowest and highest of each part are drawn."
    assert all(len(line.path.split()) <= curves.MOST_POINTS for line in chart.lines)


def test_a_run_of_one_step_is_drawn() -> None:
    chart = charts.by_step("Loss", {1: 0.5}, {1: 0.5}, smooth=True)
    assert chart is not None
    assert charts.LEFT < chart.dots[0].x < chart.width
    assert charts.TOP < chart.dots[0].y < chart.height


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.12, 0.93, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 2e-4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
        (3, 3, [1, 2, 3, 4, 5]),
        (-7, 8, [-10, -5, 0, 5, 10]),
    ],
)
def test_scales_are_round_and_span_the_values(low: float, high: float, expected: list[float]) -> None:
    assert curves.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.3, "0.3"), (5e-5, "5e-5"), (1.5e-4, "1.5e-4"), (1_234_567, "1,234,567"), (2e9, "2e9")],
)
def test_numbers_at_a_scale_are_short(value: float, text: str) -> None:
    assert charts.label(value) == text


def test_bars_are_as_high_as_the_model_is_right() -> None:
    chart = charts.reliability(REPORT.reliability or ())
    assert chart is not None
    assert len(chart.bars) == 2
    whole = chart.y.start - chart.y.end
    assert [bar.height / whole for bar in chart.bars] == pytest.approx([0.5, 11 / 12], abs=0.01)
    assert chart.bars[1].text == "probability 0.90 to 1.00, 0.95 on average: 92% of 12 records right"
    assert charts.reliability([{"low": 0, "high": 1, "count": 0, "confidence": 0, "accuracy": 0}]) is None


def test_many_classes_show_what_is_confused_most() -> None:
    labels = [f"class {number}" for number in range(30)]
    matrix = [[10 if true == predicted else 0 for predicted in range(30)] for true in range(30)]
    matrix[3][4], matrix[5][6] = 10, 2
    page = Page(render(replace(REPORT, labels=labels, confusion=matrix)))
    assert page.of("table", "matrix") == []
    assert "Of 30 classes; shares are of the true label's records." in page.texts
    first = page.texts.index("share") + 1
    rows = [text for text in page.texts[first:] if text][:8]
    assert rows == ["class 3", "class 4", "10", "50.0%", "class 5", "class 6", "2", "16.7%"]


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    page = Page(render(replace(REPORT, confusion=[[8, 0], [0, 0]])))
    assert page.texts.count("–") == 2


def test_fewer_errors_and_none_are_said_plainly() -> None:
    assert (
        "Predicted wrong: 2 of 16 records of the test split; all are shown, the surest first."
        in Page(render(replace(REPORT, confusion=[[7, 1], [1, 7]]))).texts
    )
    right = Page(render(replace(REPORT, confusion=[[8, 0], [0, 8]], worst=[])))
    assert "There are none: all 16 records of the test split are predicted right." in right.texts
    assert right.of("table", "examples") == []
    unknown = Page(render(replace(REPORT, worst=None)))
    assert "They could not be found out; the log says why." in unknown.texts


def test_a_language_model_has_prompts_and_no_classes() -> None:
    worst: list[dict[str, str | int | float]] = [
        {"prompt": "user hello", "expected answer": ATTACK, "loss per target": 4.3219, "targets": 1200, "tokens": 1300}
    ]
    page = Page(
        render(replace(REPORT, labels=(), confusion=None, reliability=None, worst=worst, metric="loss", metrics={}))
    )
    assert {"prompt", "expected answer", "4.322", "1,200", ATTACK, "Highest losses"} <= set(page.texts)
    assert not {"Confusion matrix", "By class", "Reliability", "Classes"} & set(page.texts)
    assert "Validation loss" not in page.texts
