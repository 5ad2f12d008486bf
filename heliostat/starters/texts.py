"""Letters to a shop about bills, parcels or accounts, composed of random phrases."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from heliostat.starters.starter import Starter

EACH = 200
"""Texts per class."""
OPENINGS = (
    "Hello,", "Good morning,", "Hi there,", "Dear team,", "Sorry to bother you again, but", "A short question:",
    "I wrote last week already:", "Please help:", "As a customer of many years I must say:", "Just so you know,",
)  # fmt: skip
CLOSINGS = (
    "What can I do?", "Please look into it.", "Thank you.", "Can somebody call me?", "I need this by Friday.",
    "It is not urgent.", "This is the second time.", "I would like an answer today.", "Best regards", "",
)  # fmt: skip
SUBJECTS = {
    "billing": (
        ("the invoice", "my last bill", "the receipt", "the refund", "your charge", "the payment"),
        ("is higher than agreed", "was taken twice", "shows the wrong amount", "has not come to my bank",
         "lacks the discount", "is in the wrong currency"),
    ),
    "delivery": (
        ("my parcel", "the order", "the box", "your courier", "the chair that I ordered", "the shipment"),
        ("has not arrived", "came damaged", "went to my neighbour", "is two weeks late", "was left in the rain",
         "is stuck at customs"),
    ),
    "account": (
        ("my password", "the login page", "my profile", "the code by mail", "your app", "the sign-in link"),
        ("is not accepted", "shows an error", "does not load", "has expired", "still has my old address",
         "asks me again and again"),
    ),
}  # fmt: skip
"""Subjects and problems of each class."""


def make(folder: Path) -> None:
    """Writes `letters.csv`."""
    draw = random.Random(0)
    found: dict[str, str] = {}
    for label in SUBJECTS:
        while list(found.values()).count(label) < EACH:
            found[letter(draw, label)] = label
    with (folder / "letters.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("text", "label"), *found.items()])


def letter(draw: random.Random, label: str) -> str:
    """A random text of the class."""
    what, wrong = SUBJECTS[label]
    parts = (draw.choice(OPENINGS), draw.choice(what), draw.choice(wrong) + ".", draw.choice(CLOSINGS))
    return " ".join(parts).strip()


EXAMPLE = "Hello, my parcel was left in the rain. Thank you."

STARTER = Starter(
    about="texts with a label each",
    make=make,
    call=f"""-H 'Content-Type: application/json' -d '{{"text": "{EXAMPLE}"}}'""",
    own="`data.source` (the file), `data.columns` (which column holds the text, and which the label) and "
    "`data.max_length` (its words)",
    explain=f"'{EXAMPLE}'",
)
