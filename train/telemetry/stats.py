"""What the loop reports about each optimizer step and each validation."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepStats:
    """Results of one optimizer step."""

    step: int
    """Steps done, including this one."""
    steps: int
    loss: float
    """Mean over the targets of the global batch."""
    learning_rate: float
    grad_norm: float
    """Over all parameters, before clipping."""
    seconds: float
    samples: int
    """Records of this rank, or its part of records that workers share."""
    micro_batch_size: int
    """Most records in one micro-batch."""
    tokens: int
    """Tokens of this rank, or its part of them, without padding."""
    asks: bool = False
    """Whether a rank wants to poll for notices now."""
    suspects: tuple[int, ...] = ()
    """Training records of this rank in micro-batches whose loss is not finite."""
    data_seconds: float = 0.0
    """Part of `seconds` in which this rank collated batches."""
    communication_seconds: float = 0.0
    """Part of `seconds` in which this rank waited for collective operations."""
    flops: float = 0.0
    """FLOPs that the model needs for this rank's tokens."""

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradients are finite; if not, the weights are unchanged by the step."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    @property
    def rates(self) -> dict[str, float]:
        """This rank's `samples_per_second`, `tokens_per_second` and `flops_per_second`."""
        done = {"samples": self.samples, "tokens": self.tokens, "flops": self.flops}
        return {f"{name}_per_second": value / self.seconds for name, value in done.items()}


@dataclass(frozen=True)
class Report:
    """Results of a validation."""

    step: int
    steps: int
    metrics: dict[str, float]
