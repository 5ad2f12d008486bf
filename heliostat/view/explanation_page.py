"""An explanation as one HTML file that needs nothing else: no network, no scripts, light and dark.

Inputs are text that nobody has vetted, so Jinja2 escapes whatever is put in, and the page forbids scripts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.infra.images import PNG, data_url
from heliostat.serve.explain.answers import Explanation, ImageExplanation, TextExplanation
from heliostat.view.explanation import bars, facts

if TYPE_CHECKING:
    import numpy as np

FOLDERS = (Path(__file__).parent, Path(__file__).parents[1] / "train" / "evaluation" / "report")
"""Of the page, and of the style that it shares with the reports."""
Piece = tuple[str, float | None]
"""A part of the text, and what it does; None between the words."""


def render(title: str, explanation: Explanation, item: Any) -> str:
    """The explanation as an HTML document; `item` is what was explained: features, pixels or a text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDERS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("explanation.html")
    return template.render(
        title=title,
        explanation=explanation,
        facts=facts(explanation),
        bars=bars(explanation),
        pieces=pieces(explanation, item) if isinstance(explanation, TextExplanation) else [],
        images=images(explanation, item) if isinstance(explanation, ImageExplanation) else [],
        largest=largest(explanation),
    )


def largest(explanation: Explanation) -> float:
    """The strongest attribution, whatever its sign; 1 where none does anything."""
    return max((abs(value) for _, value in bars(explanation)), default=0.0) or 1.0


def pieces(explanation: TextExplanation, text: str) -> list[Piece]:
    """The whole text, in words and what is between them."""
    found: list[Piece] = []
    end = 0
    for one in explanation.words:
        found += [(text[end : one.start], None), (one.word, one.attribution)]
        end = one.end
    return [*found, (text[end:], None)]


def images(explanation: ImageExplanation, pixels: np.ndarray) -> list[tuple[str, str]]:
    """The image as the model takes it, and the heat map over it: title and `data:` URL."""
    return [("as the model takes it", data_url(pixels)), (explanation.method, PNG + explanation.heat_map)]
