"""What the loop tells of itself: each optimizer step, each validation."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepStats:
    """What one optimizer step did."""

    step: int
    """Steps done, this one included."""
    steps: int
    loss: float
    """Mean over the targets of the global batch."""
    learning_rate: float
    grad_norm: float
    """Over all parameters, before clipping."""
    seconds: float
    samples: int
    """Records of this rank, or its part of those that workers share."""
    micro_batch_size: int
    """Records in one pass at most."""
    tokens: int
    """Tokens of this rank, or its part of them, padding left out."""
    asks: bool = False
    """Whether a rank would ask for notices now."""
    suspects: tuple[int, ...] = ()
    """Training records of this rank in micro-batches whose loss is no number."""
    data_seconds: float = 0.0
    """Of `seconds`, those in which this rank put batches together."""
    communication_seconds: float = 0.0
    """Of `seconds`, those in which this rank waited in collective operations."""
    flops: float = 0.0
    """What the model needs for this rank's tokens."""

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradients are numbers; the weights are as before the step where they are not."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    @property
    def rates(self) -> dict[str, float]:
        """What this rank did a second: `samples_per_second`, `tokens_per_second`, `flops_per_second`."""
        done = {"samples": self.samples, "tokens": self.tokens, "flops": self.flops}
        return {f"{name}_per_second": value / self.seconds for name, value in done.items()}


@dataclass(frozen=True)
class Report:
    """A validation."""

    step: int
    steps: int
    metrics: dict[str, float]
