"""Prints an explanation in the terminal; readable without colours too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from heliostat.serve.explain.answers import (
    ColumnAttribution,
    Explanation,
    ImageExplanation,
    TableExplanation,
    TextExplanation,
    WordAttribution,
)

if TYPE_CHECKING:
    from heliostat.view.terminal import View

FOR, AGAINST = "green", "red"
BAR = 16
"""Length of the longest bar in characters."""
WEAK = 0.1
"""Words and cells below this share of the largest attribution are not marked."""
LITTLE = 0.01
"""Attributions in logits below this get no line."""
MOST_WORDS = 10
"""Most words in the table below a text."""
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
CONTROLS |= dict.fromkeys(range(127, 160), 0xFFFD)
"""Translation of control characters, which a terminal would execute, to visible characters."""


def show(view: View, title: str, explanation: Explanation, item: Any) -> None:
    """Prints what was explained, then the attributions; `item` is the input if it is a text."""
    heading = f"{title}: why {explanation.label}".translate(CONTROLS)
    view.console.print(heading, style="bold", soft_wrap=True, markup=False)
    for line in facts(explanation):
        view.console.print(line.translate(CONTROLS), soft_wrap=True, markup=False)
    if isinstance(explanation, TableExplanation):
        show_bars(view, bars(explanation))
    elif isinstance(explanation, TextExplanation):
        view.console.print(marked(item, explanation.words))
        show_bars(view, bars(explanation)[:MOST_WORDS])
    elif isinstance(explanation, ImageExplanation):
        view.console.print(blocks(explanation.grid))


def bars(explanation: Explanation) -> list[tuple[str, float]]:
    """Columns or words with their attributions, the largest first; empty for an image."""
    found: list[tuple[str, float]] = []
    if isinstance(explanation, TableExplanation):
        found = [(cell(one), one.attribution) for one in explanation.columns]
    elif isinstance(explanation, TextExplanation):
        found = [(one.word, one.attribution) for one in explanation.words]
    return sorted(found, key=lambda one: -abs(one[1]))


def cell(one: ColumnAttribution) -> str:
    """A column and its value."""
    return f"{one.column} = {one.value if isinstance(one.value, str) else format(one.value, '.7g')}"


def facts(explanation: Explanation) -> list[str]:
    """Probability, method and completeness of the attributions, one line each."""
    other = "" if explanation.predicted == explanation.label else f"; the likeliest label is {explanation.predicted}"
    lines = [f"probability {explanation.score:.1%}{other}", reading(explanation)]
    if convergence := explanation.convergence:
        total = f"they sum to {convergence.difference + convergence.delta:+.4f} of {convergence.difference:+.4f} logits"
        kept = "" if convergence.converged else "; more than the tolerance is missing, so read them as rough"
        lines.append(f"{total} with {convergence.steps} steps{kept}")
    if isinstance(explanation, TextExplanation) and abs(explanation.rest) > LITTLE:
        lines.append(f"{explanation.rest:+.4f} of that are between the words, such as white space")
    if isinstance(explanation, TextExplanation) and explanation.truncated:
        lines.append("the text was cut: what comes after is not read by the model")
    return lines


def reading(explanation: Explanation) -> str:
    """A line on how to read the attributions."""
    method = explanation.method.replace("_", " ")
    if explanation.method == "saliency":
        return f"{method}: the larger, the more the logit of {explanation.label} reacts; it has no sign"
    return f"{method}, in logits: + speaks for {explanation.label}, - against it"


def show_bars(view: View, rows: list[tuple[str, float]]) -> None:
    """Prints a bar for each row: to the right for the label, to the left against it."""
    largest = max((abs(value) for _, value in rows), default=0.0)
    width = min(40, max((len(name) for name, _ in rows), default=0))
    for name, value in rows:
        line = Text(f"  {name[:width].translate(CONTROLS):<{width}} {value:>+9.4f}  ")
        view.console.print(line.append(bar(value, largest)), soft_wrap=True)


def bar(value: float, largest: float) -> Text:
    """The bar of one attribution."""
    size = round(BAR * abs(value) / largest) if largest else 0
    if value < 0:
        return Text(" " * (BAR - size)).append("█" * size, AGAINST).append("│")
    return Text(" " * BAR + "│").append("█" * size, FOR)


def marked(text: str, words: list[WordAttribution]) -> Text:
    """The text, with one to three signs before each word that matters: three for the strongest."""
    largest = max((abs(one.attribution) for one in words), default=0.0)
    text = text.translate(CONTROLS)
    found, end = Text(), 0
    for one in words:
        found.append(text[end : one.start])
        word = text[one.start : one.end]
        found.append(signs(one.attribution, largest) + word, colour(one.attribution, largest))
        end = one.end
    return found.append(text[end:], "dim")


def signs(value: float, largest: float) -> str:
    """From `+++`, strongly in favour of the label, to `---`, strongly against it; empty for weak attributions."""
    share = abs(value) / largest if largest else 0.0
    return "" if share < WEAK else ("+" if value > 0 else "-") * (1 + (share > 1 / 3) + (share > 2 / 3))


def colour(value: float, largest: float) -> str:
    """Green or red by sign; bold if strong; empty for weak attributions."""
    found = signs(value, largest)
    return "" if not found else f"{'bold ' if len(found) > 1 else ''}{FOR if value > 0 else AGAINST}"


def blocks(grid: list[list[float]]) -> Text:
    """The grid as text: each cell is four characters wide, with one to three signs by strength."""
    largest = max(abs(value) for row in grid for value in row)
    return Text("\n").join(Text("  ").append_text(Text().join(block(value, largest) for value in row)) for row in grid)


def block(value: float, largest: float) -> Text:
    """One cell of the grid."""
    mark = signs(value, largest)
    return Text(f"{mark or '·':^4}", f"white on {FOR if value > 0 else AGAINST}" if mark else "dim")
