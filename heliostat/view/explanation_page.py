"""An explanation as one self-contained HTML file: no network, no scripts, light and dark.

Inputs are untrusted text, so Jinja2 escapes everything, and the page forbids scripts.
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
"""Folders of the page's template, and of the styles that it shares with reports."""
Piece = tuple[str, float | None]
"""A part of the text and its attribution; None between words."""


def render(title: str, explanation: Explanation, item: Any) -> str:
    """The explanation as an HTML document; `item` is the explained input: features, pixels or a text."""
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
    """The largest absolute attribution; 1 if all are 0."""
    return max((abs(value) for _, value in bars(explanation)), default=0.0) or 1.0


def pieces(explanation: TextExplanation, text: str) -> list[Piece]:
    """The whole text, split into words and what is between them."""
    found: list[Piece] = []
    end = 0
    for one in explanation.words:
        found += [(text[end : one.start], None), (one.word, one.attribution)]
        end = one.end
    return [*found, (text[end:], None)]


def images(explanation: ImageExplanation, pixels: np.ndarray) -> list[tuple[str, str]]:
    """The image as the model sees it, and the heat map over it: title and `data:` URL."""
    return [("as the model takes it", data_url(pixels)), (explanation.method, PNG + explanation.heat_map)]
