"""Weather reports from a fictional coast, composed of random phrases."""

from __future__ import annotations

import random
from pathlib import Path

from heliostat.starters.starter import Starter

COUNT = 1500
"""Number of reports, separated by empty lines."""
PLACES = ("Harbour", "Lighthouse", "Old Town", "Hills", "Marshes", "Islands")
SKIES = {
    "clear": ("the sun shines from morning to evening", "not a cloud is in the sky", "the night is full of stars"),
    "cloudy": ("grey clouds hang low", "the sun comes through at times", "fog lies over the water until noon"),
    "wet": ("it rains without end", "showers come in from the sea", "drizzle falls through the afternoon"),
    "stormy": ("a gale blows from the west", "the ferries stay in port", "lightning is seen far out"),
}
ADVICE = {
    "clear": ("Take a hat.", "A good day for the beach.", "Water the garden."),
    "cloudy": ("Take a coat.", "A good day for a walk.", "Drive with your lights on."),
    "wet": ("Take an umbrella.", "A good day for the museum.", "Mind the puddles."),
    "stormy": ("Stay inside.", "Close the windows.", "Tie up your boat."),
}
"""Kind of weather -> phrases for it."""


def make(folder: Path) -> None:
    """Writes `reports.txt`."""
    draw = random.Random(0)
    (folder / "reports.txt").write_text("\n\n".join(report(draw) for _ in range(COUNT)) + "\n", encoding="utf-8")


def report(draw: random.Random) -> str:
    """One report: the advice fits the sky, and the feeling the temperature."""
    weather, place, degrees = draw.choice(list(SKIES)), draw.choice(PLACES), draw.randint(2, 29)
    feeling = "cold" if degrees < 10 else "mild" if degrees < 20 else "warm"
    said = f"{draw.choice(SKIES[weather])}, and it is {feeling} at {degrees} degrees"
    return f"{place}: {said}. {draw.choice(ADVICE[weather])}"


STARTER = Starter(
    about="plain text, for a language model from nothing",
    make=make,
    call="""-H 'Content-Type: application/json' -d '{"model": "$name", "prompt": "Lighthouse:", "max_tokens": 40}'""",
    own="`data.source` (the file), `data.format` (`text` where each line is a text of its own), `data.max_length` and "
    "the size of the model",
    path="v1/completions",
)
