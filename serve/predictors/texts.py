"""Text inputs: tokenization, and the check of their length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import AfterValidator, BaseModel, Field

from heliostat.serve.errors import invalid
from heliostat.serve.predictors.inputs import (
    MAX_INPUTS,
    InputProcessor,
    ModelInput,
    Prediction,
    PredictRequest,
    PredictResponse,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from heliostat.serve.metrics import ServeMetrics


def not_blank(text: str) -> str:
    """The text; raises ValueError if it is blank, which in training data counts as missing."""
    if not text.strip():
        raise ValueError("a character that is no white space is needed")
    return text


Text = Annotated[str, Field(min_length=1, json_schema_extra={"pattern": r"\S"}), AfterValidator(not_blank)]


class TextRequest(PredictRequest):
    """One text, or a list of texts."""

    one = "text"

    text: Text | None = None
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)] | None = None
    truncate: bool = Field(
        default=False, description="Cut texts that are too long for the model instead of refusing them."
    )


class TextPrediction(Prediction):
    """What the model says of one text."""

    truncated: bool = Field(description="Whether the text was cut.")


class TokenUsage(BaseModel):
    """What was read."""

    prompt_tokens: int
    total_tokens: int


class TextResponse(PredictResponse):
    """A prediction for each text, in their order."""

    predictions: list[TextPrediction]  # type: ignore[assignment]
    usage: TokenUsage  # type: ignore[assignment]


@dataclass(frozen=True)
class Encoded:
    """A tokenized text."""

    ids: list[int]
    total_tokens: int
    """Tokens of the whole text, before truncation."""
    unknown: int = 0
    """How many of `ids` stand for what the tokenizer does not know."""

    @property
    def truncated(self) -> bool:
        """Whether tokens were cut off."""
        return self.total_tokens > len(self.ids)


class Encoder(Protocol):
    """A tokenizer with a length limit."""

    max_length: int

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The texts as token ids, at most `max_length` each."""
        ...


class TextEncoder:
    """A Hugging Face tokenizer that truncates, and counts the tokens it cuts off."""

    def __init__(self, tokenizer: Tokenizer, max_length: int, unknown_id: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)
        self.max_length = max_length
        self.unknown_id = unknown_id
        self.specials = tokenizer.num_special_tokens_to_add(False)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The texts as token ids, at most `max_length` each. A review takes about 1 ms."""
        return [self._encoded(found) for found in self.tokenizer.encode_batch_fast(list(texts))]

    def _encoded(self, found: Any) -> Encoded:
        cut = sum(len(rest.ids) - self.specials for rest in found.overflowing)
        return Encoded(found.ids, len(found.ids) + cut, found.ids.count(self.unknown_id))


class Texts(InputProcessor[TextRequest, Encoded]):
    """Parses requests with texts."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(TextRequest, TextResponse)
        self.encoder = encoder

    def probe(self, values: dict[str, Any]) -> TextRequest:
        """A request with the input of a probe, truncated as in training."""
        return TextRequest(**values, truncate=True)

    async def items(self, asked: TextRequest) -> list[ModelInput[Encoded]]:
        """The texts as token ids; raises RequestError 422 if one is too long and `truncate` is not set."""
        fields, texts = zip(*asked.inputs, strict=True)
        encoded = await self.in_thread(self.encoder.encode, texts)
        if not asked.truncate:
            for field, one in zip(fields, encoded, strict=True):
                self._check_length(field, one)
        return [
            ModelInput(field, one, len(one.ids), {"truncated": one.truncated})
            for field, one in zip(fields, encoded, strict=True)
        ]

    def observed(self, given: ModelInput[Encoded]) -> list[int]:
        """The token ids."""
        return given.item.ids

    def count(self, given: Sequence[ModelInput[Encoded]], metrics: ServeMetrics, passes: int = 1) -> dict[str, int]:
        """Counts the tokens, and those that are unknown: many of them mean texts in another language."""
        metrics.tokens("unknown", sum(one.item.unknown for one in given))
        return super().count(given, metrics, passes)

    def usage(self, given: Sequence[ModelInput[Encoded]]) -> dict[str, int]:
        """Counts of the tokens."""
        tokens = sum(one.units for one in given)
        return {"prompt_tokens": tokens, "total_tokens": tokens}

    def _check_length(self, field: str, encoded: Encoded) -> None:
        if encoded.truncated:
            raise invalid(
                field,
                f"{field}: {encoded.total_tokens} tokens given; {self.encoder.max_length} are allowed; "
                'send "truncate": true to have the rest cut off',
                code="context_length_exceeded",
            )
