"""Low-rank adapters in the `train` section of a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Fraction, Positive


class AdapterConfig(StrictModel):
    """Low-rank adapters (LoRA), trained instead of the base model's own weights."""

    rank: Positive = 16
    """Columns of the first matrix, rows of the second."""
    alpha: Positive = 32
    """Scale of the product of the two matrices: `alpha / rank`."""
    dropout: Fraction = 0.0
    """Dropout on the input of the first matrix."""
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """The linear layers to adapt, by the last part of their names, such as `[q_proj, v_proj]`."""
    quantize: Literal["nf4"] | None = None
    """`nf4`: keep the base model's linear layers in 4 bits (QLoRA)."""
    publish: Literal["merged", "adapter"] = "merged"
    """`merged`: one plain model; `adapter`: the adapter alone, with the base model stored once for all its adapters."""

    @model_validator(mode="after")
    def _belongs_to_the_base(self) -> AdapterConfig:
        if self.publish == "adapter" and self.quantize:
            raise ValueError(
                f"train.adapter.publish: adapter given; one trained beside weights in {self.quantize} does not belong "
                "to the base model's own, and merged is allowed"
            )
        return self
