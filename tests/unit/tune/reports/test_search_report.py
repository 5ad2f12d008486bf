"""The page of a search, as a browser would read it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from heliostat.tune.reports.drawing import MOST_DOTS, MOST_LINES, subject
from heliostat.tune.reports.parallel import Parallel, parallel
from heliostat.tune.reports.plots import curves, slices
from heliostat.tune.reports.search_report import facts, render, shorter
from heliostat.tune.state import PageState
from heliostat.tune.trials import Objective, Origin, Score, Trial
from tests.markup import Page
from tests.trials import ACCURACY, CONFIRMED, LATENCY, SEARCHED, state, trial

ATTACK = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


def values(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    schedule = rng.choice(["cosine", "linear"])
    more = {"warmup": rng.random()} if schedule == "cosine" else {}
    return {"learning_rate": 10 ** rng.uniform(-5, -2), "schedule": schedule, **more}


def many(count: int, **more: Any) -> PageState:
    """A search in which a third of the trials was trained in full, and each seventh failed."""
    trials = []
    for number in range(count):
        accuracies = [0.3 + 0.1 * quarter + number % 13 / 50 for quarter in range(4 if number % 3 == 0 else 1)]
        error = {"error": f"loss is no number: {ATTACK}"} if number % 7 == 6 else {}
        trials.append(trial(number, accuracies, values(number), **error))
    return PageState(state(trials, wanted=count, **more), logarithmic=["learning_rate"])


FEW = many(21)
NONE = PageState(state([], keys=("learning_rate", "schedule")))
FAILED = PageState(state([trial(number, [], values(number), until=1, error=ATTACK) for number in range(30)]))


def trials_in(page: Page, tag: str) -> list[dict[str, str | None]]:
    return page.of(tag, "trial")


def coordinates(page: Page) -> list[float]:
    """Every number that a drawing is made of."""
    names = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height")
    found = [attributes[name] for _, attributes in page.elements for name in names if attributes.get(name)]
    paths = [attributes["d"] or "" for attributes in page.of("path")]
    return [float(one or "nan") for one in found if one != "device-width"] + [
        float(number) for path in paths for pair in path.removeprefix("M").split() for number in pair.split(",")
    ]


@pytest.mark.parametrize(
    "page", [FEW, NONE, FAILED, many(1), many(2), many(300)], ids=["few", "none", "failed", "1", "2", "300"]
)
def test_every_page_is_whole_and_fetches_and_runs_nothing(page: PageState) -> None:
    html = render(page)
    read = Page(html)
    assert read.of("script") == read.of("img") == read.of("link") == []
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert not any({"src", "href", "xlink:href", "srcset"} & attributes.keys() for _, attributes in read.elements)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert {"http-equiv": "Content-Security-Policy", "content": policy} in read.of("meta")
    assert "prefers-color-scheme: dark" in html
    assert "url(" not in html
    assert all(map(math.isfinite, coordinates(read)))


def test_a_search_is_drawn_from_all_sides() -> None:
    page = Page(render(FEW))
    for title in ("Best", "Learning curves", "All keys at once", "Importance", "accuracy by key", "Time", "Trials"):
        assert title in page.texts, title
    assert {"curves", "parallel", "importance", "slices", "times", "sums", "trials"} <= {
        attributes["id"] for _, attributes in page.elements if "id" in attributes
    }
    assert len(page.of("text", "name")) == 4, "an axis for each key, and one for accuracy"
    lines = [path for path in trials_in(page, "path") if len((path["d"] or "").split()) == 4]
    assert len(lines) >= 21
    assert "pareto" not in {attributes.get("id") for _, attributes in page.elements}


def test_each_trial_is_a_row_with_its_values_and_what_became_of_it() -> None:
    clone = trial(21, [0.9], values(3), origin=Origin(3, 0.25), stopped="by a user")
    search = replace(FEW.search, trials=[*FEW.search.trials, clone], repeated_steps={3: 17}, gang_hour_price=36.0)
    page = Page(render(replace(FEW, search=search)))
    assert "trial 3 at 25%" in page.texts
    assert "by a user" in page.texts
    assert "17" in page.texts
    assert "0.06" in page.texts, "six seconds of a gang at 36 an hour"
    assert "Time and cost" in page.texts
    assert len([text for text in page.texts if text == f"loss is no number: {ATTACK}"]) == 3
    assert "–" in page.texts, "no warmup without its condition"


def test_text_that_nobody_has_vetted_stays_text() -> None:
    names = {ATTACK: ATTACK, "learning_rate": 0.1}
    trials = [trial(number, [0.5], {**names, "learning_rate": number + 1}, error=ATTACK) for number in range(3)]
    search = state([*trials, trial(3, [0.5], names)], name=ATTACK, note=ATTACK)
    html = render(PageState(search, ATTACK, {ATTACK: ATTACK}, spec=ATTACK))
    page = Page(html)
    assert page.of("script") == page.of("img") == []
    assert "<script" not in html
    assert page.texts.count(ATTACK) >= 10
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_thousands_of_trials_are_drawn_in_part_which_the_page_says_and_listed_in_full() -> None:
    count = 2000
    page = Page(render(many(count)))
    drawn = [
        path for path in trials_in(page, "path") if "top" in (path["class"] or "") or "rest" in (path["class"] or "")
    ]
    assert MOST_LINES <= len(drawn) <= 2 * MOST_LINES
    assert len(trials_in(page, "circle")) <= MOST_LINES + 3 * MOST_DOTS
    assert f"{MOST_LINES:,} of 2,000 trials are drawn: the best, and others evenly." in page.texts
    assert f"{MOST_LINES:,} of 2,000 curves are drawn: the best, and others evenly." in page.texts
    assert "Each bar is the mean of 13 trials, with the state of most of them." in page.texts
    assert len([one for tag, one in page.elements if tag == "tr"]) > count


def test_the_best_are_on_top_in_each_chart() -> None:
    of = subject(FEW)
    charts = [parallel(of), curves(of), *slices(of)]
    drawn = [chart.lines if isinstance(chart, Parallel) else chart.marks for chart in charts if chart]
    assert len(drawn) == 5
    for marks in drawn[:3]:
        assert marks[-1].text.startswith("trial 12, finished at 100 %: accuracy 0.84, ")
        assert "failed" in marks[0].kind


def test_without_trials_the_page_says_so() -> None:
    page = Page(render(NONE))
    assert "No trial has begun." in page.texts
    assert page.of("svg") == []
    assert "No trial has begun yet." in Page(render(NONE, 5)).texts


def test_failed_trials_alone_are_drawn_and_listed_with_their_reasons() -> None:
    page = Page(render(FAILED))
    assert "No trial has a number for accuracy." in page.texts
    assert "10 trials or more with a value are needed; there are 0." in page.texts
    assert page.texts.count(ATTACK) == 30
    assert len(page.of("path", "failed")) == 30
    assert page.of("circle") == []
    assert "curves" not in {attributes.get("id") for _, attributes in page.elements}


def test_a_trial_that_has_begun_and_has_no_value_yet_is_no_best() -> None:
    page = Page(render(PageState(state([trial(0, [], until=1)], running=[0])), 5))
    assert "No trial has a number for accuracy yet." in page.texts
    assert "training" in page.texts


def test_values_far_out_leave_room_for_the_others() -> None:
    trials = [trial(number, [0.5 + number / 100], values(number)) for number in range(20)]
    page = Page(render(PageState(state([*trials, trial(20, [-1e9], values(20))]))))
    assert "1 value is far out, and drawn at the edge." in page.text


def test_two_objectives_have_a_front() -> None:
    def both(number: int, accuracy: float, latency: float) -> Trial:
        score = Score(1, 10, {"accuracy": accuracy, "latency": latency}, 1.0)
        return trial(number, [], values(number), until=1, scores=(score,))

    trials = [both(0, 0.9, 30), both(1, 0.8, 10), both(2, 0.7, 20), both(3, 0.95, 60)]
    page = Page(render(PageState(state(trials, objectives=(ACCURACY, LATENCY)))))
    assert "Pareto front" in page.texts
    assert "latency by accuracy" in page.texts
    (front,) = page.of("path", "front")
    assert len((front["d"] or "").split()) == 3
    assert len(page.of("tr", "front")) == 3
    assert len([one for one in page.of("circle", "top") if one["r"] == "4"]) >= 3


def test_the_front_of_three_objectives_is_marked_without_a_line_through_it() -> None:
    scores = [
        Score(1, 10, {"accuracy": 0.9 - one / 10, "latency": 30.0 - one, "loss": one / 10}, 1.0) for one in range(3)
    ]
    trials = [trial(number, [], values(number), until=1, scores=(score,)) for number, score in enumerate(scores)]
    page = Page(render(PageState(state(trials, objectives=(ACCURACY, LATENCY, Objective("loss", "min"))))))
    assert len(page.of("tr", "front")) == 3
    assert page.of("path", "front") == []


def test_the_best_trial_is_told_with_its_values() -> None:
    texts = Page(render(FEW)).texts
    rate = f"{values(12)['learning_rate']:.4g}"
    told = dict(zip(shown := [text for text in texts if text], shown[1:], strict=False))
    assert (told["accuracy (max)"], told["trained"]) == ("0.84", "100 %")
    assert shown[shown.index("trained") + 2 :][:2] == ["learning_rate", rate]
    assert "No trial was trained in full." not in texts
    assert "No trial was trained in full." in Page(render(PageState(state([trial(0, [0.5])])))).texts


def test_only_a_page_that_is_live_renews_itself() -> None:
    assert "refresh" not in [one.get("http-equiv") for one in Page(render(FEW)).of("meta")]
    live = Page(render(FEW, 5))
    assert {"http-equiv": "refresh", "content": "5"} in live.of("meta")
    assert "The search is running; this page renews itself every 5 seconds." in live.texts


def test_trials_that_are_shorter_than_the_run_are_told_of() -> None:
    def said(trial_epochs: float | None, train_epochs: float | None) -> str:
        return shorter(replace(FEW, trial_epochs=trial_epochs, train_epochs=train_epochs))

    assert said(1, 3).startswith("A trial has 1 epoch at most (tune.epochs), the run that its winner is for has 3 ")
    assert said(0.5, 1).startswith("A trial has 0.5 epochs at most")
    assert said(3, 3) == said(4, 3) == said(None, 3) == said(None, None) == ""
    page = Page(render(replace(FEW, trial_epochs=1, train_epochs=3)))
    assert any("the best learning rate may shift" in text for text in page.texts)


def test_runs_on_new_seeds_are_told_with_whether_the_winner_is_real() -> None:
    page = Page(render(PageState(state(CONFIRMED))))
    shown = [text for text in page.texts if text]
    assert "Is the winner real?" in shown
    assert shown[shown.index("accuracy (max, mean of 3 runs)") + 1] == "0.84"
    assert any(text.startswith("trial 1 is better than trial 0 by 0.03 (95% interval") for text in shown)
    assert shown.count("confirms trial 1 on seed 1000") == 1
    assert "0.03 (0.005159 to 0.05484)" in shown
    assert "Is the winner real?" not in Page(render(FEW)).texts
    waiting = replace(CONFIRMED[8], scores=())
    assert (
        "2 of the runs on new seeds have not ended."
        in Page(render(PageState(state([*SEARCHED, waiting, replace(waiting, number=9)])))).texts
    )


def test_the_facts_have_what_was_spent_and_how_much_of_it_waited() -> None:
    found = facts(PageState(state([], worker_hours=1.5, idle_worker_hours=0.3, lag=2, cost=0.0456)))
    assert (found["worker-hours"], found["cost"]) == ("1.50 (20% idle)", "0.046 USD")
    assert "cost" not in facts(PageState(state([])))
