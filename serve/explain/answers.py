"""Results of explanations, the same for the command line and `POST /v1/explain`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Method = Literal["integrated_gradients", "occlusion", "saliency"]


class Convergence(BaseModel):
    """How well integrated gradients kept their promise, which is to sum to a difference of logits (completeness)."""

    difference: float = Field(description="Logit of the label for the input, less that for the baseline.")
    delta: float = Field(description="Sum of the attributions, less `difference`.")
    steps: int = Field(description="Points between baseline and input at which gradients were taken.")
    converged: bool = Field(description="Whether `delta` is within the tolerance; where not, `steps` are the most.")


class Explanation(BaseModel):
    """Why a label: what in the input speaks for it (above zero) and what against it (below), in logits."""

    method: Method
    label: str = Field(description="The label that is explained.")
    score: float = Field(description="Its probability.")
    predicted: str = Field(description="The likeliest label.")
    passes: int = Field(
        description="Forward and backward passes of one input that it took, where a prediction takes one."
    )
    convergence: Convergence | None = Field(default=None, description="Of integrated gradients.")


class ColumnAttribution(BaseModel):
    """What a cell of a row does."""

    column: str
    value: float | str = Field(description="As the model takes it: what is missing has been filled in.")
    attribution: float


class TableExplanation(Explanation):
    """Of a row: its columns in their order."""

    columns: list[ColumnAttribution]


class WordAttribution(BaseModel):
    """What a word does; its place is in the characters of the text."""

    word: str
    start: int
    end: int
    attribution: float


class TextExplanation(Explanation):
    """Of a text: its words in their order, punctuation marks too; what the model does not see is left out."""

    words: list[WordAttribution]
    rest: float = Field(description="What all between the words does, such as white space that has tokens of its own.")
    truncated: bool = Field(description="Whether the text was cut.")


class ImageExplanation(Explanation):
    """Of an image: its cells, in rows from top to bottom. Saliency has no sign: it is how much the logit reacts."""

    grid: list[list[float]]
    cell_height: int = Field(description="In pixels of the image as the model takes it; the last row may have fewer.")
    cell_width: int
    heat_map: str = Field(description="PNG file in base64: the image in grey; green speaks for the label, red against.")
