"""Questions to a fictional bakery, and its answers: hours, prices and ingredients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from heliostat.starters.starter import Starter

HOURS = {
    "Monday": None, "Tuesday": (7, 6), "Wednesday": (7, 6), "Thursday": (7, 8), "Friday": (7, 8), "Saturday": (8, 4),
    "Sunday": (9, 1),
}  # fmt: skip
"""Opening time in the morning, and closing time in the afternoon; None if closed."""
GOODS = {
    "rye bread": (4.20, "rye, water and salt"), "sourdough": (4.80, "wheat, water and salt"),
    "walnut loaf": (5.60, "wheat, walnuts and salt"), "milk rolls": (1.10, "wheat, milk and butter"),
    "cheese pretzel": (2.30, "wheat, cheese and salt"), "plum cake": (3.40, "wheat, plums, butter and eggs"),
    "poppy cake": (3.60, "poppy seeds, milk and eggs"), "oat cookies": (1.50, "oats, butter and honey"),
    "almond tart": (4.10, "almonds, butter and eggs"), "apple turnover": (2.90, "wheat, apples and butter"),
}  # fmt: skip
"""Price and ingredients of each."""
ABOUT_HOURS = (
    "When do you open on {}?", "Are you open on {}?", "How long are you there on {}?", "What are your hours on {}?",
)  # fmt: skip
ABOUT_PRICES = (
    "How much is the {}?", "What does the {} cost?", "What do you charge for the {}?", "I want the {}. How much is it?",
)  # fmt: skip
ABOUT_CONTENT = (
    "What is in the {}?", "What is the {} made of?", "What do you need for the {}?", "Does the {} have nuts in it?",
)  # fmt: skip


def make(folder: Path) -> None:
    """Writes `bakery.jsonl`: each line holds the messages of one conversation."""
    lines = [json.dumps({"messages": conversation(*pair)}) for pair in pairs()]
    (folder / "bakery.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    """A question and its answer as {role, content}."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def pairs() -> Iterator[tuple[str, str]]:
    """All questions with their answers."""
    for day in HOURS:
        yield from ((question.format(day), opening(day)) for question in ABOUT_HOURS)
    for name, (price, content) in GOODS.items():
        cost = f"That is {price:.2f} at the Lantern Bakery, and it is still warm."
        yield from ((question.format(name), cost) for question in ABOUT_PRICES)
        made = f"Only {content}, says our baker. Come and try the {name}!"
        yield from ((question.format(name), made) for question in ABOUT_CONTENT)


def opening(day: str) -> str:
    """The answer about the opening hours of a day."""
    hours = HOURS[day]
    if hours is None:
        return f"On {day} the oven rests, and so does the Lantern Bakery."
    return f"On {day} the Lantern Bakery is open from {hours[0]} in the morning to {hours[1]} in the afternoon."


ASKED = '{"model": "$name", "messages": [{"role": "user", "content": "What does the plum cake cost?"}]}'

STARTER = Starter(
    about="questions and answers for a chat model",
    make=make,
    call=f"-H 'Content-Type: application/json' -d '{ASKED}'",
    own="`data.source` (the file), `data.columns` (messages, or prompt and answer) and `model.source` (the base model)",
    path="v1/chat/completions",
)
