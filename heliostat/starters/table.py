"""Customers who stay or leave, by a random rule of five columns; some of the values are missing."""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path

from heliostat.starters.starter import Starter

ROWS = 800
PLANS = {"basic": 0.7, "plus": 0.0, "team": -1.4}
"""Effect on the probability of leaving, in logits."""
MISSING = 0.04
"""Share of missing values."""
COLUMNS = ("months", "monthly_price", "logins_per_week", "support_calls", "plan", "churned")


def make(folder: Path) -> None:
    """Writes `customers.csv`."""
    draw = random.Random(0)
    with (folder / "customers.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *(row(draw) for _ in range(ROWS))])


def row(draw: random.Random) -> list[str]:
    """A customer: five values, some of them missing, and whether the customer left."""
    months, price = draw.randint(1, 60), draw.randint(9, 79)
    logins, calls = round(draw.uniform(0, 12), 1), draw.randint(0, 8)
    plan = draw.choice(list(PLANS))
    logits = 1.2 - 0.07 * months + 0.03 * price - 0.6 * logins + 0.8 * calls + PLANS[plan]
    left = draw.random() < 1 / (1 + math.exp(-logits))
    values = [str(value) for value in (months, price, logins, calls, plan)]
    return [*("" if draw.random() < MISSING else value for value in values), "yes" if left else "no"]


EXAMPLE = '{"months": 3, "monthly_price": 49, "logins_per_week": 0.5, "support_calls": 6, "plan": "basic"}'

STARTER = Starter(
    about="rows of numbers and words with a class each",
    make=make,
    call=f"""-H 'Content-Type: application/json' -d '{{"row": {EXAMPLE}}}'""",
    own="`data.source` (the file), `data.columns.label` (the column with the class) and `data.columns.categories` "
    "(those that hold words)",
    explain=f"'{EXAMPLE}'",
)
